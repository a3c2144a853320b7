"""Attention over packed segments: the single entry point of every model, dense or sparse.

A segment of the query attends to the segment of the key with the same number; nothing crosses segments and no
mask is needed. This is the paper's Eq. 2 for any choice of segments: a frame, a temporal window, a window over
space and time, a whole clip. `ss4d.backend` chooses the implementation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from einops import einsum, rearrange
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from ss4d.backend import resolve
from ss4d.precision import has_bfloat16_tiles
from ss4d.segments import Segments

AttentionKernel = Callable[[Tensor, Tensor, Tensor, Segments, Segments], Tensor]


def packed_attention(
    q: Tensor, k: Tensor, v: Tensor, q_segments: Segments, k_segments: Segments, backend: str | None = None
) -> Tensor:
    """softmax(q k^T / sqrt(D)) v inside every segment.

    Args:
        q: [N, H, D]; k, v: [M, H, D], packed segment after segment.
        q_segments, k_segments: run lengths that add up to N and to M; equally many. A query segment whose key
            segment is empty gets zeros.
        backend: "torch" (explicit softmax, the reference), "sdpa" (fused, any device), "varlen" (torch's
            variable-length kernel), "flash" (flash-attn), "xformers"; by default what `ss4d.backend` says.

    Returns:
        [N, H, D].

    Raises:
        ValueError: shapes or segments that do not fit.
        BackendError: an unknown backend, or one that does not run here.
    """
    if len(q_segments) != len(k_segments) or q_segments.total != q.shape[0] or k_segments.total != k.shape[0]:
        raise ValueError(f"segments do not fit the tokens: {q_segments} for {len(q)}, {k_segments} for {len(k)}")
    if k.shape != v.shape or q.shape[1:] != k.shape[1:]:
        raise ValueError(f"q {list(q.shape)}, k {list(k.shape)} and v {list(v.shape)} must agree in heads and width")
    half = q.dtype in (torch.float16, torch.bfloat16)
    name = resolve("attention", q.device, half, backend, head_channels=q.shape[-1])
    return _KERNELS[name](q, k, v, q_segments, k_segments)


def _reference(q: Tensor, k: Tensor, v: Tensor, q_segments: Segments, k_segments: Segments) -> Tensor:
    out = []
    for q_run, k_run, v_run in _runs(q, k, v, q_segments, k_segments):
        score = einsum(q_run, k_run, "query head d, key head d -> head query key") / math.sqrt(q.shape[-1])
        out.append(einsum(score.softmax(-1), v_run, "head query key, key head d -> query head d"))
    return _joined(out, q)


def _joined(out: list[Tensor], q: Tensor) -> Tensor:
    """What the segments give, for all queries; a single one is not copied."""
    if not out:
        return torch.zeros_like(q)
    return out[0] if len(out) == 1 else torch.cat(out)


def _fused(q: Tensor, k: Tensor, v: Tensor, q_segments: Segments, k_segments: Segments) -> Tensor:
    if q_segments.uniform and k_segments.uniform and len(q_segments):
        count = len(q_segments)
        batched = (rearrange(x, "(segment token) head d -> segment head token d", segment=count) for x in (q, k, v))
        return rearrange(_heads(*batched), "segment head token d -> (segment token) head d")
    out = []
    for runs in _runs(q, k, v, q_segments, k_segments):
        batched = (rearrange(x, "token head d -> 1 head token d") for x in runs)
        out.append(rearrange(_heads(*batched), "1 head token d -> token head d"))
    return _joined(out, q)


# On a CPU torch's fused bfloat16 kernel is slow, its backward most of all (docs/benchmarks.md): below this length
# plain matrix products win, above it the float32 kernel. Its forward wins where the processor has tiles for it.
_SHORT_ON_CPU = 512


def _heads(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of equally long segments: q [S, H, L, D]; k, v [S, H, M, D] -> [S, H, L, D]."""
    if q.device.type == "cpu" and not torch.is_grad_enabled():
        k, v = k.contiguous(), v.contiguous()  # read again for every block of queries: a few percent faster
    if q.device.type != "cpu" or q.dtype != torch.bfloat16 or (has_bfloat16_tiles() and not torch.is_grad_enabled()):
        return sdpa(q, k, v)
    if k.shape[2] <= _SHORT_ON_CPU:
        return (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1) @ v
    with torch.autocast("cpu", enabled=False):
        return sdpa(q.float(), k.float(), v.float()).to(q.dtype)


def _runs(
    q: Tensor, k: Tensor, v: Tensor, q_segments: Segments, k_segments: Segments
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """(q [L, H, D], k [M, H, D], v [M, H, D]) of each segment that has any query."""
    q_runs, k_runs, v_runs = q.split(q_segments.lengths), k.split(k_segments.lengths), v.split(k_segments.lengths)
    return [runs for runs in zip(q_runs, k_runs, v_runs, strict=True) if len(runs[0])]


def _varlen(q: Tensor, k: Tensor, v: Tensor, q_segments: Segments, k_segments: Segments) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    attend: Any = varlen_attn  # its annotation covers a second, optional output
    return attend(q.contiguous(), k.contiguous(), v.contiguous(), *_lengths(q, q_segments, k_segments))


def _flash(q: Tensor, k: Tensor, v: Tensor, q_segments: Segments, k_segments: Segments) -> Tensor:
    from flash_attn import flash_attn_varlen_func

    return flash_attn_varlen_func(q, k, v, *_lengths(q, q_segments, k_segments))


def _lengths(q: Tensor, q_segments: Segments, k_segments: Segments) -> tuple[Tensor, Tensor, int, int]:
    """Cumulative lengths int32 [S + 1] of both, then the longest of both: what variable-length kernels take."""
    cumulative = q_segments.cumulative(q.device), k_segments.cumulative(q.device)
    return *cumulative, q_segments.longest, k_segments.longest


def _xformers(q: Tensor, k: Tensor, v: Tensor, q_segments: Segments, k_segments: Segments) -> Tensor:
    from xformers.ops import fmha, memory_efficient_attention

    mask = fmha.BlockDiagonalMask.from_seqlens(q_segments.lengths, k_segments.lengths)
    return memory_efficient_attention(q[None], k[None], v[None], attn_bias=mask)[0]


_KERNELS: dict[str, AttentionKernel] = {
    "torch": _reference,
    "sdpa": _fused,
    "varlen": _varlen,
    "flash": _flash,
    "xformers": _xformers,
}
