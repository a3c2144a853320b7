"""Job `pose`: the geometry of an asset's clips, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import bpy
import numpy as np
from numpy.typing import NDArray

from dataset_toolkits.blender import geometry
from dataset_toolkits.blender.clips import Animation, Player, scene_fps
from dataset_toolkits.blender.errors import JobError
from dataset_toolkits.blender.sampling import Sampling
from dataset_toolkits.blender.scene import check_triangles, is_far, move_scene, open_asset

CHANGES = "the topology changes between frames"


def pose(
    path: str,
    hide_nodes: Sequence[str],
    clips: Sequence[str],
    clips_per_asset: int | None,
    sampling: dict[str, Any],
    max_triangles: int,
    folder: str,
) -> Iterator[dict[str, Any]]:
    """First `{"triangles": FILE}`, int32 [F, 3]; then, for every clip, `{"clip", "seconds", "times", "vertices",
    "problem"}`.

    `vertices` is a file in `folder`, float32 [T, V, 3] (float64 of what is far from the origin), of only those that
    triangles use, at the `times` [T] in seconds; both are null where there is a `problem`. Without `clips` those of
    the file are taken.
    """
    asset = open_asset(Path(path), hide_nodes, max_triangles)
    player = Player(asset.clips)
    by_name: dict[str | None, Animation] = {clip.name: clip for clip in asset.clips}
    chosen: list[str | None] = list(clips or by_name)[:clips_per_asset] or [None]
    player.start(None)
    bpy.context.view_layer.update()
    check_triangles(Path(path), geometry.count_triangles(), max_triangles)
    triangles = geometry.triangles()
    if not len(triangles):
        raise JobError(f"{path} shows no triangles; check the nodes to hide")
    used, renumbered = np.unique(triangles, return_inverse=True)
    np.save(Path(folder) / "triangles.npy", renumbered.reshape(-1, 3).astype(np.int32))
    yield {"triangles": "triangles.npy"}

    expected = geometry.topology()
    for index, name in enumerate(chosen):
        result: dict[str, Any] = {"clip": name, "seconds": None, "times": None, "vertices": None, "problem": None}
        if name is not None and name not in by_name:
            yield result | {"problem": "not in the file"}
            continue
        clip = by_name.get(name)
        start, end = (clip.start / scene_fps(), clip.end / scene_fps()) if clip else (0.0, 0.0)
        times = Sampling(**sampling).times(start, end)
        player.start(clip)
        posed = _frames(player, times, expected, used)
        result["seconds"] = end - start
        if posed is None:
            yield result | {"problem": CHANGES}
        elif not (asset.finite and np.isfinite(posed).all()):
            yield result | {"problem": "not finite"}
        else:
            np.save(Path(folder) / f"vertices_{index}.npy", posed)
            yield result | {"times": times, "vertices": f"vertices_{index}.npy"}


def _frames(
    player: Player, times: Sequence[float], expected: geometry.Topology, used: NDArray[np.int32]
) -> NDArray[np.floating] | None:
    """[T, V, 3], or None where a frame is joined otherwise than `expected`."""
    origin = _origin(player, times[0])
    frames = np.empty((len(times), len(used), 3), np.float64 if origin.any() else np.float32)
    move_scene((-origin).tolist())
    try:
        for frame, seconds in zip(frames, times, strict=True):
            player.seek(seconds)
            if not geometry.topology().equals(expected):
                return None
            frame[:] = geometry.vertices()[used] + origin
    finally:
        move_scene((0.0, 0.0, 0.0))
    return frames


def _origin(player: Player, seconds: float) -> NDArray[np.float64]:
    """The middle of a frame where it is far from the origin, else the origin [3]."""
    player.seek(seconds)
    vertices = geometry.vertices()
    if len(vertices) and np.isfinite(vertices).all():
        low, high = vertices.min(axis=0), vertices.max(axis=0)
        if is_far((low + high) / 2, float((high - low).max())):
            return ((low + high) / 2).astype(np.float32).astype(np.float64)  # as Blender can store it
    return np.zeros(3)
