"""In which precision a device computes: what `train.precision` stands for there."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from ss4d.precision import DTYPES, is_fast_at_bfloat16


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The type that matrix products are done in, None for float32.

    "auto" is bfloat16 where torch has fast kernels for it. Elsewhere it is emulated: a CPU with AVX2 alone multiplies
    forty times slower in bfloat16 than in float32 (docs/benchmarks.md). The paper trains in fp16 (§5).

    Args:
        precision: "auto", "fp32", "bf16" or "fp16", as `TrainSettings` checked.
    """
    if precision == "auto":
        precision = "bf16" if is_fast_at_bfloat16(device) else "fp32"
    return None if precision == "fp32" else DTYPES[precision]


def autocast(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """Torch's autocast to that type, or nothing."""
    dtype = autocast_dtype(precision, device)
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)
