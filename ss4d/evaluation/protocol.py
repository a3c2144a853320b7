"""A protocol: all that decides what is compared with what, as data (`configs/eval/*.yaml`)."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ss4d.cameras import Camera, orbit_camera

# A metric of images, of a video, of the whole set, of voxels; in this order they stand in tables.
IMAGE_METRICS = ("psnr", "ssim", "lpips_alex", "lpips_vgg", "clip")
VIDEO_METRICS = ("flickering", "warping", "fvd")
SHAPE_METRICS = ("iou", "f1", "front_iou", "side_iou", "top_iou", "chamfer")
METRICS = (*IMAGE_METRICS, *VIDEO_METRICS, *SHAPE_METRICS)
DATASETS = ("prepared", "consistent4d", "davis")


@dataclass
class ProtocolViews:
    """Evaluation cameras: those that a prepared set was rendered with, by number, or an orbit around the object."""

    rendered: list[int] = field(default_factory=list)  # views of a prepared set; empty: all
    azimuths: list[float] = field(default_factory=list)  # degrees, of an orbit
    elevation: float = 0.0
    radius: float = 2.0
    fov: float = 40.0  # degrees


@dataclass
class Protocol:
    """One evaluation. Where data lie and which method is judged is not part of it."""

    name: str
    title: str
    dataset: str  # one of DATASETS
    metrics: list[str]
    objects: list[str] = field(default_factory=list)  # names in the data set; empty: all
    split: str | None = None  # of a prepared set: "train", "val"; null: both
    clips_per_object: int = 1  # of a prepared set, the first in its table
    frames: int = 32  # at most, from the first on
    size: int = 512  # pixels of an evaluation view
    background: list[float] = field(default_factory=lambda: [1.0, 1.0, 1.0])
    input_azimuth: float = 0.0  # degrees; of a prepared set the conditioning video of this yaw is the input
    input_elevation: float = 0.0
    occlusion: float = 0.0  # share of the object that a moving black occluder hides in every input frame (Fig. 7)
    views: ProtocolViews = field(default_factory=ProtocolViews)
    crop: bool = True  # every view to the object's true box over all frames
    crop_margin: float = 0.0  # added on each side, of the box's side
    crop_size: int = 256  # pixels that a crop is resized to
    voxel_resolution: int | None = None  # grid of the shape metrics
    clip_model: str = "openai/clip-vit-base-patch32"
    fvd_variant: str = "clips"
    figure_views: list[int] = field(default_factory=lambda: [0, 1])  # kept as pictures, by position
    figure_frames: list[int] = field(default_factory=lambda: [0, 8])

    def hash(self) -> str:
        """SHA-256 of all fields, which every result carries: figures of unequal hashes are not comparable."""
        content = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def orbit(self) -> list[Camera]:
        """The cameras that `views.azimuths` describe."""
        views = self.views
        return [orbit_camera(azimuth, views.elevation, views.radius, views.fov) for azimuth in views.azimuths]

    def input_camera(self) -> Camera:
        """The camera that saw the input, as far as the protocol knows."""
        return orbit_camera(self.input_azimuth, self.input_elevation, self.views.radius, self.views.fov)


def make_protocol(content: Mapping[str, Any], origin: str) -> Protocol:
    """A protocol from the content of a YAML file.

    Raises:
        ValueError: an unknown key, with the nearest known one, a missing one, or a value that no evaluation can have.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    _refuse_unknown(content, Protocol, origin)
    _refuse_unknown(content.get("views") or {}, ProtocolViews, f"{origin}: views")
    required = [item.name for item in dataclasses.fields(Protocol) if _required(item)]
    if missing := [name for name in required if name not in content]:
        raise ValueError(f"{origin} lacks {', '.join(missing)}.")
    try:  # values get the declared types, so that 0 and 0.0 give one hash
        protocol = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Protocol), dict(content)))
    except OmegaConfBaseException as error:
        raise ValueError(f"{origin}: {getattr(error, 'full_key', '')}: {str(error).splitlines()[0]}") from error
    assert isinstance(protocol, Protocol)
    _check(protocol, origin)
    return protocol


def _required(item: dataclasses.Field[Any]) -> bool:
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING


def _refuse_unknown(values: Mapping[str, Any], kind: type, origin: str) -> None:
    names = [item.name for item in dataclasses.fields(kind)]
    for key in values:
        if key not in names:
            near = difflib.get_close_matches(key, names, 1)
            advice = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(names)}."
            raise ValueError(f"{origin}: there is no option {key!r}{advice}")


def _check(protocol: Protocol, origin: str) -> None:
    if protocol.dataset not in DATASETS:
        raise ValueError(f"{origin}: dataset must be one of {', '.join(DATASETS)}, but it is {protocol.dataset!r}.")
    if unknown := [name for name in protocol.metrics if name not in METRICS]:
        raise ValueError(f"{origin}: there is no metric {unknown[0]!r}; choose from {', '.join(METRICS)}.")
    for name in ("frames", "size", "crop_size", "clips_per_object"):
        if getattr(protocol, name) < 1:
            raise ValueError(f"{origin}: {name} must be at least 1, but it is {getattr(protocol, name)}.")
    if not 0 <= protocol.occlusion < 1 or (protocol.occlusion and protocol.dataset != "prepared"):
        raise ValueError(
            f"{origin}: occlusion must lie in [0, 1) and is for prepared sets alone, but it is {protocol.occlusion}."
        )
    if protocol.dataset != "prepared" and not protocol.views.azimuths:
        raise ValueError(f"{origin}: views.azimuths must name the cameras of {protocol.dataset}.")
    if protocol.voxel_resolution is None and set(protocol.metrics) & set(SHAPE_METRICS):
        raise ValueError(f"{origin}: shape metrics need voxel_resolution.")
