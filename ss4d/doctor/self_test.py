"""Does an implementation of `ss4d.backend` compute what the reference computes? For `python -m ss4d.doctor`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ss4d.backend import IMPLEMENTATIONS, Backend, BackendError, use
from ss4d.cameras import orbit_camera
from ss4d.gaussians import Gaussians, rasterize
from ss4d.nn.attention import packed_attention
from ss4d.segments import Segments
from ss4d.sparse import SparseTensor, submanifold_convolution

REFERENCE = {"attention": "torch", "convolution": "ours", "rasterizer": "torch"}
TOLERANCE = 2e-2  # spans half precision; a wrong kernel is off by far more


def self_test(part: str, name: str, device: str) -> str:
    """Compare an implementation with the reference on a small input.

    Returns:
        Such as "error 1e-07 on cpu".

    Raises:
        BackendError: it does not run here, or differs from the reference.
    """
    half = IMPLEMENTATIONS[part][name].flash
    compute: dict[str, Callable[[], Tensor]] = {
        "attention": lambda: attention(device, torch.float16 if half else torch.float32),
        "convolution": lambda: convolution(device),
        "rasterizer": lambda: rendering(device),
    }
    answers = []
    for choice in (REFERENCE[part], name):
        use(Backend(**{part: choice}), device)
        answers.append(compute[part]().float())
    error = float((answers[0] - answers[1]).abs().max())
    if not error < TOLERANCE:
        raise BackendError(f"{part} = {name} differs from {REFERENCE[part]} by {error:.2g}: do not use it")
    return f"error {error:.1g} on {device}"


def attention(device: str, dtype: torch.dtype) -> Tensor:
    """Of two segments of different lengths."""
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 24, 2, 32).to(device, dtype)
    return packed_attention(q, k, v, Segments([10, 14]), Segments([10, 14]))


def convolution(device: str) -> Tensor:
    """3 x 3 x 3 over two frames of scattered voxels."""
    torch.manual_seed(0)
    occupied = torch.rand(1, 2, 6, 6, 6) < 0.4
    x = SparseTensor(torch.randn(int(occupied.sum()), 16).to(device), occupied.nonzero().int().to(device), num_frames=2)
    return submanifold_convolution(x, torch.randn(16, 3, 3, 3, 16).to(device) / 20).feats


def rendering(device: str) -> Tensor:
    """Of forty Gaussians."""
    torch.manual_seed(0)
    scene = Gaussians(
        xyz=0.2 * torch.randn(40, 3),
        scale=0.05 * torch.rand(40, 3) + 0.01,
        rotation=torch.randn(40, 4),
        opacity=torch.rand(40, 1),
        sh=torch.randn(40, 1, 3),
    )
    return rasterize(scene.to(device), orbit_camera(30.0, 15.0).to(device), 32).colour
