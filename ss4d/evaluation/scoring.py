"""All metrics of one prediction."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ss4d.compositing import over_background
from ss4d.evaluation.alignment import align
from ss4d.evaluation.crop import crop_videos
from ss4d.evaluation.networks import Networks
from ss4d.evaluation.prediction import Prediction, Rendered, SurfacePoints, render
from ss4d.evaluation.protocol import (
    FLICKERING_TARGET,
    IMAGE_METRICS,
    MOTION_METRICS,
    NOVEL_PSNR,
    SET_METRICS,
    SHAPE_METRICS,
    Protocol,
    aligned,
)
from ss4d.evaluation.subjects.subject import Subject
from ss4d.metrics.flickering import flickering
from ss4d.metrics.fvd import VideoNetwork, video_features
from ss4d.metrics.motion import follow, motion_scores
from ss4d.metrics.psnr import psnr
from ss4d.metrics.shape import intersection_over_union, shape_scores
from ss4d.metrics.ssim import ssim
from ss4d.metrics.warping import warping_error

POINTS = 10_000  # of a frame of a prediction, at most, that are compared with a surface
EQUAL = 100.0  # dB of a picture that is exactly right, beside others that are not
BATCH = 16  # images that go through a network at once


@dataclass
class Scores:
    """Metrics of one object and seed: means over views and frames."""

    metrics: dict[str, float | None]  # by name; None where weights, the target or the form of the result are missing
    features: dict[str, Tensor] = field(
        default_factory=dict
    )  # "prediction" and "target", [V, t, D], for FVD over the set


@dataclass
class AlignedScores:
    """Metrics of a prediction aligned to the input, under their `aligned_` names, and how it was moved."""

    metrics: dict[str, float | None] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)


def score_aligned(subject: Subject, prediction: Prediction, protocol: Protocol, networks: Networks) -> AlignedScores:
    """All metrics but FVD of a prediction aligned to the input; none where the protocol does not ask for them."""
    if not protocol.aligned:
        return AlignedScores()
    moved = align(prediction, subject)
    if moved is None:
        return AlignedScores(dict.fromkeys(name for name in protocol.results if name.startswith(aligned(""))))
    found = score(subject, render(moved, subject, protocol), protocol, replace(networks, video=None))
    report = {"alignment": moved.report["alignment"]} if "alignment" in moved.report else {}
    return AlignedScores({aligned(name): value for name, value in found.metrics.items()}, report)


@torch.inference_mode()
def score(subject: Subject, prediction: Rendered, protocol: Protocol, networks: Networks) -> Scores:
    """Compare a prediction with the target as the protocol says."""
    metrics: dict[str, float | None] = dict.fromkeys(name for name in protocol.metrics if name not in SET_METRICS)
    features: dict[str, Tensor] = {}
    if prediction.views is not None:
        # One view after the other: all of them at once take gigabytes at the paper's size.
        views = [
            _score_view(subject, prediction.views, view, protocol, networks) for view in range(len(subject.cameras))
        ]
        metrics |= {name: sum(view.metrics[name] for view in views) / len(views) for name in views[0].metrics}
        if "psnr" in views[0].metrics:
            decibels = [view.metrics["psnr"] for view in views]
            novel = [value for value, other in zip(decibels, subject.other_sides(), strict=True) if other]
            metrics |= {"psnr": mean_psnr(decibels), NOVEL_PSNR: mean_psnr(novel) if novel else None}
        features = {name: torch.cat([view.features[name] for view in views]) for name in views[0].features}
        if networks.video is not None:
            for name in views[0].videos:
                matrix = torch.stack([view.videos[name] for view in views])
                features |= other_axes(networks.video, matrix, name, protocol)
    if subject.voxels is not None:
        metrics |= _shape_scores(subject.voxels, prediction, protocol)
    if subject.surface is not None and prediction.points is not None:
        metrics |= _motion_scores(subject.surface, prediction.points, protocol)
    return Scores(metrics, features)


def _motion_scores(surface: Tensor, points: SurfacePoints, protocol: Protocol) -> dict[str, float | None]:
    """Distances from the moving surface; n/a where a frame has no points."""
    if points.followed:
        frames = [part.double().numpy() for part in points.frames]
    else:
        generator = torch.Generator().manual_seed(0)
        chosen = [part[torch.randperm(len(part), generator=generator)[:POINTS]] for part in points.frames]
        frames = [part.double().numpy() for part in chosen]
    if not all(map(len, frames)):
        return {}
    tracks = np.stack(frames) if points.followed else follow(frames)
    found = asdict(motion_scores(tracks, surface.numpy(), frames))
    names = [name for name in MOTION_METRICS if name in protocol.metrics]
    return {name: found[name] for name in names if len(frames) >= protocol.fewest_frames(name)}


def other_axes(network: VideoNetwork, matrix: Tensor, name: str, protocol: Protocol) -> dict[str, Tensor]:
    """Features of the videos that lie across the matrix [V, T, 3, S, S] of a clip's pictures: all views of a frame
    (FVD-V of SV4D, Xie et al. 2024), and view and frame 0, 1, ... together (its FVD-Diag)."""
    steps = torch.arange(min(matrix.shape[:2]))
    videos = {"fvd_views": matrix.transpose(0, 1), "fvd_diagonal": matrix[steps, steps][None]}
    fewest = protocol.fewest_frames("fvd")
    return {
        f"{name}_{metric.removeprefix('fvd_')}": torch.cat([video_features(network, v[None].float()) for v in parts])
        for metric, parts in videos.items()
        if metric in protocol.metrics and parts.shape[1] >= fewest
    }


@dataclass
class _ViewScores:
    """Metrics of one view: means over its frames; features [1, t, D]."""

    metrics: dict[str, float]
    features: dict[str, Tensor] = field(default_factory=dict)
    videos: dict[str, Tensor] = field(default_factory=dict)  # [T, 3, S, S], for FVD along other axes than time


def _score_view(subject: Subject, views: Tensor, view: int, protocol: Protocol, networks: Networks) -> _ViewScores:
    """Metrics of a view, over the background and cropped to the target's box (paper §5)."""
    prediction, target = views[view], None
    if subject.views is not None:
        background = torch.tensor(protocol.background)
        target = over_background(subject.views[view], background)
        if protocol.crop:
            prediction, target = crop_videos([prediction, target], subject.views[view, ..., 3], protocol)
    scores = _ViewScores({})
    if "flickering" in protocol.metrics and subject.frames >= protocol.fewest_frames("flickering"):
        scores.metrics["flickering"] = flickering(prediction)
    if target is None:
        return scores
    scores.metrics |= _image_scores(prediction, target, protocol, networks)
    if "flickering" in scores.metrics:  # what the motion alone causes: blur and standing still are below it
        scores.metrics[FLICKERING_TARGET] = flickering(target)
    if "warping" in protocol.metrics and subject.frames >= protocol.fewest_frames("warping"):
        scores.metrics["warping"] = warping_error(prediction, target)
    pairs = {"prediction": prediction, "target": target}
    if networks.video is not None and "fvd" in protocol.metrics and subject.frames >= protocol.fewest_frames("fvd"):
        scores.features = {name: video_features(networks.video, video[None]) for name, video in pairs.items()}
    if networks.video is not None and {"fvd_views", "fvd_diagonal"} & set(protocol.metrics):
        scores.videos = {name: video.half() for name, video in pairs.items()}
    return scores


def _image_scores(prediction: Tensor, target: Tensor, protocol: Protocol, networks: Networks) -> dict[str, float]:
    """Means over the images of [T, 3, S, S]."""
    comparisons: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"psnr": psnr, "ssim": ssim, **networks.lpips}
    if networks.clip is not None:
        comparisons["clip"] = networks.clip
    found: dict[str, float] = {}
    for name in (name for name in IMAGE_METRICS if name in protocol.metrics and name in comparisons):
        pairs = zip(prediction.split(BATCH), target.split(BATCH), strict=True)
        values = torch.cat([comparisons[name](x, y) for x, y in pairs])
        found[name] = mean_psnr(values.tolist()) if name == "psnr" else float(values.mean())
    return found


def mean_psnr(values: Sequence[float]) -> float:
    """The mean of PSNRs in dB, of which an infinite one counts as `EQUAL` unless all are: a frame in which neither the
    object nor its prediction is seen must not hide all others."""
    if all(map(math.isinf, values)):
        return math.inf
    return sum(min(value, EQUAL) for value in values) / len(values)


def _shape_scores(target: Tensor, prediction: Rendered, protocol: Protocol) -> dict[str, float | None]:
    names = [name for name in SHAPE_METRICS if name in protocol.metrics]
    if prediction.voxels is not None:
        scores = asdict(shape_scores(prediction.voxels, target))
        return {name: scores[name] for name in names}
    if prediction.front is not None and "front_iou" in names:
        return {"front_iou": intersection_over_union(prediction.front, target.any(-2), dimensions=2)}
    return {}
