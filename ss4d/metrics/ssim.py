"""Structural similarity (Wang, Bovik, Sheikh and Simoncelli, "Image Quality Assessment: From Error Visibility to
Structural Similarity", IEEE TIP 2004)."""

from __future__ import annotations

import torch
from torch import Tensor

WINDOW, SIGMA = 11, 1.5  # pixels: side and standard deviation of the Gaussian window


def structural_similarity_map(x: Tensor, y: Tensor) -> Tensor:
    """SSIM at every place where the Gaussian window fits into the image: eq. 13 of the paper, K1 = 0.01, K2 = 0.03.

    Args:
        x, y: [N, C, H, W] in [0, 1], channels apart; H and W at least 11.

    Returns:
        [N, C, H - 10, W - 10] in [-1, 1].
    """
    down, across = (_gaussian_windows(size, x.device).to(x.dtype) for size in x.shape[-2:])

    def blur(image: Tensor) -> Tensor:
        return down @ image @ across.T

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    contrast = (2 * covariance + c2) / (var_x + var_y + c2)
    return luminance * contrast


def _gaussian_windows(size: int, device: torch.device) -> Tensor:
    """[size - 10, size]: the weights of every place where the window fits. A product with it is several times
    faster on a CPU than a convolution of each channel."""
    steps = torch.arange(WINDOW, device=device)
    line = torch.exp(-(steps - WINDOW // 2).double().square() / (2 * SIGMA**2))
    matrix = torch.zeros(size - WINDOW + 1, size, dtype=torch.float64, device=device)
    places = torch.arange(len(matrix), device=device)[:, None]
    matrix[places, places + steps] = line / line.sum()
    return matrix


def structural_similarity(x: Tensor, y: Tensor) -> Tensor:
    """Mean of `structural_similarity_map` over all images, a scalar; differentiable, so it serves as a loss too."""
    return structural_similarity_map(x, y).mean()


def ssim(images: Tensor, targets: Tensor) -> Tensor:
    """Mean SSIM of each image, [N] in [-1, 1], computed in float64.

    Args:
        images, targets: [N, C, H, W] in [0, 1].
    """
    return structural_similarity_map(images.double(), targets.double()).mean(dim=(1, 2, 3))
