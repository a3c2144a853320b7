"""Analytic scenes for the dataset toolkit: boxes seen by a tiny ray caster, and data sets made of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from dataset_toolkits.engine.records import write_table
from dataset_toolkits.engine.stage import Stage
from dataset_toolkits.features.projection import FrameViews, PixelRays, pixel_rays
from ss4d.cameras import Camera, hammersley_sphere, orbit_camera
from ss4d.data.format import CLIPS, INPUTS, TRIANGLES, Row, artifact_path, times_name, vertices_name
from ss4d.data.provenance import write_inputs
from ss4d.data.views import Cameras, View, ViewArchiveWriter, ViewIndex

BOX_TRIANGLES = np.array(
    [
        *([0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1]),
        *([2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]),
    ]
)  # of corners in the order x, y, z, z running fastest; two a face: -x, +x, -y, +y, -z, +z


@dataclass
class Scene:
    """Coloured triangles: `corners` [F, 3, 3] in the cube, `colours` uint8 [F, 3]."""

    corners: NDArray[np.float64]
    colours: NDArray[np.uint8]

    def __add__(self, other: Scene) -> Scene:
        return Scene(np.concatenate([self.corners, other.corners]), np.concatenate([self.colours, other.colours]))


def box(low: Sequence[float], high: Sequence[float], colours: Sequence[Sequence[int]] = ((200, 100, 50),)) -> Scene:
    """An axis-aligned box; `colours` is one for all faces, or six (-x, +x, -y, +y, -z, +z)."""
    corners = np.array(np.meshgrid(*zip(low, high, strict=True), indexing="ij")).reshape(3, 8).T
    faces = colours if len(colours) == 6 else [colours[0]] * 6
    return Scene(corners[BOX_TRIANGLES], np.repeat(np.array(faces, np.uint8), 2, axis=0))


def sphere_cameras(count: int) -> Cameras:
    return stack_cameras([orbit_camera(view.azimuth_deg, view.elevation_deg) for view in hammersley_sphere(count)])


def stack_cameras(cameras: Sequence[Camera]) -> Cameras:
    return Cameras(
        np.stack([camera.extrinsics.numpy() for camera in cameras]),
        np.stack([camera.intrinsics.numpy() for camera in cameras]),
    )


def render(scene: Scene, cameras: Cameras, size: int) -> FrameViews:
    """One ray through the centre of each pixel (Moeller-Trumbore), flat colours."""
    rays = pixel_rays(cameras, size)
    depth = np.full(rays.directions.shape[:3], np.inf)
    rgba = np.zeros((*depth.shape, 4), np.uint8)
    for corners, colour in zip(scene.corners, scene.colours, strict=True):
        distance = _intersect(rays, corners)
        nearer = distance < depth
        depth[nearer], rgba[nearer] = distance[nearer], [*colour, 255]
    return FrameViews(rgba, depth.astype(np.float32), cameras, rays)


def _intersect(rays: PixelRays, corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Depth [V, S, S] at which the rays meet a triangle [3, 3], infinite where they miss it."""
    edge1, edge2 = corners[1] - corners[0], corners[2] - corners[0]
    directions = rays.directions.astype(np.float64)
    across = np.cross(directions, edge2)
    determinant = across @ edge1
    safe = np.where(np.abs(determinant) > 1e-12, determinant, np.nan)
    start = rays.origins.astype(np.float64)[:, None, None] - corners[0]
    u = (start * across).sum(-1) / safe
    beyond = np.cross(start, edge1)
    v = (directions * beyond).sum(-1) / safe
    inside = (u >= -1e-9) & (v >= -1e-9) & (u + v <= 1 + 1e-9)
    return np.where(inside, beyond @ edge2 / safe, np.inf)


def write_scene(
    root: Path, name: str, frames: Sequence[Scene], cameras: Cameras, size: int, cond: Cameras | None = None
) -> None:
    """A data set of one asset `name` with one clip "move", up to the stage render: boxes with equally many triangles,
    stored at ten times their size and off centre."""
    clip, centre, scale = f"{name}__move", [1.0, 2.0, 3.0], 0.1
    vertices = np.stack([scene.corners.reshape(-1, 3) / scale + centre for scene in frames]).astype(np.float32)
    triangles = np.arange(vertices.shape[1], dtype=np.int32).reshape(-1, 3)
    for folder in ("pose", "render"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    tensors: dict[str, NDArray] = {TRIANGLES: triangles}
    for place, moved in enumerate((7 + vertices, vertices)):
        tensors |= {vertices_name(place): moved, times_name(place): np.arange(len(frames)) / 24}
    save_file(tensors, artifact_path(root, "pose", name), {CLIPS: json.dumps(["other", "move"])})
    index = ViewIndex(len(frames), size, size, scale, centre, [1.0, 3.0], _views(cameras), _views(cond))
    with ViewArchiveWriter(artifact_path(root, "render", clip), index) as archive:
        for frame, scene in enumerate(frames):
            pictures = render(scene, cameras, size)
            for view in range(len(index.views)):
                archive.add_view(view, frame, pictures.rgba[view], pictures.depth[view])
            for view, rgba in enumerate(render(scene, cond, size).rgba if cond else []):
                archive.add_cond(view, frame, rgba)
    done = {"status": "done", "error": None}
    write_table(root, "pose", [{"name": name, "key": "p", **done, "asset": name, "clip": "move", "clip_name": clip}])
    curate = {"asset": name, "clip": "move", "clip_name": clip, "scale": scale, "centre": centre, "split": "train"}
    curate |= {"asset_id": name, "category": None, "group": name}
    rejected = {**curate, "clip": "other", "clip_name": f"{name}__other"}
    write_table(root, "curate", [{**curate, "accepted": True}, {**rejected, "accepted": False}])
    write_table(root, "render", [{"name": clip, "key": "r", **done, "clip_name": clip, "frames": len(frames)}])


def _views(cameras: Cameras | None) -> list[View]:
    if cameras is None:
        return []
    return [
        View(extrinsics.tolist(), intrinsics.tolist(), azimuth=0, elevation=0, fov=40, radius=2)
        for extrinsics, intrinsics in zip(cameras.extrinsics, cameras.intrinsics, strict=True)
    ]


def run(stage: Stage) -> list[Row]:
    """Make all items of a stage here, and its table, as the command line does in worker processes."""
    rows = []
    for item in stage.items():
        record = stage.run(item)
        head = {"name": item.name, "key": record.key, "status": "done", "error": None}
        head[INPUTS] = write_inputs(record.inputs)
        rows += [{**head, **row} for row in record.rows]
    stage.finish()
    write_table(stage.root, stage.name, rows)
    return rows
