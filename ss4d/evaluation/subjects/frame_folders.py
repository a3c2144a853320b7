"""Objects whose frames are image files: Consistent4D's test set and DAVIS."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ss4d.cameras import Camera, orbit_camera
from ss4d.evaluation.misread import check_alpha, frame_numbers
from ss4d.evaluation.protocol import Protocol
from ss4d.evaluation.subjects.subject import Subject
from ss4d.video import crop_clip_rgba, find_foreground, read_clip
from ss4d.video.pictures import list_pictures


class Consistent4DSubjects:
    """Consistent4D's test set in the layout of its own evaluation:

    `gt/<object>/eval_<view>/<frame>.png` (RGBA, a view an azimuth of the protocol) and `input/<object>/<frame>.png`.
    """

    def __init__(self, protocol: Protocol, root: Path):
        self.protocol, self.root = protocol, root

    def names(self) -> list[str]:
        return selected(self.root / "gt", self.protocol)

    def files(self, name: str) -> list[Path]:
        return [*files_in(self.root / "input" / name), *files_in(self.root / "gt" / name)]

    def load(self, name: str) -> Subject:
        protocol = self.protocol
        given = self.root / "input" / name
        video, numbers = read_rgba(given)[: protocol.frames], frame_numbers(list_pictures(given))
        if unknown := unknown_views(self.root / "gt" / name, len(protocol.views.azimuths)):
            raise ValueError(f"{name}: {unknown} has no azimuth in the protocol: give protocol.views.azimuths=[...].")
        views = []
        for view in range(len(protocol.views.azimuths)):
            folder = self.root / "gt" / name / f"eval_{view}"
            frames = read_rgba(folder)[: protocol.frames]
            if len(frames) != len(video):
                raise ValueError(f"{name}: {folder} has {len(frames)} frames, but the input has {len(video)}.")
            if frame_numbers(list_pictures(folder)) != numbers:
                raise ValueError(f"{name}: the frames in {folder} have other numbers than those in {given}.")
            views.append(resize(frames, protocol.size))
        return Subject(name, video, input_camera(protocol), orbit(protocol), torch.stack(views), None)


class DavisSubjects:
    """DAVIS: `JPEGImages/480p/<sequence>/<frame>.jpg` with `Annotations/480p/<sequence>/<frame>.png`, whose pixels
    are 0 for background and a number for each object; all of them count as one here. What other
    sides look like is unknown."""

    def __init__(self, protocol: Protocol, root: Path):
        self.protocol, self.root = protocol, root

    def names(self) -> list[str]:
        return selected(self.root / "JPEGImages" / "480p", self.protocol)

    def files(self, name: str) -> list[Path]:
        return [path for kind in ("JPEGImages", "Annotations") for path in files_in(self.root / kind / "480p" / name)]

    def load(self, name: str) -> Subject:
        folder, masks = (self.root / kind / "480p" / name for kind in ("JPEGImages", "Annotations"))
        pictures = read_clip(folder).frames
        if frame_numbers(list_pictures(folder)) != frame_numbers(list_pictures(masks) if masks.is_dir() else []):
            raise ValueError(f"{name}: {masks} does not have a mask of every frame in {folder}, and of no other.")
        rgba = find_foreground(pictures, masks)[: self.protocol.frames]
        video = torch.from_numpy(crop_clip_rgba(rgba, self.protocol.size))
        return Subject(name, video, input_camera(self.protocol), orbit(self.protocol), None, None)


def orbit(protocol: Protocol) -> list[Camera]:
    """The cameras that `views.azimuths` describe."""
    views = protocol.views
    return [orbit_camera(azimuth, views.elevation, views.radius, views.fov) for azimuth in views.azimuths]


def input_camera(protocol: Protocol) -> Camera:
    """The camera that took the input, as far as the protocol knows."""
    return orbit_camera(protocol.input_azimuth, protocol.input_elevation, protocol.views.radius, protocol.views.fov)


def selected(folder: Path, protocol: Protocol) -> list[str]:
    """Names of the folders in `folder` that the protocol selects.

    Raises:
        ValueError: one of them, or any at all, is missing.
    """
    found = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if not found:
        raise ValueError(f"{folder} has no folders of objects: see docs/evaluation.md for the layout.")
    if missing := sorted(set(protocol.objects) - set(found)):
        raise ValueError(f"{folder} lacks the objects {', '.join(missing)} of protocol {protocol.name}.")
    return sorted(protocol.objects) or found


def files_in(folder: Path) -> list[Path]:
    """All files below a folder."""
    return [path for path in folder.rglob("*") if path.is_file()]


def unknown_views(folder: Path, views: int) -> Path | None:
    """A folder eval_<view> beyond the views of the protocol."""
    known = {f"eval_{view}" for view in range(views)}
    return next((path for path in sorted(folder.glob("eval_*")) if path.is_dir() and path.name not in known), None)


def read_rgba(folder: Path) -> Tensor:
    """Frames of a folder, uint8 [T, H, W, 4]; a uniform background becomes transparent.

    Raises:
        ValueError: no frames, pictures that cannot be read, a gap in their numbers, or premultiplied alpha.
    """
    frames = read_clip(folder).frames
    frame_numbers(list_pictures(folder))
    if frames.shape[-1] == 4:
        check_alpha(frames / np.float32(255), folder)
    return torch.from_numpy(find_foreground(frames))


def resize(frames: Tensor, size: int) -> Tensor:
    """Square RGBA frames at another size."""
    if frames.shape[1] == frames.shape[2] == size:
        return frames
    images = [Image.fromarray(f.numpy()).resize((size, size), Image.Resampling.LANCZOS) for f in frames]
    return torch.from_numpy(np.stack([np.asarray(image) for image in images]))
