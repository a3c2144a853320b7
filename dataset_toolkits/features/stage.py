"""Stage features: features of every voxel from the rendered views.

The feature maps of each view are sampled at the projection of the voxel's centre and averaged over the views: over all
of them, as in TRELLIS, or over those that see the voxel (paper §4.3); then voxels that no view sees are dropped.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from dataset_toolkits.curate import accepted_clips
from dataset_toolkits.engine.stage import Item, Stage, speed_option
from dataset_toolkits.features.aggregation import FeatureTable
from dataset_toolkits.features.projection import FrameViews, PixelRays, pixel_rays
from dataset_toolkits.voxelize import check_resolutions
from ss4d.backend import find_device
from ss4d.data.format import CHANNELS, SIMILARITIES, SUFFIXES, Cube, Row, artifact_path, resolutions
from ss4d.data.provenance import current_rows
from ss4d.view_frame import Similarity

if TYPE_CHECKING:
    from dataset_toolkits.features.extractors import Extractor
    from ss4d.data.views import ViewArchive, ViewIndex

EXTRACTORS = ("small", "dinov2")
AGGREGATIONS = ("visible", "mean")


@dataclass
class FeaturesOptions:
    """Options of the stage features."""

    extractor: str = "small"  # "small" or "dinov2"
    aggregation: str = "visible"  # "visible" (paper) or "mean" (TRELLIS)
    views_per_frame: int | None = None  # so many of the views, drawn anew for every frame; null: all
    resolutions: list[int] | None = None  # a part of voxelize.resolutions; null: all
    dinov2: str = "dinov2_vitl14_reg"  # released name, Hub id or local folder
    batch: int = speed_option(12)  # pictures per call of DINOv2
    device: str = speed_option("cpu")  # of DINOv2

    def __post_init__(self) -> None:
        for name, allowed in (("extractor", EXTRACTORS), ("aggregation", AGGREGATIONS)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"features.{name} is one of {', '.join(allowed)}, not {getattr(self, name)}")
        for name in ("views_per_frame", "batch"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"features.{name} is at least 1, not {value}")
        if self.resolutions is not None:
            check_resolutions("features", self.resolutions)


class FeaturesStage(Stage):
    """`features/<clip>.safetensors` of every clip that is voxelised and rendered; see docs/data.md."""

    name = "features"
    suffix: ClassVar[str] = SUFFIXES["features"]
    time_limit: ClassVar[float] = 7200.0  # DINOv2 takes minutes per frame on a CPU
    options: FeaturesOptions

    @property
    def device(self) -> str:
        return self.options.device if self.options.extractor == "dinov2" else "cpu"

    def items(self) -> list[Item]:
        if self.options.extractor == "dinov2":
            find_device(self.options.device)
        clips: dict[str, Row] = {clip["clip_name"]: clip for clip in accepted_clips(self.root)}
        keys: dict[str, dict[str, str]] = {}  # of the clips that each stage made
        for stage in ("render", "voxelize"):
            keys[stage] = {name: row["key"] for name, row in current_rows(self.root, stage, clips).items()}
            clips = {name: clips[name] | {stage: key} for name, key in keys[stage].items()}
        return [Item(name, {stage: keys[stage][name] for stage in keys}) for name in clips]

    def process(self, item: Item, path: Path | None) -> list[Row]:
        from safetensors.numpy import load_file, save_file

        from ss4d.data.views import ViewArchive

        assert path is not None
        voxels = load_file(artifact_path(self.root, "voxelize", item.name))
        cubes = read_cubes(voxels)
        sizes = self._resolutions(resolutions(voxels, "coords"))
        tables = {(cube, size): FeatureTable(size) for cube in cubes for size in sizes}
        archive = ViewArchive(artifact_path(self.root, "render", item.name))
        chosen = draw_views(item.name, archive.index, self.options.views_per_frame)
        for frame, views in enumerate(frames_of(archive, chosen)):
            maps = self.extractor(views)
            for cube, similarity in cubes.items():
                moved = views if similarity is None else views.moved(similarity)
                for size in sizes:
                    coords = voxels[cube.coords(size)]
                    coords = coords[coords[:, 0] == frame]
                    tables[cube, size].add(coords, moved, maps, self.options.aggregation)
        row: Row = {"clip_name": item.name, "cubes": len(cubes) if SIMILARITIES in voxels else None}
        for size in sizes:
            row |= mean_row([tables[cube, size].row(archive.index.frames) for cube in cubes])
        tensors = {SIMILARITIES: voxels[SIMILARITIES]} if SIMILARITIES in voxels else {}
        for (cube, _), table in tables.items():
            tensors |= table.tensors(cube, self.extractor.channels, cubes[cube])
        save_file(tensors, path, {CHANNELS: json.dumps(self.extractor.channels)})
        return [row]

    @cached_property
    def extractor(self) -> Extractor:
        """Kept between the clips of a worker."""
        from dataset_toolkits.features.extractors import DinoExtractor, SmallExtractor

        if self.options.extractor == "small":
            return SmallExtractor()
        from ss4d.models.image_encoder import DinoImageEncoder

        return DinoExtractor(DinoImageEncoder(self.options.dinov2).to(self.options.device), self.options.batch)

    def _resolutions(self, available: Iterable[int]) -> list[int]:
        chosen = sorted(available if self.options.resolutions is None else self.options.resolutions)
        if missing := set(chosen) - set(available):
            raise ValueError(f"there are no voxels of {sorted(missing)}: add them to voxelize.resolutions")
        return chosen


def read_cubes(voxels: Mapping[str, NDArray]) -> dict[Cube, Similarity | None]:
    """The cubes of a voxelised clip, each with the similarity that leads there from the clip's own cube."""
    if SIMILARITIES not in voxels:
        return {Cube(): None}
    return {Cube(view): Similarity.from_matrix(matrix) for view, matrix in enumerate(voxels[SIMILARITIES])}


def mean_row(rows: Sequence[Row]) -> Row:
    """Mean of every column over the cubes of a clip."""
    return {column: sum(row[column] for row in rows) / len(rows) for column in rows[0]}


def draw_views(clip: str, index: ViewIndex, count: int | None) -> list[NDArray[np.intp]]:
    """The views to use of each frame: all, or `count` of them, drawn with a seed from the clip's name.

    Raises:
        ValueError: there are not that many.
    """
    total = len(index.views)
    if count is None:
        return [np.arange(total)] * index.frames
    if count > total:
        raise ValueError(f"features.views_per_frame is {count}, but {total} views were rendered: give {total} at most")
    draws = np.random.default_rng(zlib.crc32(clip.encode()))
    return [np.sort(draws.choice(total, count, replace=False)) for _ in range(index.frames)]


def frames_of(archive: ViewArchive, chosen: Sequence[NDArray[np.intp]]) -> Iterator[FrameViews]:
    """The `chosen` views of each frame, as arrays."""
    from ss4d.data.views import Cameras

    rays = pixel_rays(archive.cameras, archive.index.size)
    for frame, views in enumerate(chosen):
        rgba = np.stack([archive.view(view, frame) for view in views])
        depth = np.stack([archive.depth(view, frame) for view in views])
        cameras = Cameras(archive.cameras.extrinsics[views], archive.cameras.intrinsics[views])
        yield FrameViews(rgba, depth, cameras, PixelRays(rays.origins[views], rays.directions[views]))
