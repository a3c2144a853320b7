"""Frechet Video Distance (Unterthiner et al., "Towards Accurate Generative Models of Video", 2018).

Features are logits of I3D, either from `i3d.safetensors` (see `ss4d.metrics.i3d`) or from `i3d_torchscript.pt` as
StyleGAN-V's authors published it. Their distances differ; the hash in a result says which was used.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ss4d.metrics.frechet import frechet_distance
from ss4d.metrics.i3d import load_i3d

FEWEST_FRAMES = 9  # below that nothing is left of a clip after I3D's poolings over time
WEIGHTS = ("i3d.safetensors", "i3d_torchscript.pt")
# "clips": features of a clip are averaged over time, and a Gaussian is laid over all clips of a set. "single_video", as
# Consistent4D's evaluation does it: a Gaussian over the steps of time of one clip, the distances averaged over clips.
VARIANTS = ("clips", "single_video")

VideoNetwork = Callable[[Tensor], Tensor]  # a clip [1, 3, T, H, W] in [0, 255] to features [t, D]


def load_video_network(path: Path) -> VideoNetwork:
    """The network of one of the two files in `WEIGHTS`."""
    if path.suffix == ".safetensors":
        return load_i3d(path)
    script: Any = torch.jit.load(str(path)).eval()
    return lambda clip: script(clip, rescale=True, resize=True, return_features=True)


@torch.inference_mode()
def video_features(network: VideoNetwork, videos: Tensor) -> Tensor:
    """Features [N, t, D], float32, of videos [N, T, 3, H, W] in [0, 1].

    Raises:
        ValueError: fewer frames than I3D can take.
    """
    if videos.shape[1] < FEWEST_FRAMES:
        raise ValueError(f"I3D takes clips of {FEWEST_FRAMES} frames or more, but these have {videos.shape[1]}.")
    return torch.stack([network(255 * video.movedim(0, 1)[None]).float() for video in videos])


def frechet_video_distance(features: Tensor, target: Tensor, variant: str = "clips") -> float:
    """FVD of features [N, t, D] against those of the target clips [M, t, D].

    Warns where a Gaussian is laid over fewer points than dimensions: its covariance is singular, and the
    distance comparable only with others of equally many points.

    Raises:
        ValueError: an unknown variant; for "single_video" sets of other sizes, or clips with one step of time.
    """
    if variant not in VARIANTS:
        raise ValueError(f"FVD comes as {' or '.join(VARIANTS)}, but the variant is {variant!r}.")
    single = variant == "single_video"
    if single and (len(features) != len(target) or min(features.shape[1], target.shape[1]) < 2):
        raise ValueError(
            f"FVD of single videos compares pairs of clips with at least 2 steps of time each, but the features are "
            f"{list(features.shape)} and {list(target.shape)}: pass longer clips, and i3d.safetensors as the network."
        )
    points, dimensions = (features.shape[1] if single else min(len(features), len(target))), features.shape[2]
    if points < dimensions:
        warnings.warn(
            f"FVD from {points} points of {dimensions} features each: the covariance is singular, so compare the "
            "distance only with those of equally many.",
            stacklevel=2,
        )
    if single:
        distances = [frechet_distance(a, b) for a, b in zip(features, target, strict=True)]
        return sum(distances) / len(distances)
    return frechet_distance(features.mean(1), target.mean(1))
