"""Stage render: views with depth and conditioning videos of every accepted clip, by Blender."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dataset_toolkits.blender.process import BlenderProcess, blender_python
from dataset_toolkits.curate import accepted_clips
from dataset_toolkits.engine.stage import Item, Stage, later_option, speed_option
from ss4d.data.format import SUFFIXES, Row
from ss4d.data.posed_clip import PosedClip, read_posed_clip

ENGINES = ("CYCLES", "BLENDER_WORKBENCH")
DEVICES = ("CPU", "GPU")
CUBE_RADIUS = 3**0.5 / 2  # of the sphere around the cube


@dataclass(frozen=True)
class RenderOptions:
    """Options of the stage render.

    Attributes:
        engine: CYCLES, or BLENDER_WORKBENCH for quick sets.
        size: pixels of the views.
        views: cameras all around the object, evenly; TRELLIS has 150.
        same_views: the same ones for every clip; else the whole even sphere is shifted at random for each.
        cond_views: conditioning videos for each of `cond_yaws`: the front view, then random ones.
        cond_size: pixels of the conditioning videos.
        cond_fov: range of the field of view of random conditioning videos, degrees.
        cond_azimuth: largest angle between them and the yaw, to either side, degrees.
        cond_elevation: range of their elevation, degrees.
        cond_yaws: sides that count as the front, multiples of 90 degrees.
        cond_around: further conditioning videos from all around; each is the front of its own cube (voxelize.frame).
        cond_around_static: the same for clips of one frame; null: as many.
        samples: light paths per pixel (Cycles).
        bounces: of light (Cycles).
        supersampling: rendered pixels per pixel of the picture, along each axis (Workbench).
        ambient: light from everywhere; a white surface under it alone has this linear value.
        key: light from the upper left in front, likewise.
        device: CPU or GPU (Cycles).
        threads: cores of one Blender; each worker runs one.
    """

    engine: str = "CYCLES"
    size: int = 512
    views: int = 150
    cond_views: int = 3
    cond_size: int = 512
    cond_fov: list[float] = field(default_factory=lambda: [10.0, 70.0])
    cond_azimuth: float = 15.0
    cond_elevation: list[float] = field(default_factory=lambda: [0.0, 15.0])
    cond_yaws: list[int] = field(default_factory=lambda: [0])
    cond_around: int = 0
    cond_around_static: int | None = None
    samples: int = 32
    bounces: int = 2
    supersampling: int = 2
    ambient: float = 0.5
    key: float = 0.5
    device: str = "CPU"
    threads: int = speed_option(1)
    same_views: bool = later_option(False)

    def __post_init__(self) -> None:
        for name, choices in (("engine", ENGINES), ("device", DEVICES)):
            if getattr(self, name) not in choices:
                raise ValueError(f"render.{name} is one of {', '.join(choices)}, not {getattr(self, name)}")
        for name in ("size", "views", "cond_views", "cond_size", "samples", "supersampling", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"render.{name} is at least 1, not {getattr(self, name)}")
        for name in ("cond_around", "cond_around_static"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"render.{name} is at least 0, not {getattr(self, name)}")
        for name, lowest, highest in (("cond_fov", 1, 80), ("cond_elevation", -90, 90)):
            limits = list(getattr(self, name))
            if len(limits) != 2 or not lowest <= limits[0] <= limits[1] <= highest:
                raise ValueError(f"render.{name} is [low, high] within {lowest} to {highest} degrees, not {limits}")
        if any(yaw % 90 for yaw in self.cond_yaws):
            raise ValueError(f"render.cond_yaws are multiples of 90 degrees, not {list(self.cond_yaws)}")


class RenderStage(Stage):
    """`render/<clip>.zip` of every accepted clip; see docs/data.md."""

    name = "render"
    version: ClassVar[int] = 3
    suffix: ClassVar[str] = SUFFIXES["render"]
    time_limit: ClassVar[float] = 12 * 3600.0  # the defaults are thousands of pictures by Cycles
    options: RenderOptions

    @property
    def device(self) -> str:
        return "cuda" if (self.options.engine, self.options.device) == ("CYCLES", "GPU") else "cpu"

    def items(self) -> list[Item]:
        blender_python()
        columns = ("pose", "asset", "clip", "sha256", "hide_nodes", "scale", "centre")
        return [
            Item(clip["clip_name"], {column: clip[column] for column in columns}, {"path": clip["path"]})
            for clip in accepted_clips(self.root)
        ]

    def process(self, item: Item, path: Path | None) -> list[Row]:
        from ss4d.data.views import ViewArchiveWriter

        assert path is not None
        posed = read_posed_clip(self.root, item.inputs["asset"], item.inputs["clip"])
        index = self._index(item, posed)
        with ViewArchiveWriter(path, index) as archive:
            for picture in self._pictures(item, posed.times, index, path.parent):
                if picture.camera < len(index.views):
                    archive.add_view(picture.camera, picture.frame, picture.rgba, picture.depth)
                else:
                    archive.add_cond(picture.camera - len(index.views), picture.frame, picture.rgba)
        return [{"clip_name": item.name, "frames": index.frames, "bytes": path.stat().st_size}]

    def close(self) -> None:
        self._blender.close()

    def _index(self, item: Item, posed: PosedClip) -> Any:
        """The cameras of a clip, drawn from its name; a `ViewIndex`."""
        from dataset_toolkits.rigs import RADIUS, around_rig, clip_generator, conditioning_rig, crop_to_clip, sphere_rig
        from ss4d.data.views import ViewIndex

        options, generator = self.options, clip_generator(item.name)
        vertices = (posed.vertices.astype(np.float64) - item.inputs["centre"]) * item.inputs["scale"]
        views = sphere_rig(options.views, generator, not options.same_views)
        cond = conditioning_rig(
            options.cond_views,
            options.cond_yaws,
            options.cond_azimuth,
            options.cond_elevation,
            options.cond_fov,
            generator,
        )
        around = options.cond_around
        if len(vertices) == 1 and options.cond_around_static is not None:
            around = options.cond_around_static
        cond += around_rig(around, options.cond_elevation, options.cond_fov, generator)
        return ViewIndex(
            frames=len(vertices),
            size=options.size,
            cond_size=options.cond_size,
            scale=item.inputs["scale"],
            centre=list(item.inputs["centre"]),
            depth_range=[RADIUS - CUBE_RADIUS, RADIUS + CUBE_RADIUS],
            views=views,
            cond=[crop_to_clip(view, vertices) for view in cond],
        )

    def _pictures(self, item: Item, times: Sequence[float], index: Any, folder: Path) -> Iterator[RenderedPicture]:
        options = self.options
        cameras = [_camera(view, options.size) for view in index.views]
        cameras += [_camera(view, options.cond_size) for view in index.cond]
        settings = ("engine", "samples", "supersampling", "bounces", "ambient", "key", "device", "threads")
        results = self._blender.run(
            "render",
            path=str(item.payload["path"]),
            hide_nodes=item.inputs["hide_nodes"],
            clip=item.inputs["clip"],
            times=list(times),
            scale=item.inputs["scale"],
            centre=list(item.inputs["centre"]),
            cameras=cameras,
            options={name: getattr(options, name) for name in settings},
            folder=str(folder),
        )
        for number, result in enumerate(results):
            frame, camera = divmod(number, len(cameras))
            yield RenderedPicture(frame, camera, np.load(folder / result["rgba"]), np.load(folder / result["depth"]))

    @cached_property
    def _blender(self) -> BlenderProcess:
        return BlenderProcess(self.options.threads)


@dataclass(frozen=True)
class RenderedPicture:
    """`rgba` uint8 [S, S, 4] and `depth` float32 [S, S] of one frame from one camera."""

    frame: int
    camera: int
    rgba: NDArray[np.uint8]
    depth: NDArray[np.float32]


def _camera(view: Any, size: int) -> Mapping[str, Any]:
    return {"extrinsics": view.extrinsics, "intrinsics": view.intrinsics, "size": size}
