"""Opening a prepared set: what is kept, and what is said about the rest."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import RESOLUTION, box_voxels

from dataset_toolkits.engine.records import write_table
from ss4d.data import PreparedSet
from ss4d.data.format import read_table
from ss4d.data.provenance import write_inputs

ALL = ("render", "features", "encode")


@pytest.fixture
def root(clip_folder: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(clip_folder, tmp_path / "set"))


def change(root: Path, stage: str, row: int, **values: Any) -> None:
    rows = read_table(root, stage)
    rows[row].update(values)
    write_table(root, stage, rows)


def test_clips_carry_what_the_tables_say(clip_folder: Path):
    clips = pickle.loads(pickle.dumps(PreparedSet.open(clip_folder, RESOLUTION, ALL))).clips
    assert [(clip.name, clip.asset_id, clip.category) for clip in clips] == [
        ("box0__slide", "box0", "cube"),
        ("box1__slide", "box1", "crate"),
    ]
    assert [clip.voxels for clip in clips] == [4**3, 6**3] and {clip.frames for clip in clips} == {4}


def test_clips_are_chosen_by_split_object_and_verdict(root: Path):
    change(root, "curate", 0, split="val")
    assert [clip.asset_id for clip in PreparedSet.open(root, RESOLUTION, ALL, "val").clips] == ["box0"]
    assert [clip.asset_id for clip in PreparedSet.open(root, RESOLUTION, ALL, "train").clips] == ["box1"]
    assert len(PreparedSet.open(root, RESOLUTION, ALL, objects=["box1"])) == 1
    change(root, "curate", 0, accepted=False)
    assert [clip.asset_id for clip in PreparedSet.open(root, RESOLUTION, ALL).clips] == ["box1"]


def test_a_clip_that_failed_in_a_needed_stage_is_left_out_and_counted(root: Path):
    change(root, "encode", 1, status="failed", error="out of memory")
    clips = PreparedSet.open(root, RESOLUTION, ALL)
    assert [clip.asset_id for clip in clips.clips] == ["box0"] and clips.skipped == {"encode": 1}
    assert len(PreparedSet.open(root, RESOLUTION, ("features",))) == 2


def test_what_is_not_there_is_said(root: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"curate\.parquet is missing: run `python -m dataset_toolkits curate"):
        PreparedSet.open(tmp_path, RESOLUTION, ALL)
    with pytest.raises(ValueError, match="has no clip of split val among its 2 accepted clips"):
        PreparedSet.open(root, RESOLUTION, ALL, "val")
    with pytest.raises(ValueError, match=r"has no accepted clip of ball: see data\.objects"):
        PreparedSet.open(root, RESOLUTION, ALL, objects=["box0", "ball"])
    with pytest.raises(ValueError, match=r"features at resolution 16, not at 64: set data\.resolution"):
        PreparedSet.open(root, 64, ALL)
    for row in range(2):
        change(root, "features", row, status="failed")
    with pytest.raises(ValueError, match=r"none of the 2 clips .* run `python -m dataset_toolkits features"):
        PreparedSet.open(root, RESOLUTION, ALL)
    change(root, "features", 0, status="done")
    (root / "tables/encode.parquet").unlink()
    with pytest.raises(ValueError, match="run `python -m dataset_toolkits encode"):
        PreparedSet.open(root, RESOLUTION, ALL)
    statistics = root / "tables/latent_statistics.json"
    statistics.write_text('{"structure": {"mean": [0.0], "std": [1.0]}}')
    with pytest.raises(ValueError, match=r"has no sparse latents: run .*, with encode\.sparse_encoder"):
        PreparedSet.open(root, RESOLUTION, ()).latent_statistics("sparse")
    statistics.unlink()
    with pytest.raises(ValueError, match=r"latent_statistics\.json is missing: run `python -m dataset_toolkits encode"):
        PreparedSet.open(root, RESOLUTION, ()).latent_statistics("sparse")


def test_latents_that_cannot_be_divided_by_their_deviation_are_refused(root: Path):
    (root / "tables/latent_statistics.json").write_text('{"structure": {"mean": [0.0, 0.0], "std": [1.0, 0.0]}}')
    with pytest.raises(ValueError, match=r"must be finite, and std above 0: run .* encode"):
        PreparedSet.open(root, RESOLUTION, ()).latent_statistics("structure")


def test_rows_are_those_of_the_frames(clip_folder: Path):
    clips = PreparedSet.open(clip_folder, RESOLUTION, ALL)
    file, stored = clips.artifact(1, "features"), box_voxels(6, 4).int()
    part = file.voxels("coords_16", "feats_16", (1, 3))
    assert part.num_frames == 2 and part.values.dtype == torch.float32
    for position, frame in enumerate((1, 3)):
        mine, all_rows = part.coords[:, 0] == position, stored[:, 0] == frame
        assert torch.equal(part.coords[mine, 1:], stored[all_rows, 1:])
        assert torch.equal(part.values[mine], file.voxels("coords_16", "feats_16", range(4)).values[all_rows])
    assert torch.equal(file.coords("coords_16", (1, 3)), part.coords)


def test_damaged_missing_and_foreign_files_are_named(root: Path):
    file = PreparedSet.open(root, RESOLUTION, ALL).artifact(0, "encode")
    with pytest.raises(ValueError, match=r"has no structure_mean_3, only coords_0, .*: run the encode stage"):
        file.frames("structure_mean_3", (0,))
    file.path.write_bytes(file.path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"box0__slide\.safetensors is damaged .*: delete it and run `python -m"):
        file.frames("structure_mean_0", (0,))
    file.path.unlink()
    with pytest.raises(
        ValueError, match="is missing, though the tables list it: run `python -m dataset_toolkits encode"
    ):
        file.coords("coords_0", (0,))


def test_what_an_earlier_stage_has_outdated_is_refused(root: Path):
    for row in range(2):
        change(root, "curate", row, scale=0.5)
        change(root, "render", row, inputs=write_inputs({"scale": 0.5}))
        change(root, "features", row, inputs=write_inputs({"render": "k"}))
        change(root, "encode", row, inputs=write_inputs({"features": "k"}))
    assert len(PreparedSet.open(root, RESOLUTION, ALL)) == 2
    change(root, "features", 1, key="other")
    assert len(PreparedSet.open(root, RESOLUTION, ("features",))) == 2
    with pytest.raises(ValueError, match="encode made box1__slide before its features changed"):
        PreparedSet.open(root, RESOLUTION, ALL)
    change(root, "curate", 0, scale=0.25)
    with pytest.raises(ValueError, match=r"render made box0__slide before its scale changed: run .* render --root"):
        PreparedSet.open(root, RESOLUTION, ("features",))
