"""glTF: how many triangles a file holds, before it is read; and what Blender's importer must be told and asked."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataset_toolkits.blender.errors import JobError
from dataset_toolkits.gltf import read_document

TRIANGLES, STRIP, FAN = 4, 5, 6  # primitive modes


def count_triangles(path: Path) -> int:
    """Triangles of all nodes, from the file's JSON alone.

    Raises:
        JobError: the file is damaged.
    """
    try:
        document = read_document(path)
        accessors = document.get("accessors", [])
        in_mesh = [
            sum(_triangles(primitive, accessors) for primitive in mesh["primitives"])
            for mesh in document.get("meshes", [])
        ]
        return sum(in_mesh[node["mesh"]] for node in document.get("nodes", []) if "mesh" in node)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise JobError(
            f"{path} is damaged: its glTF header cannot be read ({type(error).__name__}: {error})"
        ) from error


def _triangles(primitive: dict[str, Any], accessors: list[dict[str, Any]]) -> int:
    corners = accessors[primitive.get("indices", primitive["attributes"]["POSITION"])]["count"]
    mode = primitive.get("mode", TRIANGLES)
    if mode == TRIANGLES:
        return corners // 3
    return max(corners - 2, 0) if mode in (STRIP, FAN) else 0


@dataclass
class ImportHooks:
    """What Blender's glTF importer calls while it reads; see its `import_user_extensions`."""

    tracks: dict[str, str] = field(default_factory=dict)  # animation's name in the file: name of its NLA tracks
    hidden: list[str] = field(default_factory=list)  # objects of nodes that are invisible, or in no or another scene
    objects: dict[str, list[str]] = field(default_factory=dict)  # node's name in the file: objects, numbered or cut
    finite: bool = True  # all positions; the importer itself would turn others into 0
    elsewhere: set[int] = field(default_factory=set)  # ids of nodes that are not in the default scene

    def gather_import_gltf_before_hook(self, gltf: Any) -> None:
        shown = _default_scene(gltf.data)
        self.elsewhere = {id(node) for index, node in enumerate(gltf.data.nodes or []) if index not in shown}
        parents = {child: index for index, node in enumerate(gltf.data.nodes or []) for child in node.children or []}
        for skin in gltf.data.skins or []:
            _help_guess_bind_pose(gltf, skin, parents)

    def gather_import_animations(self, animations: list[Any] | None, options: Any, gltf: Any) -> None:
        options.restore_first_anim = False  # leave the object at rest
        names = [animation.name or animation.track_name for animation in animations or []]
        count = Counter(names)
        for animation, name in zip(animations or [], names, strict=True):
            self.tracks[name if count[name] == 1 else animation.track_name] = animation.track_name

    def gather_import_node_after_hook(self, vnode: Any, node: Any, blender_object: Any, gltf: Any) -> None:
        visibility = ((node.extensions if node else None) or {}).get("KHR_node_visibility", {})
        if not visibility.get("visible", True) or id(node) in self.elsewhere:
            self.hidden.append(blender_object.name)
        if node is not None and node.name:
            self.objects.setdefault(node.name, []).append(blender_object.name)

    def gather_import_mesh_before_hook(self, mesh: Any, gltf: Any) -> None:
        import numpy as np
        from io_scene_gltf2.io.imp.gltf2_io_binary import BinaryData

        for primitive in mesh.primitives:
            for attributes in (primitive.attributes, *(primitive.targets or ())):
                accessor = attributes.get("POSITION")
                if accessor is not None:
                    self.finite &= bool(np.isfinite(BinaryData.decode_accessor(gltf, accessor)).all())


def _default_scene(document: Any) -> set[int]:
    """Nodes of the scene that a viewer shows: the default one, else the first; all nodes where there is none."""
    nodes = document.nodes or []
    if not document.scenes:
        return set(range(len(nodes)))
    left, shown = list(document.scenes[document.scene or 0].nodes or []), set()
    while left:
        index = left.pop()
        if index not in shown:
            shown.add(index)
            left.extend(nodes[index].children or [])
    return shown


def _help_guess_bind_pose(gltf: Any, skin: Any, parents: dict[int, int]) -> None:
    """Change a skin such that the bind pose that the importer takes from it is right.

    Otherwise meshes are deformed by about a hundredth of their size where the file does not say on which node the
    joints hang, and torn apart where joints without weights have inverse bind matrices of another scale.
    """
    import numpy as np
    from io_scene_gltf2.io.imp.gltf2_io_binary import BinaryData

    above = {parents.get(joint) for joint in skin.joints} - set(skin.joints) - {None}
    if skin.skeleton is None and len(above) == 1:
        skin.skeleton = above.pop()
    if skin.inverse_bind_matrices is None:
        return
    columns = BinaryData.decode_accessor(gltf, skin.inverse_bind_matrices).reshape(-1, 4, 4).astype(np.float64)
    scales = np.cbrt(np.abs(np.linalg.det(columns[:, :3, :3])))
    if scales.min() > 0:
        columns[:, :, :3] *= (np.median(scales) / scales)[:, None, None]
        gltf.accessor_cache[skin.inverse_bind_matrices] = columns.reshape(-1, 16).tolist()


def import_gltf(path: Path) -> ImportHooks:
    """Read a file into the open scene, at rest, its animations as muted NLA tracks."""
    import bpy
    import io_scene_gltf2

    hooks = ImportHooks()
    io_scene_gltf2.glTF2ImportUserExtension = lambda: hooks
    bpy.ops.import_scene.gltf(
        filepath=str(path),
        disable_bone_shape=True,  # otherwise an icosphere is added, to show bones as
        bone_heuristic="TEMPERANCE",  # the default moves objects that hang from bones by the length of the bone
    )
    return hooks
