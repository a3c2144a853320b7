"""Frechet distance of two Gaussians (Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", 2017)."""

from __future__ import annotations

import torch
from torch import Tensor


def frechet_distance(first: Tensor, second: Tensor) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2) of two sets of features, in float64.

    The root's trace comes from the eigenvalues of that symmetric product, which are real and not negative, unlike those
    of S1 S2 as computed: equal sets give 0, and nothing is negative.

    Args:
        first, second: [N, D] and [M, D] features, N and M at least 2.

    Raises:
        ValueError: a set too small for a covariance, or other dimensions.
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ValueError(f"Features must be [N, D] and [M, D], but they are {list(first.shape)}, {list(second.shape)}.")
    if min(len(first), len(second)) < 2:
        raise ValueError(f"A covariance takes at least 2 clips, but the sets have {len(first)} and {len(second)}.")
    x, y = first.double(), second.double()
    covariance_x, covariance_y = torch.cov(x.T).reshape(x.shape[1], -1), torch.cov(y.T).reshape(x.shape[1], -1)
    values, vectors = torch.linalg.eigh(covariance_x)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    product = root @ covariance_y @ root
    shared = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum()
    means = (x.mean(0) - y.mean(0)).square().sum()
    return float((means + covariance_x.trace() + covariance_y.trace() - 2 * shared).clamp(min=0))
