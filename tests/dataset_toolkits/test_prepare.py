from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file

from dataset_toolkits.__main__ import main
from dataset_toolkits.asset import load_asset
from dataset_toolkits.clip import Parameters, pose_clip
from dataset_toolkits.index import read_index
from dataset_toolkits.normalize import fit_clip
from dataset_toolkits.prepare import prepare_object
from dataset_toolkits.storage import CLIP_TENSORS, Manifest, clip_file, read_record, write_clip

SMALL = Parameters(frames=3, resolution=8, views=2, size=16, cond_views=2, cond_size=16)
SMALL_OPTIONS = [
    *("--frames", "3", "--resolution", "8", "--views", "2", "--size", "16"),
    *("--cond-views", "2", "--cond-size", "16", "--workers", "1"),
]


def test_placement_is_one_for_the_whole_clip():
    frame = np.array([[0, 0, 0], [1, 2, 1]], np.float32)
    vertices = np.stack([frame, frame + np.array([1, 0, 0], np.float32)])
    placement = fit_clip(vertices)
    placed = placement.apply(vertices)
    np.testing.assert_allclose(placed.reshape(-1, 3).max(axis=0), [0.475, 0.475, 0.2375], atol=1e-6)
    np.testing.assert_allclose(placed.reshape(-1, 3).min(axis=0), [-0.475, -0.475, -0.2375], atol=1e-6)
    np.testing.assert_allclose(placed[1] - placed[0], np.tile([0.475, 0, 0], (2, 1)), atol=1e-6)
    assert placement.motion_ratio == pytest.approx(1.0)
    assert fit_clip(np.stack([frame, frame + np.float32(4)])).has_root_motion
    with pytest.raises(ValueError, match="cannot be scaled"):
        fit_clip(np.zeros((2, 3, 3), np.float32))


def test_clip_that_does_not_exist(asset_folder):
    entry = read_index(asset_folder(["a/cube"]))[0]
    with pytest.raises(ValueError, match="no clip 'jump'"):
        pose_clip(load_asset(entry.path), "jump", 4)


def test_prepared_clip_holds_what_it_promises(asset_folder, tmp_path):
    entry = read_index(asset_folder(["a/cube"]))[0]
    result = prepare_object(entry, tmp_path / "out", SMALL, num_clips=5)
    assert [record.clip for record in result.records] == ["spin", "grow"]  # the best first
    assert [left_out.clip for left_out in result.root_motion] == ["slide"]
    assert not result.failures

    record = result.records[0]
    assert record.file == "clips/a__cube__spin.safetensors"
    tensors = load_file(tmp_path / "out" / record.file)
    assert set(tensors) == set(CLIP_TENSORS)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    assert shapes["views"] == (3, 2, 16, 16, 4)
    assert shapes["cond"] == (2, 3, 16, 16, 4)
    assert shapes["extrinsics"] == shapes["cond_extrinsics"] == (2, 4, 4)
    assert shapes["coords"] == (record.num_voxels, 4)
    assert shapes["feats"] == (record.num_voxels, len(record.feature_channels))
    rows = tensors["coords"].tolist()
    assert rows == sorted(rows)
    assert set(tensors["coords"][:, 0]) == {0, 1, 2}
    np.testing.assert_allclose(tensors["feats"][:, :3], np.tile([1, 0, 0], (len(rows), 1)), atol=1e-3)
    seen = tensors["views"][..., 3] == 255
    assert seen.any()
    assert (tensors["views"][seen][:, 0] >= 0.6 * 255 - 1).all()
    assert (tensors["views"][seen][:, 1:3] == 0).all()


def test_making_it_again_gives_the_same(asset_folder, tmp_path):
    entry = read_index(asset_folder(["a/cube"]))[0]
    for root in ("first", "second"):
        prepare_object(entry, tmp_path / root, SMALL, num_clips=1)
    file = clip_file("a/cube", "spin")
    assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def test_stored_clips_are_kept_unless_something_changed(asset_folder, tmp_path):
    entry = read_index(asset_folder(["a/cube"]))[0]
    assert prepare_object(entry, tmp_path, SMALL, 2).num_resumed == 0
    path = tmp_path / clip_file("a/cube", "spin")
    written = path.stat().st_mtime_ns
    assert prepare_object(entry, tmp_path, SMALL, 2).num_resumed == 2
    assert path.stat().st_mtime_ns == written

    assert prepare_object(entry, tmp_path, replace(SMALL, resolution=4), 2).num_resumed == 0
    stored = read_record(path)
    assert stored
    assert stored.parameters["resolution"] == 4

    path.write_bytes(path.read_bytes()[:1000])  # a damaged file is made again
    assert prepare_object(entry, tmp_path, replace(SMALL, resolution=4), 2).num_resumed == 1
    assert read_record(path) == stored


def test_bad_clip_does_not_cost_the_others(asset_folder, tmp_path):
    entry = read_index(asset_folder(["a/cube"]))[0]
    result = prepare_object(replace(entry, clips=("no such clip", "spin")), tmp_path, SMALL, 2)
    assert [failure.clip for failure in result.failures] == ["no such clip"]
    assert [record.clip for record in result.records] == ["spin"]


def test_command_line_survives_a_damaged_object(asset_folder, tmp_path, capsys):
    assets, root = asset_folder(["a/cube", "b/cube", "c/cube"], broken=("b/cube",)), tmp_path / "out"
    options = ["prepare", "--assets", str(assets), "--root", str(root), "--clips-per-object", "1"]
    assert main([*options, *SMALL_OPTIONS]) == 1
    assert "2 clips" in capsys.readouterr().out
    manifest = Manifest.read(root)
    assert [record.object_id for record in manifest.clips.values()] == ["a/cube", "c/cube"]
    (failure,) = manifest.failures
    assert failure.object_id == "b/cube"
    assert "Traceback" in failure.traceback

    shutil.copy(assets / "a__cube.glb", assets / "b__cube.glb")  # repaired: the failure is forgotten
    assert main([*options, *SMALL_OPTIONS, "--objects", "b/cube"]) == 0
    assert len(json.loads((root / "manifest.json").read_text())["clips"]) == 3
    assert not Manifest.read(root).failures

    with pytest.raises(SystemExit, match="d/cube"):
        main([*options, "--objects", "d/cube"])


def test_clip_with_other_tensors_is_refused(tmp_path, asset_folder):
    entry = read_index(asset_folder(["a/cube"]))[0]
    record = prepare_object(entry, tmp_path, SMALL, 1).records[0]
    with pytest.raises(ValueError, match="coords"):
        write_clip(tmp_path, record, {"coords": np.zeros((1, 4), np.int16)})
    assert not [path for path in (tmp_path / "clips").iterdir() if path.name.startswith(".")]
