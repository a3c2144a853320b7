"""All figures of one prediction."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from ss4d.evaluation.crop import crop, object_box, over_background
from ss4d.evaluation.flickering import flickering
from ss4d.evaluation.fvd import video_features
from ss4d.evaluation.networks import Networks
from ss4d.evaluation.prediction import Prediction, check_prediction
from ss4d.evaluation.protocol import IMAGE_METRICS, SHAPE_METRICS, Protocol
from ss4d.evaluation.psnr import psnr
from ss4d.evaluation.shape import intersection_over_union, shape_scores
from ss4d.evaluation.ssim import ssim
from ss4d.evaluation.subject import Subject
from ss4d.evaluation.warping import warping_error

BATCH = 16  # images that go through a network at once


@dataclass
class Scores:
    """Figures of one object and seed: means over views and frames."""

    metrics: dict[str, float | None]  # by name; None where weights, the truth or the form of the result lack
    features: dict[str, Tensor] = field(default_factory=dict)  # "made" and "true", [V, t, D], for FVD over the set


@torch.inference_mode()
def score(subject: Subject, prediction: Prediction, protocol: Protocol, networks: Networks) -> Scores:
    """Compare a prediction with the truth as the protocol says.

    Raises:
        ValueError: views of another shape, or with values that are not finite.
    """
    check_prediction(prediction, subject, protocol.size)
    metrics: dict[str, float | None] = dict.fromkeys(name for name in protocol.metrics if name != "fvd")
    features: dict[str, Tensor] = {}
    if prediction.views is not None:
        pair = _matched_views(subject, prediction.views, protocol)
        if pair.true is not None:
            metrics |= _image_scores(pair.made, pair.true, protocol, networks)
        if "flickering" in metrics and subject.frames > 1:
            metrics["flickering"] = flickering(pair.made)
        if "warping" in metrics and pair.true is not None and subject.frames > 1:
            metrics["warping"] = sum(map(warping_error, pair.made, pair.true)) / len(pair.made)
        if networks.video is not None and pair.true is not None:
            features = {
                "made": video_features(networks.video, pair.made),
                "true": video_features(networks.video, pair.true),
            }
    if subject.voxels is not None:
        metrics |= _shape_scores(subject.voxels, prediction, protocol)
    return Scores(metrics, features)


@dataclass
class _Pair:
    """Views made and true, both [V, T, 3, S, S]."""

    made: Tensor
    true: Tensor | None


def _matched_views(subject: Subject, made: Tensor, protocol: Protocol) -> _Pair:
    """Both over the background, cropped to the true box of each view."""
    background = torch.tensor(protocol.background)
    if subject.views is None:
        return _Pair(made, None)
    true = over_background(subject.views, background)
    if not protocol.crop:
        return _Pair(made, true)
    boxes = [object_box(view[..., 3], protocol.crop_margin) for view in subject.views]
    made, true = (
        torch.stack([crop(v, box, protocol.crop_size, background) for v, box in zip(views, boxes, strict=True)])
        for views in (made, true)
    )
    return _Pair(made, true)


def _image_scores(made: Tensor, true: Tensor, protocol: Protocol, networks: Networks) -> dict[str, float | None]:
    """Means over all images of [V, T, 3, S, S]."""
    comparisons: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"psnr": psnr, "ssim": ssim, **networks.lpips}
    if networks.clip is not None:
        comparisons["clip"] = networks.clip
    found: dict[str, float | None] = {}
    for name in (name for name in IMAGE_METRICS if name in protocol.metrics and name in comparisons):
        pairs = zip(made.flatten(0, 1).split(BATCH), true.flatten(0, 1).split(BATCH), strict=True)
        found[name] = float(torch.cat([comparisons[name](x, y) for x, y in pairs]).mean())
    return found


def _shape_scores(truth: Tensor, prediction: Prediction, protocol: Protocol) -> dict[str, float | None]:
    wanted = [name for name in SHAPE_METRICS if name in protocol.metrics]
    if prediction.voxels is not None:
        scores = asdict(shape_scores(prediction.voxels, truth))
        return {name: scores[name] for name in wanted}
    if prediction.front is not None and "front_iou" in wanted:
        return {"front_iou": intersection_over_union(prediction.front, truth.any(-2), dimensions=2)}
    return {}
