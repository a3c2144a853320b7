"""RGBA and depth views of a posed mesh, by casting rays with Embree.

Shading is fixed to the world, so a surface point has the same colour from everywhere:
colour = base colour x (0.6 + 0.4 max(0, n . l)), on sRGB-encoded values.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import NDArray

from dataset_toolkits.mesh import PosedMesh

AMBIENT, DIFFUSE = 0.6, 0.4
LIGHT_DIRECTION = np.array([-0.4, -0.6, 0.7]) / np.linalg.norm([-0.4, -0.6, 0.7])  # towards the light
_MAX_CUTOUT_LAYERS = 16


class RenderedViews(NamedTuple):
    """`rgba` [V, S, S, 4] uint8, colour not premultiplied and 0 where alpha is 0; `depth` [V, S, S] float32,
    distance along the optical axis in world units, infinite where nothing was hit."""

    rgba: NDArray[np.uint8]
    depth: NDArray[np.float32]


class PixelBox(NamedTuple):
    """Pixels `left <= x <= right`, `top <= y <= bottom`."""

    left: int
    top: int
    right: int
    bottom: int


def render_views(
    mesh: PosedMesh,
    extrinsics: NDArray[np.floating],
    intrinsics: NDArray[np.floating],
    size: int,
    supersampling: int = 2,
) -> RenderedViews:
    """Render `mesh` from V cameras: `extrinsics` [V, 4, 4] world to camera (OpenCV), `intrinsics` [V, 3, 3]
    normalised by image size; `supersampling`^2 rays a pixel."""
    scene = EmbreeScene()
    # The scene keeps no reference to its geometry, `geometry` must outlive the rays.
    geometry = TriangleMesh(scene, mesh.vertices.astype(np.float32), mesh.triangles.astype(np.int32))
    views = [
        _render_view(scene, mesh, extrinsic, intrinsic, size, supersampling)
        for extrinsic, intrinsic in zip(extrinsics, intrinsics, strict=True)
    ]
    del geometry
    return RenderedViews(np.stack([rgba for rgba, _ in views]), np.stack([depth for _, depth in views]))


def project(
    points: NDArray[np.floating], extrinsics: NDArray[np.floating], intrinsics: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Image positions (u, v) in [0, 1] and depth of `points` [..., 3] in one camera: [..., 3]."""
    camera = points @ extrinsics[:3, :3].T + extrinsics[:3, 3]
    image = camera @ intrinsics.T
    return np.concatenate([image[..., :2] / image[..., 2:], camera[..., 2:]], axis=-1)


def covered_box(uv: NDArray[np.floating], size: int) -> PixelBox:
    """Pixels of a `size` x `size` image that points at `uv` [..., >=2] in [0, 1] fall into, clipped to it."""
    flat = uv.reshape(-1, uv.shape[-1])[:, :2]
    low = np.clip(np.floor(flat.min(axis=0) * size).astype(int), 0, size - 1)
    high = np.clip(np.ceil(flat.max(axis=0) * size).astype(int) - 1, 0, size - 1)
    return PixelBox(int(low[0]), int(low[1]), int(high[0]), int(high[1]))


def _render_view(
    scene: EmbreeScene,
    mesh: PosedMesh,
    extrinsics: NDArray[np.floating],
    intrinsics: NDArray[np.floating],
    size: int,
    supersampling: int,
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    rgba = np.zeros((size, size, 4), np.uint8)
    depth = np.full((size, size), np.inf, np.float32)
    box = covered_box(project(mesh.vertices, extrinsics, intrinsics), size)
    columns = _sample_positions(box.left, box.right, size, supersampling)
    rows = _sample_positions(box.top, box.bottom, size, supersampling)
    v, u = np.meshgrid(rows, columns, indexing="ij")
    # Directions with depth 1, so that the distance Embree returns is the depth.
    in_camera = np.stack([u, v, np.ones_like(u)], axis=-1).reshape(-1, 3) @ np.linalg.inv(intrinsics).T
    directions = (in_camera @ extrinsics[:3, :3]).astype(np.float32)
    origin = (-extrinsics[:3, :3].T @ extrinsics[:3, 3]).astype(np.float32)
    hits = _trace(scene, mesh, origin, directions)

    shape = (len(rows) // supersampling, supersampling, len(columns) // supersampling, supersampling)
    colours = np.zeros((len(directions), 3), np.float32)
    depths = np.full(len(directions), np.inf, np.float32)
    colours[hits.rays] = _shade(mesh, hits, directions[hits.rays])
    depths[hits.rays] = hits.depth
    covered = np.isfinite(depths).reshape(shape).sum(axis=(1, 3))
    colour = colours.reshape(*shape, 3).sum(axis=(1, 3)) / np.maximum(covered, 1)[..., None]
    window = (slice(box.top, box.bottom + 1), slice(box.left, box.right + 1))
    rgba[window][..., :3] = np.round(colour * 255)
    rgba[window][..., 3] = np.round(covered * (255 / supersampling**2))
    depth[window] = depths.reshape(shape).min(axis=(1, 3))
    return rgba, depth


class _Hits(NamedTuple):
    rays: NDArray[np.int64]  # [N] which ray
    faces: NDArray[np.int64]  # [N]
    barycentric: NDArray[np.float32]  # [N, 3]
    depth: NDArray[np.float32]  # [N]
    rgb: NDArray[np.float32]  # [N, 3] base colour


def _trace(scene: EmbreeScene, mesh: PosedMesh, origin: NDArray[np.float32], directions: NDArray[np.float32]) -> _Hits:
    """First surface along each ray that is not cut out."""
    rays = np.arange(len(directions))
    start = np.zeros(len(directions), np.float32)
    found = []
    for _ in range(_MAX_CUTOUT_LAYERS if mesh.appearance.has_cutouts else 1):
        result = scene.run(origin + start[rays, None] * directions[rays], directions[rays], output=True)
        hit = result["primID"] >= 0
        rays, faces = rays[hit], result["primID"][hit].astype(np.int64)
        u, v = result["u"][hit], result["v"][hit]
        barycentric = np.stack([1 - u - v, u, v], axis=1)
        depth = start[rays] + result["tfar"][hit]
        colour = mesh.appearance.lookup(faces, barycentric)
        keep = colour.visible
        found.append(_Hits(rays[keep], faces[keep], barycentric[keep], depth[keep], colour.rgb[keep]))
        if keep.all():
            break
        rays = rays[~keep]
        start[rays] = depth[~keep] + 1e-5
    return _Hits(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _shade(mesh: PosedMesh, hits: _Hits, directions: NDArray[np.float32]) -> NDArray[np.float32]:
    normals = np.einsum("nc,ncd->nd", hits.barycentric, mesh.vertex_normals[mesh.triangles[hits.faces]])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-20)
    seen_from_behind = (mesh.face_normals[hits.faces] * directions).sum(1) > 0
    facing = (normals @ LIGHT_DIRECTION) * np.where(seen_from_behind, -1, 1)
    return hits.rgb * (AMBIENT + DIFFUSE * np.maximum(facing, 0))[:, None]


def _sample_positions(first: int, last: int, size: int, supersampling: int) -> NDArray[np.float64]:
    """Image positions in [0, 1] of the samples of pixels `first` to `last` along one axis."""
    count = (last - first + 1) * supersampling
    return (first + (np.arange(count) + 0.5) / supersampling) / size
