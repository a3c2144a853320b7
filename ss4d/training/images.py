"""Image losses."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d


def structural_similarity(x: Tensor, y: Tensor, window: int = 11, sigma: float = 1.5) -> Tensor:
    """Mean SSIM of images [N, C, H, W] in [0, 1] (Wang et al. 2004): Gaussian window, K1 = 0.01, K2 = 0.03."""
    steps = torch.arange(window, dtype=x.dtype, device=x.device) - window // 2
    line = torch.exp(-steps.square() / (2 * sigma**2))
    line = line / line.sum()
    channels = x.shape[1]
    across, down = line.expand(channels, 1, 1, -1), line[:, None].expand(channels, 1, -1, 1)

    def blur(image: Tensor) -> Tensor:
        return conv2d(conv2d(image, across, groups=channels), down, groups=channels)

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    contrast = (2 * covariance + c2) / (var_x + var_y + c2)
    return (luminance * contrast).mean()
