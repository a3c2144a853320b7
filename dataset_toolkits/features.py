"""A small deterministic description of the surface inside each voxel.

A learned extractor (DINOv2 features of rendered views) can take its place: one row of channels for each
voxel of a frame.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataset_toolkits.appearance import Appearance, SurfaceColour
from dataset_toolkits.mesh import PosedMesh
from dataset_toolkits.voxelize import SurfaceVoxels

FEATURE_CHANNELS = (
    *("red", "green", "blue"),  # mean base colour of the surface, sRGB in [0, 1]
    *("normal_x", "normal_y", "normal_z"),  # mean unit normal in the world; short where the surface turns
    *("offset_x", "offset_y", "offset_z"),  # mean surface point minus voxel centre, in voxels, [-0.5, 0.5]
    *("red_spread", "green_spread", "blue_spread"),  # standard deviation of the colour
)
POINTS_PER_VOXEL_FACE = 32


class SurfacePoints(NamedTuple):
    """Points fixed to the surface, the same for all frames so that features do not flicker.

    `faces` [S] and `barycentric` [S, 3] say where; `area` [S] is the area of the face when they were drawn.
    """

    faces: NDArray[np.int64]
    barycentric: NDArray[np.float32]
    area: NDArray[np.float32]
    colour: SurfaceColour


class VoxelFeatures(NamedTuple):
    """`coords` [N, 3] int16 of the voxels with a visible surface and `feats` [N, F] float32."""

    coords: NDArray[np.int16]
    feats: NDArray[np.float32]


def sample_surface(areas: NDArray[np.float32], appearance: Appearance, resolution: int) -> SurfacePoints:
    """Draw points by area: `POINTS_PER_VOXEL_FACE` for each area of a voxel's face.

    `areas` [F] are those of the triangles, averaged over the frames of the clip.
    """
    generator = np.random.default_rng(0)
    cumulative = np.cumsum(areas, dtype=np.float64)
    count = int(np.ceil(cumulative[-1] * resolution**2 * POINTS_PER_VOXEL_FACE))
    # One point in each of `count` equal slices of the area: evenly spread, no clumps.
    position = (np.arange(count) + generator.random(count)) / count * cumulative[-1]
    faces = np.minimum(np.searchsorted(cumulative, position, side="right"), len(areas) - 1)
    root, along = np.sqrt(generator.random(count)), generator.random(count)
    barycentric = np.stack([1 - root, root * (1 - along), root * along], axis=1)
    barycentric = barycentric.astype(np.float32)
    return SurfacePoints(faces, barycentric, areas[faces], appearance.lookup(faces, barycentric))


def extract_features(mesh: PosedMesh, voxels: SurfaceVoxels, points: SurfacePoints, resolution: int) -> VoxelFeatures:
    """Describe the surface of `mesh` inside each of `voxels`; channels as in `FEATURE_CHANNELS`.

    A voxel no sample fell into is described by the point nearest to its centre of a triangle overlapping it.
    Voxels that hold only cut-out surface are left out.
    """
    positions = np.einsum("nc,ncd->nd", points.barycentric, mesh.corners[points.faces])
    # The points were drawn for the mean pose: a triangle that has grown since counts for more.
    weights = mesh.areas[points.faces] / np.maximum(points.area, 1e-20)
    rows = _rows_of_points(positions, voxels.coords, resolution)
    sums = _Sums(len(voxels.coords))
    sums.add(rows, weights, positions, mesh.face_normals[points.faces], points.colour)

    empty = np.flatnonzero(sums.weight == 0)
    faces = voxels.triangles[empty].astype(np.int64)
    centres = (voxels.coords[empty] + 0.5) / resolution - 0.5
    barycentric = closest_barycentric(centres, mesh.corners[faces])
    nearest = np.einsum("nc,ncd->nd", barycentric, mesh.corners[faces])
    colour = mesh.appearance.lookup(faces, barycentric)
    sums.add(empty, np.ones(len(empty)), nearest, mesh.face_normals[faces], colour)

    shown = sums.weight > 0
    return VoxelFeatures(voxels.coords[shown], sums.features(voxels.coords, resolution)[shown])


class _Sums:
    """Weighted sums over the points of each voxel."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.weight = np.zeros(count)
        self._values = np.zeros((count, 12))

    def add(
        self,
        rows: NDArray[np.int64],
        weights: NDArray[np.floating],
        positions: NDArray[np.floating],
        normals: NDArray[np.floating],
        colour: SurfaceColour,
    ) -> None:
        """Add points to the voxels `rows`, -1 for none; cut-out ones are passed over."""
        keep = (rows >= 0) & colour.visible & (weights > 0)
        rows, weights, rgb = rows[keep], weights[keep], colour.rgb[keep]
        values = np.concatenate([rgb, normals[keep], positions[keep], rgb**2], axis=1, dtype=np.float64)
        self.weight += np.bincount(rows, weights, self.count)
        for channel in range(values.shape[1]):
            self._values[:, channel] += np.bincount(rows, weights * values[:, channel], self.count)

    def features(self, coords: NDArray[np.int16], resolution: int) -> NDArray[np.float32]:
        mean = self._values / np.maximum(self.weight, 1e-20)[:, None]
        rgb, normal, position, squared = np.split(mean, 4, axis=1)
        offset = np.clip((position + 0.5) * resolution - coords - 0.5, -0.5, 0.5)
        spread = np.sqrt(np.maximum(squared - rgb**2, 0.0))
        return np.concatenate([rgb, normal, offset, spread], axis=1).astype(np.float32)


def _rows_of_points(positions: NDArray[np.floating], coords: NDArray[np.int16], resolution: int) -> NDArray[np.int64]:
    """Row of `coords` that each point falls into, -1 for none."""
    rows = np.full((resolution,) * 3, -1, np.int64)
    rows[tuple(coords.T.astype(np.int64))] = np.arange(len(coords))
    cells = np.floor((positions + 0.5) * resolution).astype(np.int64)
    inside = ((cells >= 0) & (cells < resolution)).all(axis=1)
    return np.where(inside, rows[tuple(np.clip(cells, 0, resolution - 1).T)], -1)


def closest_barycentric(points: NDArray[np.floating], corners: NDArray[np.floating]) -> NDArray[np.float32]:
    """Weights [N, 3] of the point of each triangle `corners` [N, 3, 3] nearest to `points` [N, 3]."""
    best = np.full(len(points), np.inf)
    weights = np.zeros((len(points), 3))

    def offer(candidate: NDArray[np.floating], allowed: NDArray[np.bool_]) -> None:
        distance = ((np.einsum("nc,ncd->nd", candidate, corners) - points) ** 2).sum(1)
        better = allowed & (distance < best)
        best[better], weights[better] = distance[better], candidate[better]

    for first, second in ((0, 1), (1, 2), (2, 0)):  # nearest point of each edge
        edge = corners[:, second] - corners[:, first]
        length = np.maximum((edge**2).sum(1), 1e-20)
        along = np.clip(((points - corners[:, first]) * edge).sum(1) / length, 0, 1)
        candidate = np.zeros((len(points), 3))
        candidate[:, first], candidate[:, second] = 1 - along, along
        offer(candidate, np.ones(len(points), bool))

    u, v, w = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0], points - corners[:, 0]
    uu, uv, vv = (u * u).sum(1), (u * v).sum(1), (v * v).sum(1)
    wu, wv = (w * u).sum(1), (w * v).sum(1)
    determinant = uu * vv - uv**2
    safe = np.where(determinant > 1e-20, determinant, 1.0)
    s, t = (vv * wu - uv * wv) / safe, (uu * wv - uv * wu) / safe
    inside = (determinant > 1e-20) & (s >= 0) & (t >= 0) & (s + t <= 1)
    offer(np.stack([1 - s - t, s, t], axis=1), inside)
    return weights.astype(np.float32)
