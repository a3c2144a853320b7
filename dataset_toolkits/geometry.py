"""The parts of a glTF object that do not depend on time: vertices at rest, triangles, skins, colours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dataset_toolkits.animation import FloatArray
from dataset_toolkits.appearance import Appearance, Texture, read_material, read_texture
from dataset_toolkits.gltf import GltfDocument, JsonObject

_TRIANGLES, _STRIP, _FAN = 4, 5, 6


@dataclass(frozen=True)
class Primitive:
    """One part of a mesh, as the node `node` shows it; its vertices are posed together."""

    node: int
    positions: FloatArray  # [V, 3] at rest
    morph_deltas: FloatArray  # [targets, V, 3]
    morph_weights: FloatArray  # [targets] at rest
    skin: int | None
    joints: NDArray[np.int64]  # [V, J], indices into the joints of the skin
    weights: FloatArray  # [V, J], rows sum to 1

    def morphed(self, weights: FloatArray | None, num_times: int) -> FloatArray:
        """Positions [T, V, 3] for morph `weights` [T, targets], None for those at rest."""
        if weights is None:
            weights = np.broadcast_to(self.morph_weights, (num_times, len(self.morph_weights)))
        return self.positions + np.einsum("tm,mvd->tvd", weights, self.morph_deltas)


@dataclass(frozen=True)
class Skin:
    """`inverse_bind` [J, 4, 4] takes mesh space to the space of each of the nodes `joints` [J]."""

    joints: tuple[int, ...]
    inverse_bind: FloatArray


class GeometryBuilder:
    """Collects the primitives of the shown nodes into one vertex list and one triangle list."""

    def __init__(self, document: GltfDocument) -> None:
        self.document = document
        self.primitives: list[Primitive] = []
        self.triangles: list[NDArray[np.int64]] = []
        self._colours: list[NDArray[np.float32]] = []
        self._uv: list[NDArray[np.float32]] = []
        self._face_texture: list[NDArray[np.int32]] = []
        self._cutoff: list[NDArray[np.float32]] = []
        self._textures: dict[int, Texture] = {}
        self._num_vertices = 0

    def add_node(self, index: int, node: JsonObject, mirrored: bool) -> None:
        """Add the mesh of a node; a `mirrored` one has its triangles turned, unless joints place it."""
        mesh = self.document.items("meshes")[node["mesh"]]
        morph_weights = np.asarray(node.get("weights", mesh.get("weights", [])), np.float64)
        for entry in mesh["primitives"]:
            if entry.get("mode", _TRIANGLES) < _TRIANGLES:
                continue  # points and lines have no surface
            primitive = self._read_primitive(index, node.get("skin"), entry, morph_weights)
            triangles = self._read_triangles(entry, len(primitive.positions))
            if mirrored and primitive.skin is None:
                triangles = triangles[:, ::-1]
            self._add_colours(entry, triangles, len(primitive.positions))
            self.primitives.append(primitive)
            self.triangles.append(triangles + self._num_vertices)
            self._num_vertices += len(primitive.positions)

    def appearance(self) -> Appearance:
        return Appearance(
            corner_colours=np.concatenate(self._colours),
            corner_uv=np.concatenate(self._uv),
            face_texture=np.concatenate(self._face_texture),
            alpha_cutoff=np.concatenate(self._cutoff),
            textures=tuple(self._textures.values()),
        )

    def _read_primitive(self, node: int, skin: int | None, entry: JsonObject, morph_weights: FloatArray) -> Primitive:
        positions = self.document.accessor(entry["attributes"]["POSITION"]).astype(np.float64)
        targets = entry.get("targets", [])
        deltas = np.zeros((len(targets), *positions.shape))
        for delta, target in zip(deltas, targets, strict=True):
            if "POSITION" in target:
                delta[:] = self.document.accessor(target["POSITION"])
        if not len(morph_weights):
            morph_weights = np.zeros(len(targets))
        joints, weights = self._influences(entry["attributes"], len(positions))
        return Primitive(node, positions, deltas, morph_weights, skin, joints, weights)

    def _add_colours(self, entry: JsonObject, triangles: NDArray[np.int64], count: int) -> None:
        attributes = entry["attributes"]
        material = read_material(self.document, entry.get("material"))
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
        weights = weights.astype(np.float64)
        weights[~weights.any(axis=1), 0] = 1.0  # bound to nothing: keep it with its first joint
        return joints.astype(np.int64), weights / weights.sum(axis=1, keepdims=True)

    def _read_triangles(self, entry: JsonObject, count: int) -> NDArray[np.int64]:
        indices = self.document.accessor(entry["indices"]).astype(np.int64) if "indices" in entry else np.arange(count)
        mode = entry.get("mode", _TRIANGLES)
        if mode == _STRIP:
            strip = np.stack([indices[:-2], indices[1:-1], indices[2:]], axis=1)
            strip[1::2] = strip[1::2, [1, 0, 2]]  # every other triangle of a strip turns the other way
            return strip
        if mode == _FAN:
            return np.stack([indices[1:-1], indices[2:], np.full(len(indices) - 2, indices[0])], axis=1)
        return indices.reshape(-1, 3)


def read_skin(document: GltfDocument, skin: JsonObject) -> Skin:
    """Joints and inverse bind matrices of a skin; without matrices the mesh is in world space at rest."""
    joints = tuple(skin["joints"])
    if "inverseBindMatrices" in skin:
        inverse_bind = document.accessor(skin["inverseBindMatrices"]).astype(np.float64)
    else:
        inverse_bind = np.broadcast_to(np.eye(4), (len(joints), 4, 4))
    return Skin(joints, inverse_bind)
