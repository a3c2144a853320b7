"""Temporal warping error (Lai et al., "Learning Blind Video Temporal Consistency", ECCV 2018)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ss4d.metrics.optical_flow import optical_flow, warp

SMALLEST_SIDE = 96  # pixels, at which frames are no longer averaged down


def warping_error(video: Tensor, target: Tensor) -> float:
    """Mean squared difference between a frame and the next one warped back onto it, where the true motion can be
    followed there and back.

    The flow is that of the true video, so a method is not rewarded for standing still; what flickers along the true
    motion counts, the motion itself does not.

    Frames are averaged down to a side below 192 first: the flow is as good there and takes a quarter of the time.

    Args:
        video, target: [T, 3, H, W] in [0, 1], T at least 2.

    Raises:
        ValueError: videos of other shapes, or of one frame.
    """
    if video.shape != target.shape or len(video) < 2:
        raise ValueError(
            f"The warping error compares videos of one shape and at least 2 frames, but they are {list(video.shape)} "
            f"and {list(target.shape)}."
        )
    while min(target.shape[-2:]) >= 2 * SMALLEST_SIDE:
        video, target = avg_pool2d(video, 2), avg_pool2d(target, 2)
    there, back = optical_flow(target[:-1], target[1:]), optical_flow(target[1:], target[:-1])
    visible = _consistent(there, back)
    error = (video[:-1] - warp(video[1:], there)).square().mean(1)
    return float((error * visible).sum() / visible.sum().clamp(min=1))


def _consistent(there: Tensor, back: Tensor) -> Tensor:
    """Pixels whose motion leads forth and back to themselves, float [N, H, W]: eq. 5 of Ruder et al., "Artistic Style
    Transfer for Videos", 2016, as in Lai et al."""
    returned = warp(back, there)
    difference = (there + returned).square().sum(1)
    return (difference <= 0.01 * (there.square().sum(1) + returned.square().sum(1)) + 0.5).to(torch.float32)
