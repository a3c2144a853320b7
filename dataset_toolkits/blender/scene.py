"""Opening an asset in an empty scene."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bpy

from dataset_toolkits.blender.albedo import base_colour, emission
from dataset_toolkits.blender.clips import Animation, gltf_clips, take_clips, whole_scene_clip
from dataset_toolkits.blender.errors import JobError
from dataset_toolkits.blender.gltf import count_triangles, import_gltf

FPS = 24  # of the scene while glTF is read; other formats bring their own
FAR = 100.0  # sizes of an object from the origin to it, beyond which it is moved there: Blender has single precision
ORIGIN = "ss4d origin"
SLIDER = 10.0  # weights of morph targets that a slider allows, as far as Blender lets it go


@dataclass(frozen=True)
class ImportedAsset:
    """An imported file; everything in it is at rest."""

    clips: list[Animation]
    finite: bool  # False where the file holds positions that are not
    objects: Mapping[str, Sequence[str]] = field(default_factory=dict)  # by the names that the file gives them


def open_asset(path: Path, hide_nodes: Collection[str], max_triangles: int | None = None) -> ImportedAsset:
    """Import a file into an empty scene and hide nodes with all that hangs from them.

    Raises:
        JobError: the file cannot be read, is too large, or a node to hide is not in it.
    """
    suffix = path.suffix.lower()
    if suffix not in IMPORTERS:
        raise JobError(f"{path} is not a format that is read here: {', '.join(sorted(IMPORTERS))}")
    if not path.exists():
        raise JobError(f"{path} does not exist")
    if suffix in (".glb", ".gltf"):
        check_triangles(path, count_triangles(path), max_triangles)
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.context.preferences.edit.use_global_undo = False
    bpy.context.scene.render.fps = FPS
    try:
        asset = IMPORTERS[suffix](path)
    except RuntimeError as error:  # what operators raise
        raise JobError(f"Blender cannot read {path}: {_reason(error)}") from error
    if not bpy.data.objects:  # some importers only print what is wrong
        raise JobError(f"Blender finds nothing in {path}: it is empty or damaged")
    check_pictures(path)
    for keys in bpy.data.shape_keys:  # animated weights of glTF may go beyond the 0 to 1 of Blender's sliders
        for block in keys.key_blocks:
            block.slider_min, block.slider_max = -SLIDER, SLIDER
    _hide(hide_nodes, asset.objects)
    return asset


def check_pictures(path: Path) -> None:
    """Raises:
    JobError: a picture that the colours of a material are made of is missing or damaged; it would be magenta.
    """
    for material in bpy.data.materials:
        for colour in (base_colour(material), emission(material)):
            picture = None if colour.image is None else colour.image.image
            if picture is not None and not all(picture.size):  # asked for its size, Blender reads it
                raise JobError(
                    f"{path}: the picture {picture.filepath or picture.name} of {material.name} is missing or damaged; "
                    "put it where the file has it, or take it out of the material"
                )


def _reason(error: RuntimeError) -> str:
    """What an operator says: its first line, or the last one of a traceback, which a damaged file leads to."""
    lines = [line.strip() for line in str(error).splitlines()]
    first, *others = [line for line in lines if line and not line.startswith("Location:")] or ["it gives no reason"]
    return f"it is damaged ({others[-1]})" if "Traceback" in first and others else first.removeprefix("Error: ")


def check_triangles(path: Path, count: int, limit: int | None) -> None:
    """Raises:
    JobError: a file has more triangles than allowed.
    """
    if limit is not None and count > limit:
        raise JobError(f"{path} has {count:,} triangles, more than pose.max_triangles={limit:,}; simplify it")


def is_far(centre: Sequence[float], side: float) -> bool:
    """Whether an object of this size at this place is to be moved to the origin, see `move_scene`."""
    return max(map(abs, centre)) > FAR * side > 0


def move_scene(offset: Sequence[float]) -> None:
    """Shift all that was imported from where the file has it. The shift comes first in the chain of transforms, and so
    what lies far out is computed with the accuracy that it has near the origin."""
    origin = bpy.data.objects.get(ORIGIN)
    if origin is None:
        roots = [item for item in bpy.context.scene.objects if item.parent is None]
        origin = bpy.data.objects.new(ORIGIN, None)
        bpy.context.scene.collection.objects.link(origin)
        for item in roots:
            item.parent = origin
    origin.location = offset


def _open_gltf(path: Path) -> ImportedAsset:
    hooks = import_gltf(path)
    for name in hooks.hidden:
        _hide_object(bpy.data.objects[name])
    return ImportedAsset(gltf_clips(hooks.tracks), hooks.finite, hooks.objects)


def _open_fbx(path: Path) -> ImportedAsset:
    _require_finished(bpy.ops.wm.fbx_import(filepath=str(path)))
    return ImportedAsset(take_clips(), finite=True)


def _open_usd(path: Path) -> ImportedAsset:
    _require_finished(bpy.ops.wm.usd_import(filepath=str(path), import_cameras=False, import_lights=False))
    render = bpy.context.scene.render  # whose frames are the file's time codes; of their rate the importer says nothing
    rate = _time_codes_per_second(path)
    render.fps = max(1, round(rate))
    render.fps_base = render.fps / rate
    return ImportedAsset(whole_scene_clip("default"), finite=True)


def _time_codes_per_second(path: Path) -> float:
    """Of a USD file, by Pixar's library, which the module bpy brings but does not show to Python."""
    bundled = Path(bpy.utils.resource_path("LOCAL")) / "python" / "lib"
    sys.path += [str(folder) for folder in bundled.glob("python*/site-packages") if str(folder) not in sys.path]
    from pxr import Usd

    return Usd.Stage.Open(str(path)).GetTimeCodesPerSecond()


def _require_finished(result: set[str]) -> None:
    if result != {"FINISHED"}:
        raise RuntimeError("the importer gave up")


IMPORTERS: dict[str, Callable[[Path], ImportedAsset]] = {
    **dict.fromkeys((".glb", ".gltf"), _open_gltf),
    ".fbx": _open_fbx,
    **dict.fromkeys((".usd", ".usda", ".usdc", ".usdz"), _open_usd),
}


def _hide(nodes: Collection[str], objects: Mapping[str, Sequence[str]]) -> None:
    """Hide what the file hides, its lights, and `nodes`: names of objects or bones, those of `objects` first."""
    for item in bpy.data.objects:
        if item.type == "LIGHT":
            item.hide_render = True
        item.hide_viewport = item.hide_render  # what is evaluated must be what is rendered
    missing = set(nodes)
    for name in nodes:
        for found in objects.get(name, [name]):
            if found in bpy.data.objects:
                missing.discard(name)
                _hide_object(bpy.data.objects[found])
    for armature in (item for item in bpy.data.objects if item.type == "ARMATURE"):
        named = {name for name in nodes if name in armature.data.bones}
        missing -= named
        bones = {bone.name for name in named for bone in _with_descendants(armature.data.bones[name])}
        for child in armature.children:
            if child.parent_type == "BONE" and child.parent_bone in bones:
                _hide_object(child)
    if missing:
        raise JobError(f"the nodes to hide are not in the file: {', '.join(sorted(missing))}; correct hide_nodes")


def _hide_object(item: Any) -> None:
    for part in _with_descendants(item):
        part.hide_render = part.hide_viewport = True


def _with_descendants(item: Any) -> list[Any]:
    """An object or bone and all below it."""
    return [item, *item.children_recursive]
