"""Dense optical flow by the iterative Lucas-Kanade method, coarse to fine (Lucas and Kanade 1981; Bouguet, "Pyramidal
Implementation of the Lucas Kanade Feature Tracker", 2001): no weights, exact enough for the small motions between
adjacent frames."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample, interpolate

SMALLEST_SIDE = 16  # pixels of the coarsest level
WINDOW = 9  # pixels that share one motion
ITERATIONS = 6  # a level
REGULARISER = 1e-4  # keeps the motion of a surface without texture at that of the level before


def optical_flow(first: Tensor, second: Tensor) -> Tensor:
    """Where the pixels of one image are found in another.

    Args:
        first, second: [N, 3, H, W] in [0, 1].

    Returns:
        [N, 2, H, W], (x, y) in pixels: first[p] looks like second[p + flow[p]].
    """
    levels = [(first.mean(1, keepdim=True), second.mean(1, keepdim=True))]
    while min(levels[-1][0].shape[-2:]) >= 2 * SMALLEST_SIDE:
        levels.append((avg_pool2d(levels[-1][0], 2), avg_pool2d(levels[-1][1], 2)))
    flow = torch.zeros(len(first), 2, *levels[-1][0].shape[-2:], dtype=first.dtype)
    for x, y in reversed(levels):
        if flow.shape[-2:] != x.shape[-2:]:
            flow = 2 * interpolate(flow, x.shape[-2:], mode="bilinear", align_corners=False)
        for _ in range(ITERATIONS):
            flow = flow + (_improved(x, warp(y, flow), flow) - flow).clamp(-1, 1)  # a pixel at most
    return flow


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """image[p + flow[p]] at every pixel p, bilinear, the border repeated: [N, C, H, W]."""
    height, width = image.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    at_x, at_y = x + flow[:, 0], y + flow[:, 1]
    grid = torch.stack([(2 * at_x + 1) / width - 1, (2 * at_y + 1) / height - 1], dim=-1).to(image.dtype)
    return grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _improved(x: Tensor, warped: Tensor, flow: Tensor) -> Tensor:
    """The least-squares motion of every window. As each pixel was warped by a motion of its own, the window is asked
    for the whole motion u, g (u - flow) = x - warped with the gradient g, and not for what is to be added: a sum over
    a window of differences that neighbours do not share would let errors grow from one iteration to the next."""
    mean = (x + warped) / 2
    padded = torch.nn.functional.pad(mean, (1, 1, 1, 1), mode="replicate")
    gx = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    gy = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    difference = x - warped + gx * flow[:, :1] + gy * flow[:, 1:]

    def window(values: Tensor) -> Tensor:
        return avg_pool2d(values, WINDOW, 1, WINDOW // 2, count_include_pad=False)

    xx, xy, yy = window(gx * gx) + REGULARISER, window(gx * gy), window(gy * gy) + REGULARISER
    before = REGULARISER * window(flow)
    bx, by = window(gx * difference) + before[:, :1], window(gy * difference) + before[:, 1:]
    determinant = xx * yy - xy * xy
    return torch.cat([(yy * bx - xy * by) / determinant, (xx * by - xy * bx) / determinant], dim=1)
