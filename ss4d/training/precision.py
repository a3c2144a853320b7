"""In which precision a device computes: what `train.precision` stands for there."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The type that matrix products are done in, None for float32.

    "auto" is bfloat16 where torch has fast kernels for it. Elsewhere it is emulated: a CPU with AVX2 alone multiplies
    forty times slower in bfloat16 than in float32 (docs/benchmarks.md). The paper trains in fp16 (§5).

    Args:
        precision: "auto", "fp32", "bf16" or "fp16", as `TrainSettings` checked.
    """
    if precision == "auto":
        precision = "bf16" if is_fast_at_bfloat16(device) else "fp32"
    return DTYPES[precision]


def autocast(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """Torch's autocast to that type, or nothing."""
    dtype = autocast_dtype(precision, device)
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


@cache
def is_fast_at_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 at least about as fast as float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
