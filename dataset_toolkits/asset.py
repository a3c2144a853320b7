"""An animated glTF object: fixed triangles and colours, vertices at any time of any of its clips.

Positions come out in the z-up world: glTF is y-up with the front on +z, and (x, y, z) -> (x, -z, y) puts the
front on -y, where the camera of azimuth 0 stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataset_toolkits.animation import Clip, FloatArray, read_clips
from dataset_toolkits.appearance import Appearance, Texture, read_material, read_texture
from dataset_toolkits.gltf import GltfDocument, GltfError, JsonObject, read_glb

Y_UP_TO_Z_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
_TRIANGLES, _STRIP, _FAN = 4, 5, 6


@dataclass(frozen=True)
class Primitive:
    """One part of a mesh, as the node `node` shows it; its vertices are posed together."""

    node: int
    positions: FloatArray  # [V, 3] at rest
    morph_deltas: FloatArray  # [targets, V, 3]
    skin: int | None
    joints: NDArray[np.int64]  # [V, J], indices into the joints of the skin
    weights: FloatArray  # [V, J], rows sum to 1


@dataclass(frozen=True)
class Skin:
    """`inverse_bind` [J, 4, 4] takes mesh space to the space of each of the nodes `joints` [J]."""

    joints: tuple[int, ...]
    inverse_bind: FloatArray


@dataclass(frozen=True)
class AnimatedAsset:
    """Geometry, colours and clips of one file; `pose` is the only thing that depends on time."""

    nodes: tuple[JsonObject, ...]
    parents: tuple[int, ...]  # -1 for a root
    order: tuple[int, ...]  # every shown node after its parent
    primitives: tuple[Primitive, ...]
    skins: tuple[Skin, ...]
    default_weights: dict[int, FloatArray]  # morph weights of a node at rest
    clips: dict[str, Clip]
    triangles: NDArray[np.int64]  # [F, 3]
    appearance: Appearance

    def pose(self, clip: Clip | None, times: FloatArray) -> NDArray[np.float32]:
        """Vertices [T, V, 3] in the z-up world, in the units of the file, at `times` [T] seconds of `clip`.

        Without a clip the object is at rest.
        """
        animated = {(channel.node, channel.path): channel for channel in clip.channels} if clip else {}
        values = {key: channel.sample(times) for key, channel in animated.items()}
        world = self._world_matrices(values, len(times))
        posed = []
        for primitive in self.primitives:
            points = np.broadcast_to(primitive.positions, (len(times), *primitive.positions.shape))
            if len(primitive.morph_deltas):
                weights = values.get((primitive.node, "weights"))
                if weights is None:
                    weights = np.broadcast_to(
                        self.default_weights[primitive.node], (len(times), len(primitive.morph_deltas))
                    )
                points = points + np.einsum("tm,mvd->tvd", weights, primitive.morph_deltas)
            posed.append(self._place(primitive, points, world))
        vertices = np.concatenate(posed, axis=1) @ Y_UP_TO_Z_UP.T
        return vertices.astype(np.float32)

    def _place(self, primitive: Primitive, points: FloatArray, world: dict[int, FloatArray]) -> FloatArray:
        if primitive.skin is None:
            return _transform(world[primitive.node], points)
        # A skinned mesh follows its joints alone; the transform of its own node is ignored (section 3.7.3.3).
        skin = self.skins[primitive.skin]
        joint_matrices = np.stack([world[joint] for joint in skin.joints], axis=1) @ skin.inverse_bind
        result = np.zeros(points.shape)
        for slot in range(primitive.joints.shape[1]):
            weight = primitive.weights[:, slot]
            used = np.flatnonzero(weight)
            if len(used):
                matrices = joint_matrices[:, primitive.joints[used, slot]]
                moved = np.einsum("tvij,tvj->tvi", matrices[..., :3, :3], points[:, used])
                result[:, used] += weight[used, None] * (moved + matrices[..., :3, 3])
        return result

    def _world_matrices(
        self, values: dict[tuple[int, str], FloatArray], num_times: int
    ) -> dict[int, FloatArray]:
        world: dict[int, FloatArray] = {}
        for index in self.order:
            local = _local_matrices(index, self.nodes[index], values, num_times)
            parent = self.parents[index]
            world[index] = local if parent < 0 else world[parent] @ local
        return world


def load_asset(path: Path, hide_nodes: Sequence[str] = ()) -> AnimatedAsset:
    """Read an animated GLB, leaving out the meshes of nodes named in `hide_nodes` and of their children.

    Raises:
        GltfError: the file is damaged, needs an unsupported extension, or shows no triangles.
    """
    document = read_glb(path)
    nodes = document.items("nodes")
    parents = _parents(nodes)
    order = tuple(_walk(document, nodes))
    hidden: set[int] = set()
    for index in order:
        if nodes[index].get("name") in hide_nodes or parents[index] in hidden:
            hidden.add(index)
    builder = _GeometryBuilder(document)
    for index in order:
        if "mesh" in nodes[index] and index not in hidden:
            builder.add_node(index, nodes[index])
    if not builder.primitives:
        raise GltfError(f"{path} shows no triangles; check the nodes to hide")
    return AnimatedAsset(
        nodes=tuple(nodes),
        parents=parents,
        order=order,
        primitives=tuple(builder.primitives),
        skins=tuple(_read_skin(document, skin) for skin in document.items("skins")),
        default_weights=builder.default_weights,
        clips=read_clips(document),
        triangles=np.concatenate(builder.triangles),
        appearance=builder.appearance(),
    )


class _GeometryBuilder:
    """Collects the primitives of the shown nodes into one vertex list and one triangle list."""

    def __init__(self, document: GltfDocument) -> None:
        self.document = document
        self.primitives: list[Primitive] = []
        self.triangles: list[NDArray[np.int64]] = []
        self.default_weights: dict[int, FloatArray] = {}
        self._colours: list[NDArray[np.float32]] = []
        self._uv: list[NDArray[np.float32]] = []
        self._face_texture: list[NDArray[np.int32]] = []
        self._cutoff: list[NDArray[np.float32]] = []
        self._textures: dict[int, Texture] = {}
        self._num_vertices = 0

    def add_node(self, index: int, node: JsonObject) -> None:
        mesh = self.document.items("meshes")[node["mesh"]]
        for primitive in mesh["primitives"]:
            if primitive.get("mode", _TRIANGLES) < _TRIANGLES:
                continue  # points and lines have no surface
            targets = primitive.get("targets", [])
            rest = node.get("weights", mesh.get("weights", [0.0] * len(targets)))
            self.default_weights[index] = np.asarray(rest, np.float64)
            self._add_primitive(index, node.get("skin"), primitive)

    def appearance(self) -> Appearance:
        return Appearance(
            corner_colours=np.concatenate(self._colours),
            corner_uv=np.concatenate(self._uv),
            face_texture=np.concatenate(self._face_texture),
            alpha_cutoff=np.concatenate(self._cutoff),
            textures=tuple(self._textures.values()),
        )

    def _add_primitive(self, node: int, skin: int | None, primitive: JsonObject) -> None:
        attributes = primitive["attributes"]
        positions = self.document.accessor(attributes["POSITION"]).astype(np.float64)
        deltas = [
            self.document.accessor(target["POSITION"]) if "POSITION" in target else np.zeros(positions.shape)
            for target in primitive.get("targets", [])
        ]
        joints, weights = self._influences(attributes, len(positions))
        morph = np.stack(deltas).astype(np.float64) if deltas else np.zeros((0, *positions.shape))
        self.primitives.append(Primitive(node, positions, morph, skin, joints, weights))
        triangles = self._read_triangles(primitive, len(positions))
        self.triangles.append(triangles + self._num_vertices)
        self._num_vertices += len(positions)
        self._add_colours(primitive, attributes, triangles, len(positions))

    def _add_colours(
        self, primitive: JsonObject, attributes: dict[str, int], triangles: NDArray[np.int64], count: int
    ) -> None:
        material = read_material(self.document, primitive.get("material"))
        colours = np.ones((count, 4), np.float32)
        if "COLOR_0" in attributes:
            stored = self.document.accessor(attributes["COLOR_0"])
            colours[:, : stored.shape[1]] = stored
        uv = np.zeros((count, 2), np.float32)
        texture = -1
        if material.texture >= 0 and f"TEXCOORD_{material.uv_set}" in attributes:
            stored = self.document.accessor(attributes[f"TEXCOORD_{material.uv_set}"]).astype(np.float32)
            uv = stored @ material.uv_matrix[:, :2].T + material.uv_matrix[:, 2]
            if material.texture not in self._textures:
                self._textures[material.texture] = read_texture(self.document, material.texture)
            texture = list(self._textures).index(material.texture)
        self._colours.append((colours * material.factor)[triangles])
        self._uv.append(uv[triangles])
        self._face_texture.append(np.full(len(triangles), texture, np.int32))
        self._cutoff.append(np.full(len(triangles), material.alpha_cutoff, np.float32))

    def _influences(self, attributes: dict[str, int], count: int) -> tuple[NDArray[np.int64], FloatArray]:
        sets = [name[len("JOINTS_") :] for name in sorted(attributes) if name.startswith("JOINTS_")]
        if not sets:
            return np.zeros((count, 0), np.int64), np.zeros((count, 0))
        joints = np.concatenate([self.document.accessor(attributes[f"JOINTS_{s}"]) for s in sets], axis=1)
        weights = np.concatenate([self.document.accessor(attributes[f"WEIGHTS_{s}"]) for s in sets], axis=1)
        total = weights.sum(axis=1, keepdims=True, dtype=np.float64)
        return joints.astype(np.int64), weights / np.where(total > 0, total, 1.0)

    def _read_triangles(self, primitive: JsonObject, count: int) -> NDArray[np.int64]:
        if "indices" in primitive:
            indices = self.document.accessor(primitive["indices"]).astype(np.int64)
        else:
            indices = np.arange(count)
        mode = primitive.get("mode", _TRIANGLES)
        if mode == _STRIP:
            strip = np.stack([indices[:-2], indices[1:-1], indices[2:]], axis=1)
            strip[1::2] = strip[1::2, [1, 0, 2]]  # every other triangle of a strip turns the other way
            return strip
        if mode == _FAN:
            return np.stack([indices[1:-1], indices[2:], np.full(len(indices) - 2, indices[0])], axis=1)
        return indices.reshape(-1, 3)


def _read_skin(document: GltfDocument, skin: JsonObject) -> Skin:
    joints = tuple(skin["joints"])
    if "inverseBindMatrices" in skin:
        inverse_bind = document.accessor(skin["inverseBindMatrices"]).astype(np.float64)
    else:
        inverse_bind = np.broadcast_to(np.eye(4), (len(joints), 4, 4))
    return Skin(joints, inverse_bind)


def _parents(nodes: list[JsonObject]) -> tuple[int, ...]:
    parents = [-1] * len(nodes)
    for index, node in enumerate(nodes):
        for child in node.get("children", []):
            parents[child] = index
    return tuple(parents)


def _walk(document: GltfDocument, nodes: list[JsonObject]) -> Iterator[int]:
    scenes = document.items("scenes")
    if scenes:
        pending = list(reversed(scenes[document.json.get("scene", 0)].get("nodes", [])))
    else:
        pending = [index for index, parent in enumerate(_parents(nodes)) if parent < 0]
    while pending:
        index = pending.pop()
        yield index
        pending.extend(reversed(nodes[index].get("children", [])))


def _local_matrices(
    index: int, node: JsonObject, values: dict[tuple[int, str], FloatArray], num_times: int
) -> FloatArray:
    if "matrix" in node:
        return np.broadcast_to(np.reshape(node["matrix"], (4, 4)).T.astype(np.float64), (num_times, 4, 4))
    parts = []
    for path, default in (("translation", (0, 0, 0)), ("rotation", (0, 0, 0, 1)), ("scale", (1, 1, 1))):
        rest = np.asarray(node.get(path, default), np.float64)
        parts.append(values.get((index, path), np.broadcast_to(rest, (num_times, len(rest)))))
    translation, rotation, scale = parts
    matrices = np.zeros((num_times, 4, 4))
    matrices[:, :3, :3] = _rotation_matrices(rotation) * scale[:, None, :]
    matrices[:, :3, 3] = translation
    matrices[:, 3, 3] = 1.0
    return matrices


def _rotation_matrices(quaternions: FloatArray) -> FloatArray:
    x, y, z, w = np.moveaxis(quaternions, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def _transform(matrices: FloatArray, points: FloatArray) -> FloatArray:
    return points @ matrices[:, :3, :3].swapaxes(-1, -2) + matrices[:, None, :3, 3]
