from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file
from scenes import box, run, sphere_cameras, write_scene

from dataset_toolkits.engine.records import write_table
from dataset_toolkits.features.stage import FeaturesOptions, FeaturesStage
from dataset_toolkits.voxelize import VoxelizeOptions, VoxelizeStage, place
from ss4d.data.format import read_table
from ss4d.data.overlap import surface_voxels


def test_every_frame_is_placed_and_voxelised(tmp_path):
    frames = [box([-0.31] * 3, [0.22, 0.11, 0.02]), box([-0.4, -0.1, -0.2], [0.45, 0.3, 0.1])]
    write_scene(tmp_path, "toy", frames, sphere_cameras(1), 8)
    (row,) = run(VoxelizeStage(tmp_path, VoxelizeOptions(resolutions=[8, 16])))
    tensors = load_file(tmp_path / "voxelize" / "toy__move.safetensors")
    assert set(tensors) == {"coords_8", "coords_16"}
    for resolution in (8, 16):
        coords = tensors[f"coords_{resolution}"]
        assert coords.dtype == np.int16
        expected = [
            [frame, *voxel]
            for frame, scene in enumerate(frames)
            for voxel in surface_voxels(scene.corners, resolution).tolist()
        ]
        np.testing.assert_array_equal(coords, expected)
        assert expected == sorted(expected)
        assert row[f"voxels_{resolution}"] == len(expected) / 2


def test_a_frame_in_which_the_object_has_vanished_has_no_voxels_and_no_features(tmp_path):
    """Scaled to a point at the end; what is seen of the other frames stays."""
    frames = [box([-0.31] * 3, [0.22, 0.11, 0.02]), box([0.1] * 3, [0.1] * 3)]
    write_scene(tmp_path, "toy", frames, sphere_cameras(6), 32)
    (row,) = run(VoxelizeStage(tmp_path, VoxelizeOptions(resolutions=[8])))
    coords = load_file(tmp_path / "voxelize" / "toy__move.safetensors")["coords_8"]
    np.testing.assert_array_equal(coords[:, 1:], surface_voxels(frames[0].corners, 8))
    assert not coords[:, 0].any() and row["voxels_8"] == len(coords) / 2
    (row,) = run(FeaturesStage(tmp_path, FeaturesOptions()))
    tensors = load_file(tmp_path / "features" / "toy__move.safetensors")
    assert len(tensors["feats_8"]) and not tensors["coords_8"][:, 0].any() and np.isfinite(tensors["feats_8"]).all()


def test_key_follows_the_placement_and_the_pose(tmp_path):
    write_scene(tmp_path, "toy", [box([-0.3] * 3, [0.2] * 3)], sphere_cameras(1), 8)
    stage = VoxelizeStage(tmp_path, VoxelizeOptions())
    before = stage.key(stage.items()[0])
    rows = read_table(tmp_path, "curate")
    write_table(tmp_path, "curate", [{**row, "split": "val"} for row in rows])
    assert stage.key(stage.items()[0]) == before
    write_table(tmp_path, "curate", [{**row, "scale": 0.09} for row in rows])
    assert stage.key(stage.items()[0]) != before


def test_a_clip_that_leaves_the_cube_is_named():
    vertices = np.zeros((2, 3, 3), np.float32)
    vertices[1, 2] = [0, 0, 7]
    with pytest.raises(ValueError, match=r"clip fox__run leaves the cube.*frame 1.*0\.7"):
        place(vertices, 0.1, [0, 0, 0], "fox__run")
    vertices[1, 2, 2] = np.nan
    with pytest.raises(ValueError, match="fox__run"):
        place(vertices, 0.1, [0, 0, 0], "fox__run")


def test_an_unfinished_earlier_stage_is_named(tmp_path):
    with pytest.raises(ValueError, match="dataset_toolkits pose"):
        VoxelizeStage(tmp_path, VoxelizeOptions()).items()


def test_voxels_of_another_placement_get_no_features(tmp_path):
    write_scene(tmp_path, "toy", [box([-0.3] * 3, [0.2] * 3)], sphere_cameras(1), 8)
    run(VoxelizeStage(tmp_path, VoxelizeOptions(resolutions=[8])))
    features = FeaturesStage(tmp_path, FeaturesOptions())
    assert len(features.items()) == 1
    rows = read_table(tmp_path, "curate")
    write_table(tmp_path, "curate", [{**row, "scale": 0.09} for row in rows])
    with pytest.raises(ValueError, match=r"voxelize made toy__move before its scale changed: run .* voxelize --root"):
        features.items()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolutions": [0]}, r"voxelize\.resolutions are one or more numbers from 1, not \[0\]"),
        ({"resolutions": []}, r"voxelize\.resolutions are one or more numbers from 1, not \[\]"),
        ({"frame": "view", "crop": 5.0}, r"crop = 5\.0 must lie between 0 and 1\.2"),
    ],
)
def test_impossible_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        VoxelizeOptions(**options)
