"""Stage voxelize: the surface voxels of every frame, by exact overlap with the triangles.

A colour per voxel is not stored here: the first three channels of the small extractor's features are one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dataset_toolkits.curate import accepted_clips
from dataset_toolkits.engine.stage import Item, Stage
from dataset_toolkits.normalize import placement
from ss4d.data.format import SIMILARITIES, SUFFIXES, Cube, Row, artifact_path, at_resolution
from ss4d.data.overlap import surface_voxels
from ss4d.data.posed_clip import read_posed_clip
from ss4d.data.provenance import current_rows
from ss4d.view_frame import Similarity, ViewFrame, object_depth, view_similarity

TOLERANCE = 1e-5  # by which rounding may carry a vertex out of the cube
NO_SIZE = 1e-6  # in sides of the cube
FRAMES = ("clip", "turned", "view")


@dataclass
class VoxelizeOptions:
    """Options of the stage voxelize.

    Attributes:
        resolutions: voxels along each side of the cube.
        frame: which cube the voxels are in. "clip" (paper): one per clip. "turned": one per conditioning video, the
            clip turned about the vertical so that the camera of the video is in front, and scaled again. "view": one
            per conditioning video, in which this video is the picture of one fixed camera (`ss4d.view_frame`).
        crop: for frame=view: width of the fixed camera's picture at the centre of the cube, in sides of the cube.
        distance: for frame=view: of the fixed camera from the centre of the cube, in sides of the cube.
    """

    resolutions: list[int] = field(default_factory=lambda: [64])
    frame: str = "clip"
    crop: float = 0.8
    distance: float = 1.4

    def __post_init__(self) -> None:
        if self.frame not in FRAMES:
            raise ValueError(f"voxelize.frame is one of {', '.join(FRAMES)}, not {self.frame}")
        check_resolutions("voxelize", self.resolutions)
        if self.frame == "view":
            ViewFrame(self.crop, self.distance)


def check_resolutions(stage: str, resolutions: Sequence[int]) -> None:
    """Raise a ValueError unless there are some, and all of them are possible."""
    if not resolutions or min(resolutions) < 1:
        raise ValueError(f"{stage}.resolutions are one or more numbers from 1, not {list(resolutions)}")


class VoxelizeStage(Stage):
    """`voxelize/<clip>.safetensors` of every accepted clip; see docs/data.md."""

    name = "voxelize"
    version: ClassVar[int] = 2
    suffix: ClassVar[str] = SUFFIXES["voxelize"]
    options: VoxelizeOptions

    def items(self) -> list[Item]:
        clips = {clip["clip_name"]: clip for clip in accepted_clips(self.root)}
        columns = ("pose", "asset", "clip", "scale", "centre")
        inputs = {name: {column: clip[column] for column in columns} for name, clip in clips.items()}
        if self.options.frame == "clip":
            return [Item(name, inputs[name]) for name in clips]
        rendered = current_rows(self.root, "render", clips)
        return [Item(name, inputs[name] | {"render": rendered[name]["key"]}) for name in clips if name in rendered]

    def process(self, item: Item, path: Path | None) -> list[Row]:
        from safetensors.numpy import save_file

        assert path is not None
        clip = read_posed_clip(self.root, item.inputs["asset"], item.inputs["clip"])
        vertices = place(clip.vertices, item.inputs["scale"], item.inputs["centre"], item.name)
        frames = self._frames(item.name, vertices)
        row: Row = {"clip_name": item.name, "cubes": len(frames) or None, "outside": None}
        tensors: dict[str, NDArray] = {}
        placed = {Cube(): vertices}
        if frames:
            placed = {Cube(view): frame(vertices) for view, frame in enumerate(frames)}
            tensors[SIMILARITIES] = np.stack([frame.matrix() for frame in frames])
            row["outside"] = float(np.mean([_outside(points) for points in placed.values()]))
        for resolution in self.options.resolutions:
            coords = {
                cube.coords(resolution): voxelize_clip(points, clip.triangles, resolution)
                for cube, points in placed.items()
            }
            tensors |= coords
            row[at_resolution("voxels", resolution)] = sum(map(len, coords.values())) / len(vertices) / len(coords)
        save_file(tensors, path)
        return [row]

    def _frames(self, clip: str, vertices: NDArray[np.float64]) -> list[Similarity]:
        """From the cube of the clip, `vertices` [T, V, 3], to that of each conditioning video; none if frame=clip."""
        from ss4d.data.views import ViewArchive

        options = self.options
        if options.frame == "clip":
            return []
        views = ViewArchive(artifact_path(self.root, "render", clip)).index.cond
        if options.frame == "turned":
            return [turned_frame(view.azimuth, vertices) for view in views]
        frame = ViewFrame(options.crop, options.distance)
        cameras = [(np.array(view.extrinsics), np.array(view.intrinsics)) for view in views]
        return [
            view_similarity(frame, extrinsics, intrinsics, object_depth(frame, vertices, extrinsics, intrinsics))
            for extrinsics, intrinsics in cameras
        ]


def place(vertices: NDArray[np.floating], scale: float, centre: Sequence[float], name: str) -> NDArray[np.float64]:
    """Vertices [T, V, 3] of the clip `name` moved into [-0.5, 0.5]^3.

    Raises:
        ValueError: a vertex lies outside.
    """
    placed = (vertices.astype(np.float64) - centre) * scale
    inside = (np.abs(placed) <= 0.5 + TOLERANCE).all(axis=-1)
    if not inside.all():
        frame, vertex = np.argwhere(~inside)[0]
        raise ValueError(
            f"clip {name} leaves the cube [-0.5, 0.5]^3: in frame {frame} a vertex lies at "
            f"{placed[frame, vertex].tolist()}; run the stage curate again"
        )
    return np.clip(placed, -0.5, 0.5)


def turned_frame(azimuth: float, vertices: NDArray[np.float64]) -> Similarity:
    """The clip, `vertices` [T, V, 3], turned about the vertical so that a camera at `azimuth` degrees is in front;
    centred and scaled to the cube again."""
    angle = -math.radians(azimuth)
    rotation = np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1.0]])
    turned = (vertices @ rotation.T).reshape(-1, 3)
    placed = placement(turned.min(axis=0).tolist(), turned.max(axis=0).tolist())
    return Similarity(placed.scale, rotation, -placed.scale * np.array(placed.centre))


def _outside(vertices: NDArray[np.float64]) -> float:
    """Share of vertices [T, V, 3] outside of the cube."""
    return float((np.abs(vertices) > 0.5).any(axis=-1).mean())


def voxelize_clip(vertices: NDArray[np.float64], triangles: NDArray[np.int32], resolution: int) -> NDArray[np.int16]:
    """Surface voxels [N, 4] = (frame, x, y, z), sorted, of `vertices` [T, V, 3] in the cube; none of a frame in which
    the object is scaled to a point, as no camera sees it."""
    shown = [triangles if np.ptp(frame, axis=0).max() > NO_SIZE else triangles[:0] for frame in vertices]
    frames = [surface_voxels(frame[faces], resolution) for frame, faces in zip(vertices, shown, strict=True)]
    index = np.repeat(np.arange(len(frames), dtype=np.int16), [len(coords) for coords in frames])
    coords = np.concatenate([index[:, None], np.concatenate(frames)], axis=1)
    return np.ascontiguousarray(coords)  # safetensors writes memory as it lies
