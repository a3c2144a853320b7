"""Frechet Video Distance (Unterthiner et al., "Towards Accurate Generative Models of Video", 2018).

Features are logits of I3D, either from `i3d.safetensors` (see `ss4d.metrics.i3d`) or from `i3d_torchscript.pt` as
StyleGAN-V's authors published it. Their distances differ; the hash in a result says which was used.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ss4d.metrics.frechet import frechet_distance
from ss4d.metrics.i3d import Resizing, load_i3d

WEIGHTS = ("i3d.safetensors", "i3d_torchscript.pt")


@dataclass(frozen=True)
class Variant:
    """One way to make an FVD of I3D's logits.

    Attributes:
        fewest_frames: that a clip must have.
        pooled_steps: steps of time that I3D's last average pooling spans.
        resizing: to I3D's size, "bilinear" as the published code does, or "pil", antialiased bicubic.
    """

    fewest_frames: int
    pooled_steps: int
    resizing: Resizing


VARIANTS = {
    # Features of a clip are averaged over time, and a Gaussian is laid over all clips of a set.
    "clips": Variant(9, 2, "bilinear"),
    # A Gaussian over the steps of time of one clip; the distances of the pairs are averaged.
    "steps_of_time": Variant(17, 2, "bilinear"),
    # As Consistent4D's evaluation/compute_fvd.py computes it: a clip is one vector of logits, averaged over time. NumPy
    # (below 2.2) takes the covariance of a single row for the scalar variance of its 400 values, so the distance is
    # |m1 - m2|^2 + (s1 - s2)^2 with their standard deviations s. The distances of the pairs are averaged.
    "consistent4d": Variant(2, 1, "pil"),
}

VideoNetwork = Callable[[Tensor], Tensor]  # a clip [1, 3, T, H, W] in [0, 255] to features [t, D]


def load_video_network(path: Path, variant: str = "clips") -> VideoNetwork:
    """The network of one of the two files in `WEIGHTS`, as a variant needs it.

    Raises:
        ValueError: an unknown variant, or a file that this variant cannot use.
    """
    way = find_variant(variant)
    if path.suffix == ".safetensors":
        return load_i3d(path, way.pooled_steps, way.resizing)
    if variant != "clips":
        raise ValueError(f"FVD as {variant} takes i3d.safetensors, not {path}: docs/evaluation.md has its source.")
    try:
        script: Any = torch.jit.load(str(path)).eval()
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} is damaged or no TorchScript file ({reason}): get it again.") from error
    return lambda clip: script(clip, rescale=True, resize=True, return_features=True)


def find_variant(name: str) -> Variant:
    """A variant by name."""
    if name not in VARIANTS:
        raise ValueError(f"FVD comes as {', '.join(VARIANTS)}, but fvd_variant is {name!r}.")
    return VARIANTS[name]


@torch.inference_mode()
def video_features(network: VideoNetwork, videos: Tensor) -> Tensor:
    """Features [N, t, D], float32, of videos [N, T, 3, H, W] in [0, 1].

    Raises:
        ValueError: fewer frames than I3D can take.
    """
    fewest = min(variant.fewest_frames for variant in VARIANTS.values())
    if videos.shape[1] < fewest:
        raise ValueError(f"I3D takes clips of {fewest} frames or more, but these have {videos.shape[1]}.")
    return torch.stack([network(255 * video.movedim(0, 1)[None]).float() for video in videos])


def frechet_video_distance(features: Tensor, target: Tensor, variant: str = "clips") -> float:
    """FVD of features [N, t, D] against those of the target clips [M, t, D].

    Warns where a Gaussian is laid over fewer points than dimensions: its covariance is singular, and the distance
    comparable only with others of equally many points.

    Raises:
        ValueError: an unknown variant; for pairs of clips, sets of other sizes; for "steps_of_time" clips of one step.
    """
    find_variant(variant)
    if variant != "clips" and len(features) != len(target):
        raise ValueError(
            f"FVD as {variant} compares pairs of clips, but the features are {list(features.shape)} and "
            f"{list(target.shape)}."
        )
    if variant == "consistent4d":
        return consistent4d_distance(features.mean(1), target.mean(1))
    points, dimensions = (
        features.shape[1] if variant == "steps_of_time" else min(len(features), len(target)),
        features.shape[2],
    )
    if points < dimensions:
        warnings.warn(
            f"FVD from {points} points of {dimensions} features each: the covariance is singular, so compare the "
            "distance only with those of equally many.",
            stacklevel=2,
        )
    if variant == "clips":
        return frechet_distance(features.mean(1), target.mean(1))
    if min(features.shape[1], target.shape[1]) < 2:
        raise ValueError(f"FVD as steps_of_time takes clips of at least 2 steps, but there is {features.shape[1]}.")
    distances = [frechet_distance(a, b) for a, b in zip(features, target, strict=True)]
    return sum(distances) / len(distances)


def consistent4d_distance(features: Tensor, target: Tensor) -> float:
    """Mean over pairs of vectors [N, D] of |x - y|^2 + (s(x) - s(y))^2, s over the D values of a vector."""
    x, y = features.double(), target.double()
    distances = (x - y).square().sum(1) + (x.std(1) - y.std(1)).square()
    return float(distances.mean())
