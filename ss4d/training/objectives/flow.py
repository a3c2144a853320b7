"""Conditional flow matching (paper §3), which both flows are trained by."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ss4d.config import option, read_yaml
from ss4d.data import PreparedSet
from ss4d.data.format import config_path
from ss4d.flow import FlowPath, ImageCondition, SamplerSettings, logit_normal_times
from ss4d.models.image_encoder import DinoImageEncoder, PatchImageEncoder
from ss4d.training.objectives.objective import Loss, Objective, ObjectiveOptions
from ss4d.view_frame import ViewFrame

IMAGE_ENCODERS = (PatchImageEncoder, DinoImageEncoder)
TIME_BINS = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)  # for which errors are logged one by one
PREVIEW_SAMPLER = SamplerSettings(steps=12, cfg_strength=2.0, cfg_interval=(0.5, 1.0), rescale_t=3.0)


@dataclass(frozen=True)
class FlowObjectiveOptions(ObjectiveOptions):
    """The `objective` section of the config. Times are logit-normal, but for a share of videos at time 1."""

    image_encoder: str | None = None  # a DINOv2 by name, or the path of a trained one; null: trained with the flow
    drop_condition: float = option(0.1, at_least=0, at_most=1)  # share of windows for classifier-free guidance
    time_mean: float = 1.0
    time_std: float = option(1.0, above=0)
    time_share_at_one: float = option(0.0, at_least=0, at_most=1)


class FlowObjective(Objective):
    """Regress the velocity of x_t = (1 - t) x_0 + t noise, conditioned on the images of a clip."""

    path = FlowPath()
    options: FlowObjectiveOptions

    def prepare(self, clips: PreparedSet) -> None:
        """
        Raises:
            ValueError: the set is in another frame than the flow, or its conditioning videos are of another size than
                the image encoder takes.
        """
        flow: Any = self.models["flow"]
        if flow.projection is not None:
            check_frame(flow.projection.view_frame, clips, "models.flow.args.projection")
        encoder: Any = self.model("image_encoder")
        size = clips.pictures(0).index.cond_size
        if size != encoder.image_size:
            raise ValueError(
                f"{clips.root} has conditioning videos of {size} pixels, but the image encoder takes "
                f"{encoder.image_size}: render them with render.cond_size={encoder.image_size}, or take an image "
                "encoder for their size"
            )

    def encode(self, images: Tensor) -> ImageCondition:
        """The condition of premultiplied RGBA images [B, T, 4, S, S]."""
        encoder: Any = self.model("image_encoder")
        flat = images.flatten(0, 1)
        tokens = encoder(flat[:, : encoder.in_channels])
        return ImageCondition(tokens.unflatten(0, images.shape[:2]), images)

    def condition(self, images: Tensor, generator: torch.Generator) -> ImageCondition:
        """The same, zero for a share of the windows (classifier-free guidance)."""
        cond = self.encode(images)
        keep = torch.rand(len(images), generator=generator, device=images.device) >= self.options.drop_condition
        keep = keep[:, None, None, None]
        return ImageCondition(cond.tokens * keep.to(cond.tokens.dtype), images * keep[..., None])

    def times(self, num_videos: int, generator: torch.Generator) -> Tensor:
        """One time per video, [B]: all frames of a clip are denoised together."""
        options = self.options
        return logit_normal_times(num_videos, options.time_mean, options.time_std, options.time_share_at_one, generator)


def check_frame(frame: ViewFrame, clips: PreparedSet, key: str) -> None:
    """ValueError where a model sees pixels in the frame of the view, and the set was made in another one.

    Args:
        key: of the config that gives the model its frame.
    """
    path = config_path(clips.root)
    needed = {"frame": "view", "crop": frame.crop, "distance": frame.distance}
    made = read_yaml(path).get("voxelize", {}) if path.exists() else needed
    if clips.clips[0].cubes is None or any(made.get(name, value) != value for name, value in needed.items()):
        raise ValueError(
            f"{key} is of the frame of the view, but {clips.root} was not made with "
            f"{' '.join(f'voxelize.{name}={value}' for name, value in needed.items())}: make such a set "
            f"(docs/data.md), or take an experiment in the frame of the clip, such as tiny_clip"
        )


def flow_loss(error: Tensor, t: Tensor) -> Loss:
    """The mean error [B] of videos at times [B], and that of each bin of time that holds any; B may be 0."""
    total, metrics = error.mean() if len(error) else error.sum(), {}
    for low, high in itertools.pairwise(TIME_BINS):
        inside = (t >= low) & ((t < high) | (high == TIME_BINS[-1]))
        if bool(inside.any()):
            metrics[f"error_t{low:g}-{high:g}"] = error[inside].mean()
    return Loss(total, {"loss": total, **metrics})
