"""What the models share: the torso's precision, activation checkpointing, the posterior of a VAE."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ss4d.config import check_value
from ss4d.sparse import SparseTensor
from ss4d.sparse.conv import Kernel


class TorsoModel(nn.Module):
    """A model whose torso may run in half precision while its ends and all norms stay float32.

    Subclasses list in `torso()` the modules whose matrices and convolutions follow `dtype`.
    """

    dtype: torch.dtype = torch.float32
    use_checkpoint: bool = False

    def torso(self) -> Iterable[nn.Module]:
        raise NotImplementedError

    def set_dtype(self, dtype: torch.dtype) -> None:
        """Cast the torso's matrices and convolutions; norms, gains, first and last layers keep float32."""
        self.dtype = dtype
        for part in self.torso():
            for layer in part.modules():
                if isinstance(layer, nn.Linear | nn.Conv3d | Kernel):
                    layer.to(dtype)

    def blocks_in_order(self) -> list[nn.Module]:
        """What `run_block` calls, in that order."""
        blocks: Any = self.blocks
        return list(blocks)

    def recompute(self, share: float) -> None:
        """Have the first `share` of the blocks, in [0, 1], drop their activations and make them again in the backward
        pass; `use_checkpoint` asks this of all."""
        blocks = self.blocks_in_order()
        for index, block in enumerate(blocks):
            block.recomputed = index < blocks_of(share, len(blocks))  # type: ignore[assignment]

    def run_block(self, block: nn.Module, *args: Any) -> Any:
        """Call a block, which may be one whose activations are recomputed in the backward pass."""
        if (self.use_checkpoint or getattr(block, "recomputed", False)) and torch.is_grad_enabled():
            return checkpoint(block, *args, use_reentrant=False)
        return block(*args)


@dataclass
class Posterior:
    """Diagonal normal distribution over dense latents [B, T, C, R, R, R]."""

    mean: Tensor
    logvar: Tensor

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return _sample(self.mean, self.logvar, generator)

    def kl(self) -> Tensor:
        """KL divergence to the standard normal, averaged over all elements (a scalar)."""
        return _kl(self.mean, self.logvar)


@dataclass
class SparsePosterior:
    """Diagonal normal distribution over voxel latents; `mean` and `logvar` live on one geometry."""

    mean: SparseTensor
    logvar: SparseTensor

    def sample(self, generator: torch.Generator | None = None) -> SparseTensor:
        return self.mean.replace(_sample(self.mean.feats, self.logvar.feats, generator))

    def kl(self) -> Tensor:
        """KL divergence to the standard normal, averaged over all elements (a scalar); 0 without voxels."""
        return _kl(self.mean.feats, self.logvar.feats)


def _sample(mean: Tensor, logvar: Tensor, generator: torch.Generator | None) -> Tensor:
    noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
    return mean + noise * torch.exp(0.5 * logvar)


def _kl(mean: Tensor, logvar: Tensor) -> Tensor:
    mean, logvar = mean.float(), logvar.float()  # near the prior its terms cancel, and half precision has nothing left
    divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar)
    return divergence.mean() if len(divergence) else divergence.sum()


def blocks_of(share: float, blocks: int) -> int:
    """How many of so many blocks a share in [0, 1] is, rounded up but for errors of floating point."""
    return math.ceil(round(share * blocks, 6))


def check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise a ValueError naming the allowed values unless `value` is one of them."""
    if value not in allowed:
        raise ValueError(f"{name} = '{value}' is not supported: choose one of {', '.join(allowed)}")


def check_counts(options: object, *names: str) -> None:
    """Raise a ValueError unless each of these options, where it is given, is at least 1."""
    for name in names:
        value = getattr(options, name)
        if value is not None:
            check_value(value, int, name, at_least=1)


def check_rotation(pe_mode: str, head_channels: int) -> None:
    """Raise a ValueError if queries and keys are to be turned by their frame and their channels do not pair up."""
    if pe_mode == "rope_t" and head_channels % 2:
        raise ValueError(f"pe_mode 'rope_t' turns pairs of channels, but a head has {head_channels}: make it even")


def zero(layer: Any) -> Any:
    """Zero a layer's parameters in place (so that a residual branch starts as nothing) and return it."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
