"""Frechet Video Distance (Unterthiner et al., "Towards Accurate Generative Models of Video", 2018).

Features come from an I3D network given as TorchScript: `i3d_torchscript.pt`, as StyleGAN-V's authors published it (its
logits of Kinetics-400, D = 400). It is called as they do, `model(x, rescale=True, resize=True, return_features=True)`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ss4d.evaluation.frechet import frechet_distance

FEWEST_FRAMES = 10  # below that nothing is left of a clip after I3D's temporal poolings
WEIGHTS = "i3d_torchscript.pt"
# "clips": a Gaussian over all clips of a set. "single_video": Consistent4D compares one clip with one, where there is
# no covariance; what is left of the distance is |m1 - m2|^2, averaged over the pairs.
VARIANTS = ("clips", "single_video")

VideoNetwork = Callable[[Tensor], Tensor]  # [N, 3, T, H, W] in [0, 255] to features [N, D]


def load_i3d(path: Path, device: torch.device | str = "cpu") -> VideoNetwork:
    """The network in a TorchScript file."""
    script: Any = torch.jit.load(str(path), map_location=device).eval()
    return lambda clips: script(clips.to(device), rescale=True, resize=True, return_features=True)


@torch.inference_mode()
def video_features(network: VideoNetwork, videos: Tensor) -> Tensor:
    """Features [N, D], float64 on the CPU, of videos [N, T, 3, H, W] in [0, 1], one at a time.

    Raises:
        ValueError: fewer frames than I3D can take.
    """
    if videos.shape[1] < FEWEST_FRAMES:
        raise ValueError(f"I3D takes clips of {FEWEST_FRAMES} frames or more, but these have {videos.shape[1]}.")
    return torch.cat([network(255 * video.movedim(0, 1)[None]).double().cpu() for video in videos])


def frechet_video_distance(features: Tensor, truth: Tensor, variant: str = "clips") -> float:
    """FVD of features [N, D] against those of the true clips [M, D].

    Warns where "clips" has fewer clips than dimensions: the covariance is then singular, and the figure comparable with
    none but those of equally many clips.

    Raises:
        ValueError: an unknown variant; sets of other sizes for "single_video", whose clips are compared in pairs.
    """
    if variant not in VARIANTS:
        raise ValueError(f"FVD comes as {' or '.join(VARIANTS)}, but the variant is {variant!r}.")
    if variant == "single_video":
        if features.shape != truth.shape:
            raise ValueError(f"Single videos are compared in pairs, but there are {len(features)} and {len(truth)}.")
        return float((features.double() - truth.double()).square().sum(1).mean())
    fewest, dimensions = min(len(features), len(truth)), features.shape[1]
    if fewest < dimensions:
        warnings.warn(
            f"FVD from {fewest} clips of {dimensions} features each: the covariance is singular, so compare the figure "
            "only with those of equally many clips.",
            stacklevel=2,
        )
    return frechet_distance(features, truth)
