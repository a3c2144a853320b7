"""Stage voxelize: the surface voxels of every frame, by exact overlap with the triangles.

A colour per voxel is not stored here: the first three channels of the small extractor's features are one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from dataset_toolkits.overlap import surface_voxels
from dataset_toolkits.stage import Item, Row, Stage, artifact_path, read_table

TOLERANCE = 1e-5  # by which rounding may carry a vertex out of the cube


@dataclass
class VoxelizeOptions:
    """Options of the stage voxelize."""

    resolutions: list[int] = field(default_factory=lambda: [64])  # voxels along each side of the cube


class VoxelizeStage(Stage):
    """`voxelize/<clip>.safetensors` of every accepted clip; see docs/data.md."""

    name = "voxelize"
    suffix: ClassVar[str] = ".safetensors"
    options: VoxelizeOptions

    def items(self) -> list[Item]:
        poses = {row["name"]: row["key"] for row in read_table(self.root, "pose")}
        return [
            Item(
                row["clip_name"],
                {"pose": poses[row["asset"]]}
                | {column: row[column] for column in ("asset", "clip", "scale", "centre")},
            )
            for row in read_table(self.root, "curate")
            if row["accepted"]
        ]

    def process(self, item: Item, path: Path | None) -> list[Row]:
        from safetensors.numpy import save_file

        assert path is not None
        clip = load_clip(artifact_path(self.root, "pose", item.inputs["asset"], ".safetensors"), item.inputs["clip"])
        vertices = place(clip.vertices, item.inputs["scale"], item.inputs["centre"], item.name)
        row: Row = {"clip_name": item.name}
        tensors = {}
        for resolution in self.options.resolutions:
            coords = voxelize_clip(vertices, clip.triangles, resolution)
            tensors[f"coords_{resolution}"] = coords
            row[f"voxels_{resolution}"] = len(coords) / len(vertices)
        save_file(tensors, path)
        return [row]


@dataclass(frozen=True)
class PosedClip:
    """`vertices` float32 [T, V, 3] in the asset's units and `triangles` int32 [F, 3]."""

    vertices: NDArray[np.float32]
    triangles: NDArray[np.int32]


def load_clip(path: Path, clip: str | None) -> PosedClip:
    """One clip of a pose artifact.

    Raises:
        ValueError: the artifact holds no such clip.
    """
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        names = json.loads(file.metadata()["clips"])
        if clip not in names:
            raise ValueError(f"{path} holds no clip '{clip}' but {names}: run the stages pose and curate again")
        return PosedClip(file.get_tensor(f"vertices_{names.index(clip)}"), file.get_tensor("triangles"))


def place(vertices: NDArray[np.float32], scale: float, centre: Sequence[float], name: str) -> NDArray[np.float64]:
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


def voxelize_clip(vertices: NDArray[np.float64], triangles: NDArray[np.int32], resolution: int) -> NDArray[np.int16]:
    """Surface voxels [N, 4] = (frame, x, y, z), sorted, of `vertices` [T, V, 3] in the cube."""
    frames = [surface_voxels(frame[triangles], resolution) for frame in vertices]
    index = np.repeat(np.arange(len(frames), dtype=np.int16), [len(coords) for coords in frames])
    coords = np.concatenate([index[:, None], np.concatenate(frames)], axis=1)
    return np.ascontiguousarray(coords)  # safetensors writes memory as it lies
