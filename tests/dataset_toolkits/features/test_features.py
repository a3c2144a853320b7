from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from scenes import Scene, box, render, run, sphere_cameras, stack_cameras, write_scene

from dataset_toolkits.engine.records import write_table
from dataset_toolkits.features.aggregation import aggregate
from dataset_toolkits.features.projection import project
from dataset_toolkits.features.stage import FeaturesOptions, FeaturesStage
from dataset_toolkits.voxelize import VoxelizeOptions, VoxelizeStage
from ss4d.cameras import orbit_camera
from ss4d.cube import voxel_centres
from ss4d.data.overlap import surface_voxels

RED, BLUE = [220, 30, 40], [20, 60, 210]
SLAB = box([-0.3, -0.1, -0.3], [0.3, 0.1, 0.3], [[90, 90, 90], [90, 90, 90], RED, BLUE, [90, 90, 90], [90, 90, 90]])


def make(root, scene: list[Scene], cameras, options: FeaturesOptions, resolutions=(16,), size=96):
    write_scene(root, "toy", scene, cameras, size)
    run(VoxelizeStage(root, VoxelizeOptions(resolutions=list(resolutions))))
    (row,) = run(FeaturesStage(root, options))
    return row, load_file(root / "features" / "toy__move.safetensors")


def inner_front(coords: np.ndarray) -> np.ndarray:
    """Voxels of 16^3 of the slab's red side, away from its edges."""
    inner = (np.abs(coords[:, [1, 3]] - 7.5) < 3).all(axis=1)
    return inner & (coords[:, 2] < 8)


def colour(feats: np.ndarray) -> np.ndarray:
    return 255 * (feats[:, :3].astype(np.float32) * 0.25 + 0.5)


def test_visible_gives_the_front_its_colour_and_mean_a_mixture(tmp_path):
    cameras = stack_cameras([orbit_camera(azimuth, 0) for azimuth in (0, 20, 180, 200)])
    _, visible = make(tmp_path / "visible", [SLAB], cameras, FeaturesOptions())
    front = inner_front(visible["coords_16"])
    np.testing.assert_allclose(colour(visible["feats_16"][front]), np.tile(RED, (front.sum(), 1)), atol=1)
    np.testing.assert_array_equal(visible["views_16"][front], 2)

    _, mean = make(tmp_path / "mean", [SLAB], cameras, FeaturesOptions(aggregation="mean"))
    front = inner_front(mean["coords_16"])
    mixture = (np.array(RED) + BLUE) / 2
    np.testing.assert_allclose(colour(mean["feats_16"][front]), np.tile(mixture, (front.sum(), 1)), atol=1)
    np.testing.assert_array_equal(mean["views_16"][front], 2)


def test_hidden_voxels_are_dropped_and_counted(tmp_path):
    outer, inner = box([-0.4] * 3, [0.4] * 3), box([-0.1] * 3, [0.15, 0.1, 0.1])
    shell, hidden = (surface_voxels(scene.corners, 32) for scene in (outer, inner))
    row, visible = make(tmp_path / "visible", [outer + inner], sphere_cameras(12), FeaturesOptions(), (32,), 128)
    np.testing.assert_array_equal(visible["coords_32"][:, 1:], shell)
    assert row["voxels_32"] == len(shell) + len(hidden)
    assert row["seen_32"] == len(shell)
    assert row["dropped_32"] == pytest.approx(len(hidden) / (len(shell) + len(hidden)))
    assert row["foreground_32"] >= 0.99

    options = FeaturesOptions(aggregation="mean")
    row, mean = make(tmp_path / "mean", [outer + inner], sphere_cameras(12), options, (32,), 128)
    assert row["seen_32"] == row["voxels_32"] == len(mean["coords_32"])
    assert row["dropped_32"] == 0
    assert (mean["views_32"] == 0).sum() == len(hidden)


def test_artifact_is_laid_out_as_documented(tmp_path):
    frames = [SLAB, box([5] * 3, [6] * 3), SLAB]  # the middle frame is empty
    root = tmp_path / "set"
    write_scene(root, "toy", frames, sphere_cameras(4), 64)
    coords = {}
    for resolution in (8, 16):
        voxels = surface_voxels(SLAB.corners, resolution)
        parts = [np.insert(voxels, 0, frame, axis=1) for frame in (0, 2)]
        coords[f"coords_{resolution}"] = np.ascontiguousarray(np.concatenate(parts), np.int16)
    (root / "voxelize").mkdir()
    save_file(coords, root / "voxelize" / "toy__move.safetensors")
    write_table(root, "voxelize", [{"name": "toy__move", "key": "v", "status": "done", "clip_name": "toy__move"}])
    (row,) = run(FeaturesStage(root, FeaturesOptions()))
    tensors = load_file(root / "features" / "toy__move.safetensors")
    assert (root / "features" / "toy__move.safetensors").stat().st_mode & 0o777 == 0o644  # others train on it too
    assert set(tensors) == {f"{name}_{r}" for name in ("coords", "feats", "views") for r in (8, 16)}
    with safe_open(root / "features" / "toy__move.safetensors", "np") as file:
        channels = json.loads(file.metadata()["channels"])
    for resolution in (8, 16):
        kept, feats = tensors[f"coords_{resolution}"], tensors[f"feats_{resolution}"]
        assert kept.dtype == np.int16 and feats.dtype == np.float16
        assert tensors[f"views_{resolution}"].dtype == np.uint8
        np.testing.assert_array_equal(kept, coords[f"coords_{resolution}"])
        assert feats.shape == (len(kept), len(channels))
        # Frame 2 is frame 0 again.
        np.testing.assert_array_equal(feats[: len(feats) // 2], feats[len(feats) // 2 :])
        assert row[f"voxels_{resolution}"] == len(kept) / 3


def test_a_clip_without_any_visible_voxel_is_legal(tmp_path):
    row, tensors = make(tmp_path, [SLAB], stack_cameras([orbit_camera(0, 0, target=[9, 9, 9])]), FeaturesOptions())
    assert row["seen_16"] == 0 and row["dropped_16"] == 1 and row["foreground_16"] == 0
    assert tensors["feats_16"].shape == (0, 12)


def test_views_of_a_frame_are_drawn_anew_and_the_same_when_made_again(tmp_path):
    cameras = stack_cameras([orbit_camera(azimuth, 0) for azimuth in (0, 180)])
    options = FeaturesOptions(aggregation="mean", views_per_frame=1)
    _, features = make(tmp_path / "one", [SLAB] * 8, cameras, options)
    _, again = make(tmp_path / "again", [SLAB] * 8, cameras, options)
    np.testing.assert_array_equal(features["feats_16"], again["feats_16"])
    front = inner_front(features["coords_16"])
    shown = {tuple(np.round(value, -1)) for value in colour(features["feats_16"][front])}
    assert shown == {tuple(np.round(side, -1)) for side in (RED, BLUE)}  # of one view or of the other
    assert set(features["views_16"][front]) == {0, 1}
    with pytest.raises(ValueError, match="views_per_frame is 3, but 2 views"):
        make(tmp_path / "many", [SLAB], cameras, FeaturesOptions(views_per_frame=3))


def test_features_are_sampled_as_grid_sample_without_aligned_corners():
    cameras = sphere_cameras(3)
    coords = np.array([[3, 4, 5], [8, 7, 6]])
    uv = project(voxel_centres(coords, 12), cameras).uv
    # A map that is linear in the position of its pixel centres gives that position back.
    steps = (torch.arange(40) + 0.5) / 40
    maps = torch.stack(torch.meshgrid(steps, steps, indexing="xy")).expand(3, 2, 40, 40)
    used = np.array([[True, False], [True, True], [False, True]])
    expected = np.stack([uv[[0, 1], 0].mean(axis=0), uv[[1, 2], 1].mean(axis=0)])
    np.testing.assert_allclose(aggregate([maps], uv, used), expected, atol=1e-3)


def test_turned_cameras_see_the_turned_object():
    """The convention of quarter turns: world and camera at azimuth a turn to a + 90, the picture stays."""
    scene = box([-0.3, -0.2, -0.1], [0.1, 0.4, 0.2], [RED, BLUE, [9, 99, 9], [99, 9, 9], [9, 9, 99], [99, 99, 9]])
    turned = Scene(scene.corners @ np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]), scene.colours)  # (x, y) -> (-y, x)
    before = render(scene, stack_cameras([orbit_camera(25, 30)]), 64)
    after = render(turned, stack_cameras([orbit_camera(115, 30)]), 64)
    assert (before.rgba != after.rgba).any(axis=-1).mean() < 2e-3  # rounding at edges


def test_unknown_choices_are_named(tmp_path):
    for options, message in (
        ({"extractor": "dino"}, "features.extractor is one of small, dinov2, not dino"),
        ({"aggregation": "median"}, "features.aggregation is one of visible, mean, not median"),
        ({"views_per_frame": 0}, "features.views_per_frame is at least 1, not 0"),
        ({"batch": 0}, "features.batch is at least 1, not 0"),
        ({"resolutions": []}, r"features.resolutions are one or more numbers from 1, not \[\]"),
    ):
        with pytest.raises(ValueError, match=message):
            FeaturesOptions(**options)
    with pytest.raises(ValueError, match="'gpu' is no device"):
        FeaturesStage(tmp_path, FeaturesOptions(extractor="dinov2", device="gpu")).items()
    with pytest.raises(ValueError, match=r"no voxels of \[32\]"):
        make(tmp_path, [SLAB], sphere_cameras(1), FeaturesOptions(resolutions=[32]))
