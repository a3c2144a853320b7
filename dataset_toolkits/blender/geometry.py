"""The triangles that the scene shows, in world coordinates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import bpy
import numpy as np
from numpy.typing import NDArray

SURFACES = ("MESH", "CURVE", "SURFACE", "FONT", "META")


@dataclass(frozen=True)
class Topology:
    """How the vertices are joined; fixed over a clip unless the file is unusual."""

    corners: NDArray[np.int32]  # [C] vertex of every corner of every face
    sizes: NDArray[np.int32]  # [P] corners of every face
    vertices: int

    def equals(self, other: Topology) -> bool:
        return (
            self.vertices == other.vertices
            and np.array_equal(self.sizes, other.sizes)
            and np.array_equal(self.corners, other.corners)
        )


def topology() -> Topology:
    """Of all that is visible now."""
    corners, sizes, offset = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)], 0
    for shown in _visible():
        corners.append(_get(shown.mesh.loops, "vertex_index", np.int32) + offset)
        sizes.append(_get(shown.mesh.polygons, "loop_total", np.int32))
        offset += len(shown.mesh.vertices)
    return Topology(np.concatenate(corners), np.concatenate(sizes), offset)


def triangles() -> NDArray[np.int32]:
    """[F, 3] of all that is visible now."""
    parts, offset = [np.zeros((0, 3), np.int32)], 0
    for shown in _visible():
        shown.mesh.calc_loop_triangles()
        parts.append(_get(shown.mesh.loop_triangles, "vertices", np.int32, 3) + offset)
        offset += len(shown.mesh.vertices)
    return np.concatenate(parts)


def vertices() -> NDArray[np.float64]:
    """World positions [V, 3] of all that is visible now."""
    parts = [np.zeros((0, 3))]
    for shown in _visible():
        points = _get(shown.mesh.vertices, "co", np.float32, 3).astype(np.float64)
        parts.append(points @ shown.matrix[:3, :3].T + shown.matrix[:3, 3])
    return np.concatenate(parts)


def count_triangles() -> int:
    """Triangles of all that is visible now, without making them."""
    return sum(len(shown.mesh.loops) - 2 * len(shown.mesh.polygons) for shown in _visible())


@dataclass(frozen=True)
class _Shown:
    mesh: Any
    matrix: NDArray[np.float64]  # [4, 4] to the world


def _visible() -> Iterator[_Shown]:
    """Meshes with faces, after modifiers, in the order of the dependency graph."""
    for instance in bpy.context.evaluated_depsgraph_get().object_instances:
        if instance.object.type in SURFACES and instance.show_self:
            matrix = np.array(instance.matrix_world, np.float64)
            with _mesh_of(instance.object) as mesh:
                if mesh is not None and len(mesh.polygons):
                    yield _Shown(mesh, matrix)


@contextmanager
def _mesh_of(item: Any) -> Iterator[Any]:
    mesh = item.to_mesh()
    try:
        yield mesh
    finally:
        item.to_mesh_clear()


def _get(collection: Any, attribute: str, dtype: Any, width: int = 1) -> NDArray[Any]:
    values = np.empty(len(collection) * width, dtype)
    collection.foreach_get(attribute, values)
    return values.reshape(-1, width) if width > 1 else values
