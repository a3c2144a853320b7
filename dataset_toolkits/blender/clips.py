"""The animations of an imported file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import bpy

CACHES = ("MESH_SEQUENCE_CACHE", "TRANSFORM_CACHE")  # modifiers and constraints that play a file


@dataclass(frozen=True)
class Track:
    """What one data block (an object, the shape keys of a mesh, a material) does in a clip."""

    owner: Any
    action: Any
    slot: Any


@dataclass(frozen=True)
class Animation:
    """An animation of the file; all else is at rest. `start` and `end` are frames of the scene."""

    name: str
    start: float
    end: float
    tracks: list[Track] = field(default_factory=list)


def gltf_clips(track_names: dict[str, str]) -> list[Animation]:
    """Clips by name; the importer leaves one NLA track a clip and data block, whose names are the values."""
    tracks: dict[str, list[Track]] = {name: [] for name in track_names.values()}
    for owner in _owners():
        for nla in owner.animation_data.nla_tracks:
            tracks[nla.name].extend(Track(owner, strip.action, strip.action_slot) for strip in nla.strips)
    return [_clip(name, tracks[track]) for name, track in track_names.items()]


def take_clips() -> list[Animation]:
    """One clip per action: the FBX importer makes an action of every take, with a slot for every data block."""
    blocks = {f"OB{item.name}": item for item in bpy.data.objects} | {
        f"KE{key.name}": key for key in bpy.data.shape_keys
    }
    return [
        _clip(
            action.name,
            [Track(blocks[slot.identifier], action, slot) for slot in action.slots if slot.identifier in blocks],
        )
        for action in bpy.data.actions
    ]


def whole_scene_clip(name: str) -> list[Animation]:
    """The scene's frame range with the actions that are set, as one clip; none where nothing is animated."""
    tracks = [
        Track(owner, owner.animation_data.action, owner.animation_data.action_slot)
        for owner in _owners()
        if owner.animation_data.action
    ]
    cached = any(part.type in CACHES for item in bpy.data.objects for part in (*item.modifiers, *item.constraints))
    scene = bpy.context.scene
    return [Animation(name, scene.frame_start, scene.frame_end, tracks)] if tracks or cached else []


class Player:
    """Poses the scene: one clip at a time, everything else at rest."""

    def __init__(self, clips: Iterable[Animation]):
        self._rest = {
            (track.owner, curve.data_path): _read(track.owner, curve.data_path)
            for clip in clips
            for track in clip.tracks
            for curve in _curves(track)
        }

    def start(self, clip: Animation | None) -> None:
        """Give every data block the action it has in `clip`, or none."""
        for owner in list(_owners()):
            owner.animation_data_clear()
        for (owner, data_path), value in self._rest.items():
            _write(owner, data_path, value)
        for track in clip.tracks if clip else ():
            data = track.owner.animation_data_create()
            data.action = track.action
            data.action_slot = track.slot

    def seek(self, seconds: float) -> None:
        """Go to a moment; 0 is frame 0 of the scene."""
        frame = seconds * scene_fps()
        whole = math.floor(frame + 1e-6)
        bpy.context.scene.frame_set(whole, subframe=max(frame - whole, 0.0))


def scene_fps() -> float:
    """Frames per second of the scene, as the importer set it."""
    render = bpy.context.scene.render
    return render.fps / render.fps_base


def _clip(name: str, tracks: list[Track]) -> Animation:
    ranges = [track.action.frame_range for track in tracks]
    start, end = min((low for low, _ in ranges), default=0.0), max((high for _, high in ranges), default=0.0)
    return Animation(name, start, end, tracks)


def _owners() -> Iterator[Any]:
    """Data blocks that can be animated and are."""
    materials = list(bpy.data.materials)
    trees = [material.node_tree for material in materials if material.node_tree]
    for owner in (*bpy.data.objects, *bpy.data.shape_keys, *materials, *trees):
        if owner.animation_data:
            yield owner


def _curves(track: Track) -> Iterator[Any]:
    for layer in track.action.layers:
        for strip in layer.strips:
            bag = strip.channelbag(track.slot)
            yield from bag.fcurves if bag else ()


def _read(owner: Any, data_path: str) -> Any:
    """The value of a property, copied; None where the file animates what does not exist."""
    try:
        value = owner.path_resolve(data_path)
    except ValueError:
        return None
    return tuple(value) if hasattr(value, "__len__") else value


def _write(owner: Any, data_path: str, value: Any) -> None:
    if value is not None:
        holder, _, attribute = data_path.rpartition(".")
        setattr(owner.path_resolve(holder) if holder else owner, attribute, value)
