"""The object at one moment: triangles with positions, normals and colours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from dataset_toolkits.appearance import Appearance


@dataclass(frozen=True)
class PosedMesh:
    """`vertices` [V, 3] in the z-up world, `triangles` [F, 3], and the colours of the triangles."""

    vertices: NDArray[np.float32]
    triangles: NDArray[np.int64]
    appearance: Appearance

    @cached_property
    def corners(self) -> NDArray[np.float32]:
        """[F, 3, 3] positions of the corners of every triangle."""
        return self.vertices[self.triangles]

    @cached_property
    def area_vectors(self) -> NDArray[np.float32]:
        """[F, 3] normals of the triangles, as long as their area."""
        first, second, third = self.corners[:, 0], self.corners[:, 1], self.corners[:, 2]
        return (0.5 * np.cross(second - first, third - first)).astype(np.float32)

    @cached_property
    def areas(self) -> NDArray[np.float32]:
        """[F] areas of the triangles."""
        return np.linalg.norm(self.area_vectors, axis=1)

    @cached_property
    def face_normals(self) -> NDArray[np.float32]:
        """[F, 3] unit normals; zero for a triangle without area."""
        return _unit(self.area_vectors)

    @cached_property
    def vertex_normals(self) -> NDArray[np.float32]:
        """[V, 3] unit normals, the area-weighted mean over the triangles of a vertex.

        Files split vertices at hard edges, so those stay hard.
        """
        corner_vertex = self.triangles.ravel()
        weights = np.repeat(self.area_vectors, 3, axis=0)
        sums = [np.bincount(corner_vertex, weights[:, axis], len(self.vertices)) for axis in range(3)]
        return _unit(np.stack(sums, axis=1)).astype(np.float32)


def _unit(vectors: NDArray[np.floating]) -> NDArray[np.floating]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-20)
