"""Job `render`: what cameras see of a clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from mathutils import Matrix

from dataset_toolkits.blender.clips import Player
from dataset_toolkits.blender.engines import make_engine
from dataset_toolkits.blender.errors import JobError
from dataset_toolkits.blender.pixels import Picture
from dataset_toolkits.blender.scene import is_far, move_scene, open_asset

SENSOR = 36.0  # mm; any value gives the same pictures
CUBE_RADIUS = 3**0.5 / 2  # of the sphere around the unit cube
CLIP_MARGIN = 1.05
OPENCV_TO_BLENDER = np.diag([1.0, -1.0, -1.0, 1.0])  # Blender's cameras look along -z, with y up


def render(
    path: str,
    hide_nodes: Sequence[str],
    clip: str | None,
    times: Sequence[float],
    scale: float,
    centre: Sequence[float],
    cameras: Sequence[dict[str, Any]],
    options: dict[str, Any],
    folder: str,
) -> Iterator[dict[str, Any]]:
    """For every frame and camera, in this order, `{"rgba": FILE, "depth": FILE}` in `folder`.

    rgba is uint8 [S, S, 4], sRGB with straight alpha, depth float32 [S, S]; distances are those of the normalised
    world, `(original - centre) * scale`, in which the cameras are given: `{"extrinsics", "intrinsics", "size"}`. The
    files of two results in a row have different names; the ones before are overwritten.
    """
    asset = open_asset(Path(path), hide_nodes)
    found = [candidate for candidate in asset.clips if candidate.name == clip]
    if clip is not None and not found:
        raise JobError(f"{path} has no clip '{clip}'")
    player = Player(asset.clips)
    player.start(found[0] if found else None)
    if is_far(centre, 1 / scale):
        move_scene([-value for value in centre])
        centre = (0.0, 0.0, 0.0)
    engine = make_engine(**options)
    camera = _add_camera()
    for index, seconds in enumerate(times):
        player.seek(seconds)
        for number, view in enumerate(cameras):
            _place(camera, view, scale, centre)
            picture = engine.render(view["size"], Path(folder))
            parity = (index * len(cameras) + number) % 2
            yield _save(picture, scale, Path(folder), parity)


def _add_camera() -> Any:
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    bpy.context.scene.collection.objects.link(camera)
    bpy.context.scene.camera = camera
    camera.data.sensor_fit, camera.data.sensor_width = "HORIZONTAL", SENSOR
    return camera


def _place(camera: Any, view: dict[str, Any], scale: float, centre: Sequence[float]) -> None:
    """The scene keeps the asset's units, so the camera goes to `original = normalised / scale + centre`."""
    to_world = np.linalg.inv(np.array(view["extrinsics"]))
    distance = float(np.linalg.norm(to_world[:3, 3]))
    to_world[:3, 3] = to_world[:3, 3] / scale + centre
    camera.matrix_world = Matrix((to_world @ OPENCV_TO_BLENDER).tolist())
    (focal, _, centre_x), (_, _, centre_y), _ = view["intrinsics"]
    camera.data.lens = focal * SENSOR
    camera.data.shift_x, camera.data.shift_y = 0.5 - centre_x, centre_y - 0.5
    camera.data.clip_start = max(distance - CUBE_RADIUS * CLIP_MARGIN, 0.01) / scale
    camera.data.clip_end = (distance + CUBE_RADIUS * CLIP_MARGIN) / scale


def _save(picture: Picture, scale: float, folder: Path, parity: int) -> dict[str, str]:
    result = {"rgba": f"rgba_{parity}.npy", "depth": f"depth_{parity}.npy"}
    np.save(folder / result["rgba"], picture.rgba)
    np.save(folder / result["depth"], (picture.depth * scale).astype(np.float32))
    return result
