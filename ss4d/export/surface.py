"""The surface of Gaussians: their density on a grid, marching cubes, and fewer triangles (not in the paper)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from ss4d.compiled import njit
from ss4d.export.axes import require_finite
from ss4d.gaussians import Gaussians

Array = NDArray[Any]

LEVEL = 0.5  # of the summed opacity, where the surface lies
REACH = 3.0  # standard deviations at which a Gaussian ends
GAP = 2  # cells of a gap in the shell that is closed before the inside is filled
PART_MIN = 0.01  # of the largest part's volume; smaller ones are floaters


@dataclass
class Mesh:
    """A closed surface with smooth normals."""

    vertices: Array  # float32 [V, 3], world units
    faces: Array  # int64 [F, 3], counter-clockwise seen from outside
    normals: Array  # float32 [V, 3], unit length
    colours: Array  # float32 [V, 3], sRGB in [0, 1]


def extract_surface(gaussians: Gaussians, faces: int = 20_000, grid: int = 160) -> Mesh:
    """The outer surface of Gaussians.

    Released models leave objects hollow: the inside is filled, so that there is no second surface within.

    Args:
        gaussians: M Gaussians; without any dense part the mesh is empty.
        faces: triangles at most, about.
        grid: cells along the longest side of the box around the centres; fewer where Gaussians reach so far beyond it
            that their box would have more than twice as many.
    """
    import fast_simplification
    from skimage.measure import marching_cubes

    field = density(gaussians, grid)
    solid = fill(field.density)
    if not solid.any():
        empty = np.zeros((0, 3), np.float32)
        return Mesh(empty, np.zeros((0, 3), np.int64), empty, empty)
    vertices, triangles, _, _ = marching_cubes(solid, LEVEL, gradient_direction="ascent")
    if len(triangles) > faces:
        vertices, triangles = fast_simplification.simplify(
            vertices.astype(np.float32), triangles.astype(np.int32), target_count=faces
        )
    colours = sample_colours(field, vertices)
    world = (field.origin + vertices * field.cell).astype(np.float32)
    return Mesh(world, triangles.astype(np.int64), vertex_normals(world, triangles), colours)


@dataclass
class Field:
    """Values at the points `origin + index * cell`."""

    density: Array  # float32 [X, Y, Z], summed opacity
    colour: Array  # float32 [X, Y, Z, 3], sRGB times density
    origin: Array  # [3]
    cell: float


def density(gaussians: Gaussians, grid: int) -> Field:
    """The sum of opacity * exp(-d^T Sigma^-1 d / 2), Sigma widened by half a cell so that no Gaussian slips through."""
    g = require_finite(gaussians.detach().to("cpu"))
    xyz, scale = g.xyz.double().numpy(), g.scale.double().numpy()
    if not len(g):
        return Field(np.zeros((2, 2, 2), np.float32), np.zeros((2, 2, 2, 3), np.float32), np.zeros(3), 1.0)
    low, high = xyz.min(0), xyz.max(0)
    extent = max(float((high - low).max()), 1e-6)
    cell = max(extent, (extent + 2 * REACH * float(scale.max())) / 2) / grid
    spread = np.sqrt(scale**2 + (cell / 2) ** 2)
    margin = REACH * float(spread.max()) + 2 * cell  # the surface is closed within the grid
    origin = low - margin
    shape = np.ceil((high - low + 2 * margin) / cell).astype(int) + 1
    axes = Rotation.from_quat(g.rotation.double().numpy()[:, [1, 2, 3, 0]]).as_matrix()  # scipy's are (x, y, z, w)
    inverse = np.einsum("nij,nj,nkj->nik", axes, (cell / spread) ** 2, axes)  # per cell
    reach = REACH * np.sqrt(np.einsum("nij,nj->ni", axes**2, (spread / cell) ** 2))
    result = Field(np.zeros(shape, np.float32), np.zeros((*shape, 3), np.float32), origin, cell)
    colour = g.rgb.clamp(0, 1).double().numpy()
    splat(
        result.density, result.colour, (xyz - origin) / cell, inverse, reach, g.opacity[:, 0].double().numpy(), colour
    )
    return result


@njit(cache=True)
def splat(
    density: Array, colour: Array, centre: Array, inverse: Array, reach: Array, opacity: Array, rgb: Array
) -> None:
    """Add Gaussians to the two grids; everything is in cells."""
    for n in range(len(centre)):
        low = np.ceil(centre[n] - reach[n]).astype(np.int64)
        high = np.floor(centre[n] + reach[n]).astype(np.int64)
        m = inverse[n]
        for i in range(low[0], high[0] + 1):
            x = i - centre[n, 0]
            for j in range(low[1], high[1] + 1):
                y = j - centre[n, 1]
                for k in range(low[2], high[2] + 1):
                    z = k - centre[n, 2]
                    square = m[0, 0] * x * x + m[1, 1] * y * y + m[2, 2] * z * z
                    square += 2 * (m[0, 1] * x * y + m[0, 2] * x * z + m[1, 2] * y * z)
                    if square < REACH * REACH:
                        value = opacity[n] * np.exp(-square / 2)
                        density[i, j, k] += value
                        for c in range(3):
                            colour[i, j, k, c] += value * rgb[n, c]


def fill(field: Array) -> Array:
    """The density with its floaters removed and its inside at least twice the level."""
    dense = field > LEVEL
    if not dense.any():
        return np.zeros_like(field)
    parts, count = ndimage.label(dense)
    volumes = np.bincount(parts.ravel(), minlength=count + 1)
    volumes[0] = 0
    keep = volumes >= PART_MIN * volumes.max()
    dense = keep[parts]
    closed = ndimage.binary_closing(np.pad(dense, GAP + 1), iterations=GAP)
    inside = ndimage.binary_erosion(ndimage.binary_fill_holes(closed), iterations=GAP)[(slice(GAP + 1, -GAP - 1),) * 3]
    outside = np.minimum(field, np.float32(0.99 * LEVEL))  # of floaters the part below the level stays
    return np.where(inside, np.maximum(field, np.float32(2 * LEVEL)), np.where(dense, field, outside))


def sample_colours(field: Field, points: Array) -> Array:
    """sRGB [N, 3] at points in cells, weighted by density."""
    total = ndimage.map_coordinates(field.density, points.T, order=1)
    channels = [ndimage.map_coordinates(field.colour[..., c], points.T, order=1) for c in range(3)]
    return (np.stack(channels, axis=1) / np.maximum(total, 1e-6)[:, None]).clip(0, 1).astype(np.float32)


def vertex_normals(vertices: Array, faces: Array) -> Array:
    """Unit normals [V, 3], the mean of the faces' weighted by their areas."""
    a, b, c = (vertices[faces[:, k]].astype(np.float64) for k in range(3))
    across = np.cross(b - a, c - a)
    normals = np.zeros((len(vertices), 3))
    for k in range(3):
        np.add.at(normals, faces[:, k], across)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.where(length > 0, normals / np.where(length > 0, length, 1), [0.0, 0.0, 1.0]).astype(np.float32)
