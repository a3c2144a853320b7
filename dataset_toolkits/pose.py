"""Stage pose: the geometry of every asset's clips, frame by frame, posed by Blender; with measurements."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dataset_toolkits.blender.process import BlenderProcess, blender_python
from dataset_toolkits.engine.stage import Item, Stage
from dataset_toolkits.names import safe_name, safe_names
from ss4d.data.format import CLIPS, SUFFIXES, TRIANGLES, Row, read_table, times_name, vertices_name

SAMPLINGS = ("consecutive", "spread")
NO_AREA = 1e-12  # a share; below it is rounding


@dataclass(frozen=True)
class PoseOptions:
    """Which clips of an asset are posed, and at which moments.

    Attributes:
        frames: frames of a clip, at most.
        sampling: "consecutive" takes `fps` frames per second from the start of the clip; "spread" takes `frames`
            evenly over the clip, including its first and last key.
        fps: frames per second of the consecutive sampling.
        clips_per_asset: how many clips of an asset's list, the first ones; null takes all.
        max_triangles: an asset with more is refused.
    """

    frames: int = 36
    sampling: str = "consecutive"
    fps: float = 24.0
    clips_per_asset: int | None = 4
    max_triangles: int = 1_000_000

    def __post_init__(self) -> None:
        if self.sampling not in SAMPLINGS:
            raise ValueError(f"pose.sampling is one of {', '.join(SAMPLINGS)}, not {self.sampling}")
        for name in ("frames", "fps", "clips_per_asset", "max_triangles"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"pose.{name} is above 0, not {value}")


class PoseStage(Stage):
    """`pose/<asset>.safetensors` of every collected asset; see docs/data.md."""

    name = "pose"
    version: ClassVar[int] = 3
    suffix: ClassVar[str] = SUFFIXES["pose"]
    options: PoseOptions

    def items(self) -> list[Item]:
        blender_python()
        return [
            Item(
                row["name"],
                {column: row[column] for column in ("sha256", "hide_nodes", "clips")},
                {"path": row["path"]},
            )
            for row in read_table(self.root, "collect")
            if row["status"] == "done"
        ]

    def process(self, item: Item, path: Path | None) -> list[Row]:
        from safetensors.numpy import save_file

        assert path is not None
        options = self.options
        replies = self._blender.run(
            "pose",
            path=str(item.payload["path"]),
            hide_nodes=item.inputs["hide_nodes"],
            clips=item.inputs["clips"],
            clips_per_asset=options.clips_per_asset,
            sampling={"mode": options.sampling, "frames": options.frames, "fps": options.fps},
            max_triangles=options.max_triangles,
            folder=str(path.parent),
        )
        triangles = np.load(path.parent / next(replies)["triangles"])
        results = list(replies)
        rows: list[Row] = []
        tensors = {TRIANGLES: triangles}
        posed: list[str | None] = []
        for result, name in zip(results, clip_names(item.name, [result["clip"] for result in results]), strict=True):
            row: Row = {"asset": item.name, "clip": result["clip"], "clip_name": name, "problem": result["problem"]}
            vertices = None
            if result["problem"] is None:
                vertices = np.load(path.parent / result["vertices"])
                tensors[vertices_name(len(posed))] = vertices
                tensors[times_name(len(posed))] = np.array(result["times"], np.float64)
                posed.append(result["clip"])
            rows.append(row | {"seconds": result["seconds"]} | _measurements(vertices, triangles))
        save_file(tensors, path, {CLIPS: json.dumps(posed)})  # one key: the order of several would vary
        return rows

    def close(self) -> None:
        self._blender.close()

    @cached_property
    def _blender(self) -> BlenderProcess:
        return BlenderProcess()


def _measurements(vertices: NDArray[np.floating] | None, triangles: NDArray[np.int32]) -> Row:
    """Columns of a clip, `vertices` [T, V, 3] and `triangles` [F, 3]; empty if it could not be posed."""
    if vertices is None:
        return dict.fromkeys(field.name for field in fields(Measurements)) | {"finite": False}
    return asdict(measure(vertices, triangles))


@dataclass(frozen=True)
class Measurements:
    """What curate judges a clip by; lengths are in the asset's units."""

    frames: int
    vertices: int
    triangles: int
    finite: bool
    low: list[float]  # box of the clip
    high: list[float]
    frame_side: float  # mean over the frames of the longest side of the frame's box
    motion: float  # mean distance of a vertex from its mean position, over the longest side of the clip
    degenerate: float  # share of triangles, of all frames, without area


def measure(vertices: NDArray[np.floating], triangles: NDArray[np.int32]) -> Measurements:
    """Measure a clip: finite `vertices` [T, V, 3], `triangles` [F, 3].

    A triangle counts as degenerate if twice its area is at most `NO_AREA` of the clip's longest side squared.
    """
    low, high = vertices.min(axis=1).astype(np.float64), vertices.max(axis=1).astype(np.float64)
    clip_low, clip_high = low.min(axis=0), high.max(axis=0)
    side = float((clip_high - clip_low).max())
    mean = vertices.mean(axis=0, dtype=np.float64)
    offset = np.mean([np.linalg.norm(frame - mean, axis=1).mean() for frame in vertices])
    degenerate = np.mean([_without_area(frame[triangles], side).mean() for frame in vertices])
    return Measurements(
        frames=len(vertices),
        vertices=vertices.shape[1],
        triangles=len(triangles),
        finite=True,
        low=clip_low.tolist(),
        high=clip_high.tolist(),
        frame_side=float((high - low).max(axis=1).mean()),
        motion=float(offset / side) if side > 0 else 0.0,
        degenerate=float(degenerate),
    )


def clip_names(asset: str, clips: Sequence[str | None]) -> list[str]:
    """Names for files, `<asset>__<clip>`; the asset's own for the clip None of an asset without animation."""
    if list(clips) == [None]:
        return [safe_name(asset)]
    return safe_names([f"{asset}/{clip}" for clip in clips])


def _without_area(corners: NDArray[np.floating], side: float) -> NDArray[np.bool_]:
    """[F] of triangles `corners` [F, 3, 3]."""
    origin = corners[:, 0].astype(np.float64)
    doubled = np.linalg.norm(np.cross(corners[:, 1] - origin, corners[:, 2] - origin), axis=1)
    return doubled <= NO_AREA * side**2
