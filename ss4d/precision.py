"""Precisions by name, which of them a device is fast at, and in which one models generate."""

from __future__ import annotations

from functools import cache

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def generation_dtype(precision: str | None, device: torch.device) -> torch.dtype | None:
    """In which type the torsos of models (`ss4d.models.base`) generate; None: what the settings of each say.

    Args:
        precision: "fp32", "bf16" or "fp16"; None: float32 on a CPU, the models' settings on CUDA.

    Raises:
        ValueError: another name, or a precision that is slower than float32 on `device`.
    """
    if precision is None:
        return torch.float32 if device.type == "cpu" else None
    if precision not in DTYPES:
        raise ValueError(f"precision {precision!r}: choose one of {', '.join(DTYPES)}")
    if precision == "fp16" and device.type == "cpu":
        raise ValueError("precision fp16 is slow on a CPU: use fp32, or bf16 where the processor has it")
    if precision == "bf16" and not is_fast_at_bfloat16(device):
        raise ValueError(f"precision bf16: this machine's {device.type} is slower at it than at fp32: use fp32")
    return DTYPES[precision]


def name_of(dtype: torch.dtype) -> str:
    """Of one of `DTYPES`."""
    return next(name for name, candidate in DTYPES.items() if candidate == dtype)


@cache
def is_fast_at_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 at least about as fast as float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8  # from Ampere on; all that ROCm runs on
    return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


@cache
def has_bfloat16_tiles() -> bool:
    """Whether the processor multiplies tiles of bfloat16 (AMX), about ten times as fast as float32."""
    return bool(torch.cpu._is_amx_tile_supported())
