from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt

from dataset_toolkits.appearance import Appearance
from dataset_toolkits.mesh import PosedMesh
from dataset_toolkits.render import project, render_views
from dataset_toolkits.rigs import crop_to_clip, front_rig, sphere_rig
from dataset_toolkits.voxelize import voxelize
from ss4d.video.foreground import clip_crop_box, crop_clip_rgba


def white(vertices: np.ndarray, triangles: np.ndarray) -> PosedMesh:
    count = len(triangles)
    appearance = Appearance(
        corner_colours=np.ones((count, 3, 4), np.float32),
        corner_uv=np.zeros((count, 3, 2), np.float32),
        face_texture=np.full(count, -1, np.int32),
        alpha_cutoff=np.zeros(count, np.float32),
        textures=(),
    )
    return PosedMesh(vertices.astype(np.float32), triangles, appearance)


def moving_box(cube_vertices: np.ndarray, cube_triangles: np.ndarray) -> list[PosedMesh]:
    """A leaning box that moves along x."""
    lean = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    box = (cube_vertices * [0.3, 0.5, 0.4]) @ lean.T
    return [white(box + np.array([x, 0, 0]), cube_triangles) for x in (-0.15, 0.0, 0.15)]


def test_sphere_rig_looks_at_the_centre_from_all_sides():
    rig = sphere_rig(16)
    centres = project(np.zeros(3), rig.extrinsics[5], rig.intrinsics[5])
    np.testing.assert_allclose(centres, [0.5, 0.5, 2.0], atol=1e-6)
    eyes = -np.einsum("vji,vj->vi", rig.extrinsics[:, :3, :3], rig.extrinsics[:, :3, 3])
    np.testing.assert_allclose(np.linalg.norm(eyes, axis=1), 2.0, atol=1e-5)
    assert np.linalg.norm(eyes.mean(axis=0)) < 0.2  # evenly spread


def test_front_rig_starts_exactly_in_front():
    rig = front_rig(4, seed=1)
    np.testing.assert_allclose(project(np.array([0, -0.5, 0]), rig.extrinsics[0], rig.intrinsics[0])[2], 1.5)
    eyes = -np.einsum("vji,vj->vi", rig.extrinsics[:, :3, :3], rig.extrinsics[:, :3, 3])
    azimuths = np.degrees(np.arctan2(eyes[:, 0], -eyes[:, 1]))
    elevations = np.degrees(np.arcsin(eyes[:, 2] / 2))
    assert (np.abs(azimuths) < 15).all()
    assert ((elevations > -1e-4) & (elevations < 15)).all()
    assert len(np.unique(azimuths.round(3))) == 4
    np.testing.assert_array_equal(front_rig(4, seed=1).extrinsics, rig.extrinsics)


def test_crop_is_that_of_the_inference_preprocessing(cube_vertices, cube_triangles):
    frames = moving_box(cube_vertices, cube_triangles)
    rig = front_rig(2, seed=0)
    cropped = crop_to_clip(rig, np.stack([frame.vertices for frame in frames]))
    for view in range(2):
        one = slice(view, view + 1)
        uncropped = [render_views(f, rig.extrinsics[one], rig.intrinsics[one], 512).rgba[0] for f in frames]
        found = clip_crop_box(np.stack(uncropped)[..., 3])
        # Undo the crop: where the corners of the cropped image lie in the uncropped one.
        to_uncropped = rig.intrinsics[view] @ np.linalg.inv(cropped.intrinsics[view])
        left, top = (to_uncropped @ [0, 0, 1])[:2] * 512
        right, bottom = (to_uncropped @ [1, 1, 1])[:2] * 512
        # A sharp tip may miss every sample of its last pixel on either side: 1.2 x 1, and the truncation.
        np.testing.assert_allclose([left, top, right, bottom], found, atol=2.2)

        expected = crop_clip_rgba(np.stack(uncropped), 64)[..., 3] / 255
        direct = [render_views(f, cropped.extrinsics[one], cropped.intrinsics[one], 64) for f in frames]
        alpha = np.stack([views.rgba[0, ..., 3] for views in direct]) / 255
        assert np.abs(alpha - expected).mean() < 0.01


def test_voxels_and_views_agree(cube_vertices, cube_triangles):
    """The silhouette of the voxels covers the alpha and reaches less than a voxel further."""
    size, resolution = 128, 32
    mesh = moving_box(cube_vertices, cube_triangles)[2]
    rig = sphere_rig(6)
    rgba = render_views(mesh, rig.extrinsics, rig.intrinsics, size).rgba
    coords = voxelize(mesh.corners, resolution).coords
    steps = np.stack(np.meshgrid(*[np.linspace(0, 1, 8)] * 3, indexing="ij"), -1).reshape(-1, 3)
    points = ((coords[:, None] + steps) / resolution - 0.5).reshape(-1, 3)
    for view in range(6):
        image = project(points, rig.extrinsics[view], rig.intrinsics[view])
        silhouette = np.zeros((size, size), bool)
        column, row = (image[:, :2] * size).astype(int).T
        silhouette[row, column] = True
        alpha = rgba[view, ..., 3] > 127
        assert silhouette[alpha].all()
        voxel_diagonal = np.sqrt(3) / resolution * rig.intrinsics[view, 0, 0] / image[:, 2].min() * size
        assert distance_transform_edt(~alpha)[silhouette].max() < voxel_diagonal + 1
