"""Flickering: how much a video changes from frame to frame (Yang et al., "CogVideoX", 2024, as cited in paper §5.3)."""

from __future__ import annotations

from torch import Tensor


def flickering(video: Tensor) -> float:
    """Mean absolute difference of adjacent frames on the scale 0-255; motion counts too, so compare equal motions.

    Args:
        video: [..., T, C, H, W] in [0, 1], T at least 2.

    Raises:
        ValueError: a video of one frame.
    """
    frames = video.shape[-4]
    if frames < 2:
        raise ValueError(f"Flickering compares adjacent frames, but the video has {frames}: pass at least 2.")
    pixels = 255 * video.double()
    return float((pixels[..., 1:, :, :, :] - pixels[..., :-1, :, :, :]).abs().mean())
