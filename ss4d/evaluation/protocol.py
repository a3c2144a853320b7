"""A protocol: everything that decides what is compared with what, as data (`configs/eval/*.yaml`)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ss4d.config import load_options, read_yaml

PROTOCOLS = Path(__file__).parents[2] / "configs" / "eval"

# Metrics of images, of videos, and of voxels.
IMAGE_METRICS = ("psnr", "ssim", "lpips_alex", "lpips_vgg", "clip")
VIDEO_METRICS = ("flickering", "warping", "fvd", "fvd_views", "fvd_diagonal")
SET_METRICS = ("fvd", "fvd_views", "fvd_diagonal")  # of a whole set of objects

SHAPE_METRICS = ("iou", "f1", "front_iou", "side_iou", "top_iou", "chamfer")
MOTION_METRICS = ("cd_3d", "cd_4d", "cd_m")  # against the true surface and its motion (`ss4d.metrics.motion`)
SSIM_WINDOW = 11  # pixels
FLICKERING_TARGET = "flickering_target"  # of the true views, beside a method's own
NOVEL_PSNR = "novel_psnr"  # PSNR over the views that show other sides than the input
METRICS = (*IMAGE_METRICS, *VIDEO_METRICS, *SHAPE_METRICS, *MOTION_METRICS)
CHOICES = {  # of protocol fields, the usual one first
    "crop_shape": ("square", "tight"),
    "crop_per": ("clip", "frame"),
    "crop_filter": ("bilinear", "bicubic", "nearest"),
}
DATASETS = ("prepared", "consistent4d", "davis")


@dataclass
class ProtocolViews:
    """Evaluation cameras: the rendered views of a prepared set, by number, or an orbit around the object."""

    rendered: list[int] = field(default_factory=list)  # views of a prepared set; empty: all
    azimuths: list[float] = field(default_factory=list)  # degrees, of an orbit
    elevation: float = 0.0
    radius: float = 2.0
    fov: float = 40.0  # degrees
    highest_elevation: float = 90.0  # rendered views further up or down, in degrees, are left out


@dataclass
class Protocol:
    """One evaluation, without the places of its data and the method that is judged."""

    name: str
    title: str
    dataset: str  # one of DATASETS
    metrics: list[str]
    objects: list[str] = field(default_factory=list)  # names in the data set; empty: all
    objects_file: str | None = None  # or a YAML file with lists of names by kind; its content is read into `kinds`
    kinds: dict[str, list[str]] = field(default_factory=dict)  # names by kind; tables have rows for each kind
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
    crop_shape: str = "square"  # or "tight": the box's own width and height, stretched to a square
    crop_per: str = "clip"  # one box a view for the whole clip; or "frame", one each
    crop_filter: str = "bilinear"  # antialiased; "bicubic", antialiased; "nearest"
    aligned: bool = False  # score every result a second time, aligned to the input (`ss4d.evaluation.alignment`)
    voxel_resolution: int | None = None  # grid of the shape metrics
    clip_model: str = "openai/clip-vit-base-patch32"
    fvd_variant: str = "clips"  # clips, steps_of_time or consistent4d (`ss4d.metrics.fvd`)
    figure_views: list[int] = field(default_factory=lambda: [0, 1])  # kept as pictures, by position
    figure_frames: list[int] = field(default_factory=lambda: [0, 8])

    def hash(self) -> str:
        """SHA-256 of all fields, which every result carries: tables never mix protocol versions. Fields that the first
        version did not have count where they have another value than theirs, so that its results stay what they are."""
        content = dataclasses.asdict(self)
        views, usual = content["views"], ProtocolViews()
        if views["highest_elevation"] == usual.highest_elevation:
            del views["highest_elevation"]
        content = {key: value for key, value in content.items() if value not in CHOICES.get(key, ())[:1]}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def assumptions(self) -> dict[str, str]:
        """What published protocols often leave open, as it is here, in words: kept in every result."""
        views = self.views
        if self.dataset == "prepared":
            cameras = f"{len(views.rendered) or 'all'} views of the set"
            cameras += f" within {views.highest_elevation:g} degrees of level" if views.highest_elevation < 90 else ""
        else:
            cameras = (
                f"azimuths {', '.join(f'{azimuth:g}' for azimuth in views.azimuths)}, elevation {views.elevation:g}"
            )
        found = {"views": cameras, "frames": f"the first {self.frames} at most"}
        found["background"] = ", ".join(f"{value:g}" for value in self.background)
        found |= {"occlusion": f"{self.occlusion:g} of the object"} if self.occlusion else {}
        if self.crop:
            found["box"] = f"{self.crop_shape}, of the true alpha, one a {self.crop_per}, margin {self.crop_margin:g}"
            found["resizing"] = f"{self.crop_filter} to {self.crop_size} pixels"
        else:
            found["box"] = f"none, {self.size} pixels"
        lpips = [name.removeprefix("lpips_") for name in self.metrics if name.startswith("lpips_")]
        found |= {"LPIPS": f"0.1, {' and '.join(lpips)}"} if lpips else {}
        found |= {"CLIP": self.clip_model} if "clip" in self.metrics else {}
        found |= {"FVD": self.fvd_variant} if "fvd" in self.metrics else {}
        return found

    @property
    def results(self) -> list[str]:
        """Names of all metrics that a result has."""
        added = {"psnr": NOVEL_PSNR, "flickering": FLICKERING_TARGET}
        every = [*self.metrics, *(name for metric, name in added.items() if metric in self.metrics)]
        return [*every, *(aligned(name) for name in every if self.aligned and name not in SET_METRICS)]

    def fewest_frames(self, metric: str) -> int:
        """The frames that a clip must have for a metric to mean anything; with fewer it is n/a for that clip alone."""
        from ss4d.metrics.fvd import find_variant  # here: torch takes a while to import, and `--help` reads protocols

        if metric in ("fvd", "fvd_diagonal"):
            return find_variant(self.fvd_variant).fewest_frames
        return {"flickering": 2, FLICKERING_TARGET: 2, "warping": 2, "cd_m": 2}.get(metric.removeprefix("aligned_"), 1)

    def figures_of(self, views: int) -> list[int]:
        """The positions of the figure views among so many; those beyond them are left out."""
        return [view for view in self.figure_views if view < views]


def aligned(metric: str) -> str:
    """The name of a metric of the result that was aligned to the input."""
    return f"aligned_{metric}"


def make_protocol(content: Mapping[str, Any], origin: str, changes: Sequence[str] = ()) -> Protocol:
    """A protocol from the content of a YAML file, with `key=value` changes.

    Raises:
        ValueError: an unknown key, with the nearest known one, a missing one, or a value that no evaluation can have.
    """
    protocol = load_options(Protocol, content, changes, origin=origin)
    if protocol.objects_file is not None:
        _read_objects(protocol, origin)
    _check(protocol, origin)
    return protocol


def _read_objects(protocol: Protocol, origin: str) -> None:
    """Replace the name of the file by its content, so that the hash covers that."""
    path = Path(str(protocol.objects_file))
    if protocol.objects or protocol.kinds:
        raise ValueError(f"{origin}: give objects_file or objects, not both.")
    try:
        content = read_yaml(path)
    except ValueError as error:
        raise ValueError(f"{origin}: objects_file={path}: {error}.") from error
    if not all(isinstance(names, list) for names in content.values()):
        raise ValueError(f"{origin}: {path} must map kinds to lists of objects.")
    protocol.kinds = {str(kind): [str(name) for name in names] for kind, names in content.items()}
    protocol.objects = [name for names in protocol.kinds.values() for name in names]
    protocol.objects_file = None
    if len(set(protocol.objects)) < len(protocol.objects):
        raise ValueError(f"{origin}: {path} lists an object twice.")


def load_protocol(name: str, changes: Sequence[str] = ()) -> Protocol:
    """A protocol of `configs/eval/` by name, or one at a path, with `key=value` changes.

    Raises:
        ValueError: there is none, or it has a key or value that no protocol has.
    """
    path = Path(name) if name.endswith(".yaml") else PROTOCOLS / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(f"There is no protocol {name!r}; there are {', '.join(names_in())}.")
    return make_protocol(read_yaml(path), str(path), changes)


def names_in(folder: str = ".") -> list[str]:
    """The protocols in `configs/eval`, or what one of its folders holds: "suites", "ablations"."""
    return sorted(path.stem for path in (PROTOCOLS / folder).glob("*.yaml") if path.stem != "tables")


def _check(protocol: Protocol, origin: str) -> None:
    from ss4d.metrics.fvd import find_variant

    if protocol.dataset not in DATASETS:
        raise ValueError(f"{origin}: dataset must be one of {', '.join(DATASETS)}, but it is {protocol.dataset!r}.")
    if unknown := [name for name in protocol.metrics if name not in METRICS]:
        raise ValueError(f"{origin}: there is no metric {unknown[0]!r}; choose from {', '.join(METRICS)}.")
    find_variant(protocol.fvd_variant)
    for name, choices in CHOICES.items():
        if getattr(protocol, name) not in choices:
            raise ValueError(
                f"{origin}: {getattr(protocol, name)!r} is not a choice for {name}: take {', '.join(choices)}."
            )
    for name in ("frames", "size", "crop_size", "clips_per_object"):
        if getattr(protocol, name) < 1:
            raise ValueError(f"{origin}: {name} must be at least 1, but it is {getattr(protocol, name)}.")
    size = "crop_size" if protocol.crop else "size"
    chosen = {"figure_views": protocol.figure_views, "figure_frames": protocol.figure_frames}
    for name, numbers in (chosen | {"views.rendered": protocol.views.rendered}).items():
        if any(number < 0 for number in numbers) or len(set(numbers)) < len(numbers):
            raise ValueError(f"{origin}: {name} must be different numbers from 0 on, but it is {numbers}.")
    if not -0.5 < protocol.crop_margin <= 10:
        raise ValueError(f"{origin}: crop_margin must lie in (-0.5, 10], but it is {protocol.crop_margin}.")
    if not protocol.views.radius > 1:
        raise ValueError(
            f"{origin}: views.radius must be above 1, outside of the cube, but it is {protocol.views.radius}."
        )
    if "ssim" in protocol.metrics and getattr(protocol, size) < SSIM_WINDOW:
        raise ValueError(f"{origin}: SSIM takes at least {SSIM_WINDOW} pixels: raise {size}.")
    if len(protocol.background) != 3 or not all(0 <= value <= 1 for value in protocol.background):
        raise ValueError(f"{origin}: background must be three numbers from 0 to 1, but it is {protocol.background}.")
    if not 0 <= protocol.occlusion < 1 or (protocol.occlusion and protocol.dataset != "prepared"):
        raise ValueError(
            f"{origin}: occlusion must lie in [0, 1) and is for prepared sets alone, but it is {protocol.occlusion}."
        )
    if protocol.dataset != "prepared" and not protocol.views.azimuths:
        raise ValueError(f"{origin}: views.azimuths must name the cameras of {protocol.dataset}.")
    if protocol.voxel_resolution is None and set(protocol.metrics) & set(SHAPE_METRICS):
        raise ValueError(f"{origin}: shape metrics need voxel_resolution.")
