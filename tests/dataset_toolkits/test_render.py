from __future__ import annotations

import numpy as np
import pytest

from dataset_toolkits.appearance import Appearance
from dataset_toolkits.mesh import PosedMesh
from dataset_toolkits.render import AMBIENT, DIFFUSE, LIGHT_DIRECTION, covered_box, project, render_views

FOCAL = 1.0


def front_camera() -> tuple[np.ndarray, np.ndarray]:
    """At (0, -2, 0) looking along +y, OpenCV axes; focal length 1 image width."""
    extrinsics = np.array([[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 2], [0, 0, 0, 1]], float)
    intrinsics = np.array([[FOCAL, 0, 0.5], [0, FOCAL, 0.5], [0, 0, 1]])
    return extrinsics[None], intrinsics[None]


def appearance(colours: list[list[float]], cutoff: float = 0.0) -> Appearance:
    return Appearance(
        corner_colours=np.repeat(np.array(colours, np.float32)[:, None], 3, axis=1),
        corner_uv=np.zeros((len(colours), 3, 2), np.float32),
        face_texture=np.full(len(colours), -1, np.int32),
        alpha_cutoff=np.full(len(colours), cutoff, np.float32),
        textures=(),
    )


def wall(y: float, colour: list[float], side: float = 1.0, cutoff: float = 0.0) -> PosedMesh:
    """A square at distance 2 + y from the camera, its normal towards it."""
    corners = 0.5 * side * np.array([[-1, 0, -1], [1, 0, -1], [1, 0, 1], [-1, 0, 1]], np.float32)
    corners[:, 1] = y
    return PosedMesh(corners, np.array([[0, 1, 2], [0, 2, 3]]), appearance([colour] * 2, cutoff))


def joined(first: PosedMesh, second: PosedMesh) -> PosedMesh:
    arrays = ("corner_colours", "corner_uv", "face_texture", "alpha_cutoff")
    both = (first.appearance, second.appearance)
    merged = [np.concatenate([getattr(part, name) for part in both]) for name in arrays]
    return PosedMesh(
        np.concatenate([first.vertices, second.vertices]),
        np.concatenate([first.triangles, second.triangles + len(first.vertices)]),
        Appearance(merged[0], merged[1], merged[2], merged[3], textures=()),
    )


def test_wall_covers_the_pixels_it_should():
    views = render_views(wall(0.0, [1, 1, 1, 1]), *front_camera(), size=64)
    # A side of 1 at distance 2 is half of the image: pixels 16 to 47.
    expected = np.zeros((64, 64), np.uint8)
    expected[16:48, 16:48] = 255
    np.testing.assert_array_equal(views.rgba[0, ..., 3], expected)
    np.testing.assert_allclose(views.depth[0][16:48, 16:48], 2.0, atol=1e-5)
    assert np.isinf(views.depth[0][:16]).all()
    assert (views.rgba[0][expected == 0] == 0).all()


def test_edge_pixels_are_partly_covered_with_straight_colour():
    views = render_views(wall(0.0, [1, 0, 0, 1], side=1 + 1 / 32), *front_camera(), size=64)
    rgba = views.rgba[0]
    assert rgba[32, 15, 3] == 128  # half a pixel more on either side
    assert rgba[32, 15, 0] == rgba[32, 32, 0]  # not premultiplied


def test_shading_follows_the_light_on_both_sides():
    colour = 188 / 255  # 0.5 linear
    towards = render_views(wall(0.0, [0.5, 0.5, 0.5, 1]), *front_camera(), size=16).rgba[0, 8, 8]
    lambert = -LIGHT_DIRECTION[1]
    assert towards[:3] == pytest.approx([255 * colour * (AMBIENT + DIFFUSE * lambert)] * 3, abs=1)
    flipped = wall(0.0, [0.5, 0.5, 0.5, 1])
    flipped = PosedMesh(flipped.vertices, flipped.triangles[:, ::-1], flipped.appearance)
    np.testing.assert_array_equal(render_views(flipped, *front_camera(), size=16).rgba[0, 8, 8], towards)


def test_cut_out_surface_shows_what_is_behind():
    mesh = joined(wall(-0.2, [1, 0, 0, 0.3], cutoff=0.5), wall(0.3, [0, 1, 0, 1], side=1.4))
    views = render_views(mesh, *front_camera(), size=16)
    assert views.rgba[0, 8, 8, 0] == 0
    assert views.rgba[0, 8, 8, 1] > 0
    np.testing.assert_allclose(views.depth[0, 8, 8], 2.3, atol=1e-4)


def test_image_is_not_mirrored():
    mesh = wall(0.0, [1, 1, 1, 1], side=0.25)
    mesh = PosedMesh(mesh.vertices + np.array([0.4, 0, 0.2], np.float32), mesh.triangles, mesh.appearance)
    rows, columns = np.nonzero(render_views(mesh, *front_camera(), size=100).rgba[0, ..., 3])
    # x = 0.4 is to the right, z = 0.2 is up; a unit at distance 2 is half of the image.
    assert columns.mean() == pytest.approx(69.5, abs=0.6)
    assert rows.mean() == pytest.approx(39.5, abs=0.6)


def test_projected_box_is_that_of_the_rendered_alpha(cube_vertices, cube_triangles):
    generator = np.random.default_rng(0)
    extrinsics, intrinsics = front_camera()
    turn = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    vertices = (0.7 * cube_vertices @ turn.T).astype(np.float32)
    mesh = PosedMesh(vertices, cube_triangles, appearance([[1, 1, 1, 1]] * 12))
    rows, columns = np.nonzero(render_views(mesh, extrinsics, intrinsics, size=128).rgba[0, ..., 3])
    box = covered_box(project(vertices, extrinsics[0], intrinsics[0]), 128)
    rendered = (columns.min(), rows.min(), columns.max(), rows.max())
    assert np.abs(np.subtract(box, rendered)).max() <= 1
