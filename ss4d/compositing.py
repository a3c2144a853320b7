"""Pictures with alpha over a background: c = alpha c_object + (1 - alpha) c_background."""

from __future__ import annotations

import torch
from torch import Tensor


def over_background(rgba: Tensor, background: Tensor) -> Tensor:
    """Composite pictures over a colour.

    Args:
        rgba: uint8 [..., H, W, 4], straight alpha (colours not premultiplied).
        background: float32 [3], in [0, 1].

    Returns:
        float32 [..., 3, H, W] in [0, 1].
    """
    values = rgba.float() / 255
    colour, alpha = values[..., :3], values[..., 3:]
    return (colour * alpha + background * (1 - alpha)).movedim(-1, -3)


def composite_premultiplied(colour: Tensor, alpha: Tensor, background: Tensor) -> Tensor:
    """Colours that are multiplied by alpha already, [3, H, W] with alpha [1, H, W], over a background [3]."""
    return colour + (1 - alpha) * background[:, None, None]


def premultiplied(rgba: Tensor) -> Tensor:
    """uint8 [..., 4, H, W], straight alpha -> float32 in [0, 1], colours multiplied by alpha."""
    values = rgba.float() / 255
    colour, alpha = values.split([3, 1], dim=-3)
    return torch.cat([colour * alpha, alpha], dim=-3)


def encoder_input(rgba: Tensor, channels: int) -> Tensor:
    """uint8 [N, 4, S, S], straight alpha -> what an image encoder takes, float32 [N, 3 or 4, S, S] in [0, 1]: with
    alpha, premultiplied; without, over black in whole levels, as the released code has it."""
    if channels == 4:
        return premultiplied(rgba)
    return on_black(rgba.movedim(-3, -1)).movedim(-1, -3).float() / 255


def on_black(rgba: Tensor) -> Tensor:
    """uint8 [T, S, S, 4], straight alpha -> uint8 [T, S, S, 3] over black, rounded down."""
    values = rgba.float() / 255
    return (values[..., :3] * values[..., 3:] * 255).byte()
