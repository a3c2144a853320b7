"""Modulation of tokens by diffusion time (AdaLN): a shift, a scale and a gate for every frame or video."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from ss4d.segments import Segments


@dataclass
class TokenLayout:
    """Which frame row each token belongs to; rows are consecutive.

    `segments`: tokens of each row. `row_of_token`: int64 [N], or None where every row has equally many tokens.
    """

    segments: Segments
    row_of_token: Tensor | None = None

    def modulate(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """x * (1 + scale) + shift with x [N, C] and one shift and scale per row, [R, C]; without gradients over x."""
        into = self._by_rows(x) if _may_overwrite(x, shift) else None
        return torch.addcmul(self._of_tokens(shift), self._by_rows(x), self._of_tokens(1 + scale), out=into).view_as(x)

    def gate(self, x: Tensor, update: Tensor, gate: Tensor) -> Tensor:
        """x + gate * update with one gate per row, [R, C]; without gradients over the update."""
        into = self._by_rows(update) if _may_overwrite(update, x) else None
        return torch.addcmul(self._by_rows(x), self._of_tokens(gate), self._by_rows(update), out=into).view_as(x)

    def _by_rows(self, x: Tensor) -> Tensor:
        """A view of x [N, C] that `_of_tokens` broadcasts to."""
        return x if self.row_of_token is not None else rearrange(x, "(r m) c -> r m c", r=len(self.segments))

    def _of_tokens(self, table: Tensor) -> Tensor:
        """Entries of a table [R, C] for every token."""
        if self.row_of_token is None:
            return table[:, None]
        if not torch.is_grad_enabled():
            return table.index_select(0, self.row_of_token)
        # The gradient of a row is a sum over its thousands of tokens. A GPU adds them up in the type of the table, and
        # in bfloat16 such sums stop growing.
        return table.float().index_select(0, self.row_of_token).to(table.dtype)


def _may_overwrite(x: Tensor, other: Tensor) -> bool:
    """Whether the sum of x and another may take the place of x: nobody needs it for gradients, and it is not of a
    narrower type than the other, as under autocast."""
    return not torch.is_grad_enabled() and torch.promote_types(x.dtype, other.dtype) == x.dtype


def modulation(channels: int, chunks: int) -> nn.Sequential:
    """SiLU, Linear to `chunks` vectors of `channels`; zero at first, so that a new block starts as its residual."""
    linear = nn.Linear(channels, chunks * channels)
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)
    return nn.Sequential(nn.SiLU(), linear)
