"""The node hierarchy of a glTF file: where every node stands at any time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dataset_toolkits.animation import FloatArray
from dataset_toolkits.gltf import GltfDocument, GltfError, JsonObject

AnimatedValues = dict[tuple[int, str], FloatArray]  # (node, path) -> [T, D]


@dataclass(frozen=True)
class NodeTree:
    """All nodes of a file; `shown` are those of its scene, `order` has every node after its parent."""

    nodes: tuple[JsonObject, ...]
    parents: tuple[int, ...]  # -1 for a root
    order: tuple[int, ...]
    shown: tuple[int, ...]

    def world_matrices(self, values: AnimatedValues, num_times: int) -> dict[int, FloatArray]:
        """World transform [T, 4, 4] of every node; what `values` does not animate is at rest."""
        world: dict[int, FloatArray] = {}
        for index in self.order:
            local = _local_matrices(index, self.nodes[index], values, num_times)
            parent = self.parents[index]
            world[index] = local if parent < 0 else world[parent] @ local
        return world

    def with_descendants(self, names: set[str]) -> set[int]:
        """Nodes called one of `names` and everything below them."""
        found: set[int] = set()
        for index in self.order:
            if self.nodes[index].get("name") in names or self.parents[index] in found:
                found.add(index)
        return found


def read_nodes(document: GltfDocument) -> NodeTree:
    """The nodes of a file.

    Raises:
        GltfError: the nodes form a loop.
    """
    nodes = document.items("nodes")
    parents = [-1] * len(nodes)
    for index, node in enumerate(nodes):
        for child in node.get("children", []):
            parents[child] = index
    roots = [index for index, parent in enumerate(parents) if parent < 0]
    order = _below(nodes, roots)
    if len(order) != len(nodes):
        raise GltfError("the nodes of the file form a loop; the file is damaged")
    scenes = document.items("scenes")
    shown = scenes[document.json.get("scene", 0)].get("nodes", []) if scenes else roots
    return NodeTree(tuple(nodes), tuple(parents), order, _below(nodes, shown))


def _below(nodes: list[JsonObject], roots: list[int]) -> tuple[int, ...]:
    order = list(roots)
    for index in order:  # grows while it is read
        order.extend(nodes[index].get("children", []))
    return tuple(order)


def _local_matrices(index: int, node: JsonObject, values: AnimatedValues, num_times: int) -> FloatArray:
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
    """[T, 3, 3] of unit quaternions (x, y, z, w) [T, 4]."""
    x, y, z, w = np.moveaxis(quaternions, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)
