from __future__ import annotations

import numpy as np
import pytest

from dataset_toolkits.appearance import Appearance
from dataset_toolkits.features import FEATURE_CHANNELS, closest_barycentric, extract_features, sample_surface
from dataset_toolkits.mesh import PosedMesh
from dataset_toolkits.voxelize import voxelize


def plain_appearance(colours: list[list[float]], cutoff: float = 0.0) -> Appearance:
    """One linear RGBA colour for each triangle."""
    count = len(colours)
    return Appearance(
        corner_colours=np.repeat(np.array(colours, np.float32)[:, None], 3, axis=1),
        corner_uv=np.zeros((count, 3, 2), np.float32),
        face_texture=np.full(count, -1, np.int32),
        alpha_cutoff=np.full(count, cutoff, np.float32),
        textures=(),
    )


def square(height: float, colours: list[list[float]], cutoff: float = 0.0) -> PosedMesh:
    """A horizontal square of side 0.5 at z = `height`, normal upwards, of two triangles."""
    corners = 0.25 * np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], np.float32)
    corners[:, 2] = height
    return PosedMesh(corners, np.array([[0, 1, 2], [0, 2, 3]]), plain_appearance(colours, cutoff))


def describe(mesh: PosedMesh, resolution: int):
    voxels = voxelize(mesh.corners, resolution)
    return extract_features(mesh, voxels, sample_surface(mesh.areas, mesh.appearance, resolution), resolution)


def test_flat_surface_has_known_features():
    resolution = 10
    described = describe(square(0.03, [[1, 0, 0, 1]] * 2), resolution)
    channels = dict(zip(FEATURE_CHANNELS, described.feats.T, strict=True))
    assert len(described.coords) == 36  # +-0.25 reaches from the middle of voxel 2 to the middle of voxel 7
    expected = np.tile([1, 0, 0, 0, 0, 1], (36, 1))  # red, and its normal upwards
    np.testing.assert_allclose(described.feats[:, :6], expected, atol=1e-6)
    # z = 0.03 is 0.3 voxels above the lower side of layer 5, 0.2 below its centre.
    np.testing.assert_allclose(channels["offset_z"], -0.2, atol=1e-5)
    inner = ((described.coords[:, :2] > 2) & (described.coords[:, :2] < 7)).all(axis=1)
    assert np.abs(channels["offset_x"][inner]).max() < 0.2
    left = described.coords[:, 0] == 2  # only the right half of these voxels holds surface
    np.testing.assert_allclose(channels["offset_x"][left].mean(), 0.25, atol=0.03)
    np.testing.assert_allclose(channels["red_spread"], 0, atol=1e-3)


def test_two_colours_mix_by_area():
    described = describe(square(0.0125, [[1, 0, 0, 1], [0, 0, 1, 1]]), 1)
    red, green, blue = described.feats[0, :3]
    assert (red, green, blue) == pytest.approx((0.5, 0, 0.5), abs=0.05)
    assert described.feats[0, 9] == pytest.approx(0.5, abs=0.01)  # spread of a half-half mix of 0 and 1


def test_cut_out_surface_leaves_no_voxels():
    mesh = square(0.03, [[1, 1, 1, 1], [1, 1, 1, 0.2]], cutoff=0.5)
    shifted = mesh.vertices + np.array([0.013, 0, 0], np.float32)  # so that the diagonal misses voxel corners
    described = describe(PosedMesh(shifted, mesh.triangles, mesh.appearance), 10)
    x, y = described.coords[:, 0], described.coords[:, 1]
    assert len(x) > 0
    assert (x >= y).all()  # the second triangle is the half with y > x


def test_sliver_no_sample_falls_into_is_still_described():
    corners = np.array([[-0.4, 0.01, 0.02], [0.4, 0.01, 0.02], [0.4, 0.01 + 1e-7, 0.02]], np.float32)
    mesh = PosedMesh(corners, np.array([[0, 1, 2]]), plain_appearance([[0, 1, 0, 1]]))
    described = describe(mesh, 16)
    np.testing.assert_array_equal(described.coords[:, 0], np.arange(1, 15))
    np.testing.assert_allclose(described.feats[:, :3], np.tile([0, 1, 0], (14, 1)), atol=1e-6)
    np.testing.assert_allclose(described.feats[1:-1, 6], 0, atol=0.51)
    assert np.abs(described.feats[:, 6:9]).max() <= 0.5


def test_closest_point_of_a_triangle():
    corners = np.array([[0, 0, 0], [2, 0, 0], [0, 2, 0]], float)
    points = np.array([[0.5, 0.5, 3], [-1, -1, 1], [1, -2, 0], [2, 2, 0]], float)
    weights = closest_barycentric(points, np.tile(corners, (4, 1, 1)))
    expected = np.array([[0.5, 0.5, 0], [0, 0, 0], [1, 0, 0], [1, 1, 0]])
    np.testing.assert_allclose(weights @ corners, expected, atol=1e-6)


def test_samples_are_the_same_every_time():
    areas = np.array([0.1, 0.3], np.float32)
    appearance = plain_appearance([[1, 1, 1, 1]] * 2)
    first, second = sample_surface(areas, appearance, 8), sample_surface(areas, appearance, 8)
    np.testing.assert_array_equal(first.barycentric, second.barycentric)
    np.testing.assert_allclose(np.mean(first.faces == 1), 0.75, atol=0.01)
