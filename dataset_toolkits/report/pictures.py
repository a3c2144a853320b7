"""The contact sheet: frames of random clips, read from their archives of views."""

from __future__ import annotations

import base64
import io
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dataset_toolkits.report.facts import DataSet
from ss4d.data.format import Row, artifact_path
from ss4d.data.views import View, ViewArchive

TILE = 160  # pixels of a frame at most


@dataclass(frozen=True)
class Strip:
    """Frames of one camera side by side."""

    caption: str
    frames: list[int]
    uri: str  # the picture itself
    width: int
    height: int


@dataclass(frozen=True)
class VoxelCount:
    resolution: int
    voxels: float  # mean per frame
    seen: float | None  # by a camera; None before the features stage


@dataclass(frozen=True)
class SheetRow:
    """A clip of the contact sheet."""

    clip: Row  # of curate
    voxels: list[VoxelCount]
    strips: list[Strip]
    problem: str | None  # why there are no pictures


def contact_sheet(data: DataSet, clips: int, frames: int, seed: int) -> list[SheetRow]:
    """`clips` random clips, ordered by name, with `frames` frames each of the first conditioning video and a view
    from the other side."""
    accepted = {row["clip_name"]: row for row in data.accepted}
    rendered = sorted(name for name in (row["name"] for row in data.stages["render"].done_rows) if name in accepted)
    drawn = sorted(random.Random(seed).sample(rendered, min(clips, len(rendered))))
    return [_sheet_row(data, accepted[name], frames) for name in drawn]


def _sheet_row(data: DataSet, clip: Row, frames: int) -> SheetRow:
    archive = ViewArchive(artifact_path(data.root, "render", clip["clip_name"]))
    strips: list[Strip] = []
    problem = None
    try:
        strips = _strips(archive, frames)
    except (OSError, ValueError) as error:
        problem = str(error)
    return SheetRow(clip, _voxel_counts(data, clip["clip_name"]), strips, problem)


def _strips(archive: ViewArchive, frames: int) -> list[Strip]:
    index = archive.index
    times = sorted(set(np.linspace(0, index.frames - 1, frames).round().astype(int).tolist()))
    strips = []
    if index.cond:
        caption = f"Conditioning video 0 · {_direction(index.cond[0])}"
        strips.append(_strip(caption, times, lambda time: archive.cond(0, time)))
    if index.views:
        view = other_side(index.views, index.cond[0] if index.cond else None)
        caption = f"View {view} · {_direction(index.views[view])}"
        strips.append(_strip(caption, times, lambda time: archive.view(view, time)))
    return strips


def other_side(views: Sequence[View], front: View | None) -> int:
    """The view closest to the point behind the object at the height of `front`; the first without one."""
    if front is None:
        return 0
    x, y, z = _towards(front)
    return int(np.argmax([np.dot(_towards(view), (-x, -y, z)) for view in views]))


def _towards(view: View) -> tuple[float, float, float]:
    azimuth, elevation = math.radians(view.azimuth), math.radians(view.elevation)
    return (
        math.sin(azimuth) * math.cos(elevation),
        -math.cos(azimuth) * math.cos(elevation),
        math.sin(elevation),
    )


def _direction(view: View) -> str:
    return f"azimuth {view.azimuth:.0f}°, elevation {view.elevation:.0f}°"


def _strip(caption: str, times: list[int], picture: Callable[[int], NDArray[np.uint8]]) -> Strip:
    """The frames `times` side by side; `picture` gives RGBA [S, S, 4] of a frame."""
    tiles = [Image.fromarray(picture(time)) for time in times]
    for tile in tiles:
        tile.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
    side = tiles[0].width
    strip = Image.new("RGBA", (side * len(tiles), side))
    for position, tile in enumerate(tiles):
        strip.paste(tile, (side * position, 0))
    buffer = io.BytesIO()
    strip.save(buffer, "WEBP", quality=85, method=4)
    uri = "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Strip(caption, times, uri, *strip.size)


def _voxel_counts(data: DataSet, clip_name: str) -> list[VoxelCount]:
    rows = {
        stage: next((row for row in data.stages[stage].done_rows if row["clip_name"] == clip_name), {})
        for stage in ("voxelize", "features")
    }
    return [
        VoxelCount(size, rows["voxelize"][f"voxels_{size}"], rows["features"].get(f"seen_{size}"))
        for size in (data.resolutions("voxelize") if rows["voxelize"] else ())
    ]
