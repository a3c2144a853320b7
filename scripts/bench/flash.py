"""flash-attn for a machine that has none, by torch's fused attention."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa


def stand_in_for_flash() -> ModuleType:
    """The functions of flash-attn that the released code calls, forward alone."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return sdpa(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)

    def segments(q: Tensor, k: Tensor, v: Tensor, q_bounds: Tensor, k_bounds: Tensor, *longest: int) -> Tensor:
        of_q, of_k = (bounds.diff().tolist() for bounds in (q_bounds, k_bounds))
        runs = zip(q.split(of_q), k.split(of_k), v.split(of_k), strict=True)
        return torch.cat([attend(*(x[None] for x in run))[0] for run in runs])

    def packed_segments(qkv: Tensor, bounds: Tensor, longest: int) -> Tensor:
        q, k, v = qkv.unbind(1)
        return segments(q, k, v, bounds, bounds)

    def packed_keys(q: Tensor, kv: Tensor, q_bounds: Tensor, k_bounds: Tensor, *longest: int) -> Tensor:
        k, v = kv.unbind(1)
        return segments(q, k, v, q_bounds, k_bounds)

    module: Any = ModuleType("flash_attn")
    module.flash_attn_func = attend
    module.flash_attn_kvpacked_func = lambda q, kv: attend(q, *kv.unbind(2))
    module.flash_attn_qkvpacked_func = lambda qkv: attend(*qkv.unbind(2))
    module.flash_attn_varlen_func = segments
    module.flash_attn_varlen_kvpacked_func = packed_keys
    module.flash_attn_varlen_qkvpacked_func = packed_segments
    return module
