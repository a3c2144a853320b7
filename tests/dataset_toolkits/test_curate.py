from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dataset_toolkits.curate import CurateOptions, accepted_clips, curate
from dataset_toolkits.engine.records import write_table
from ss4d.data.format import Row, read_table
from ss4d.data.provenance import write_inputs

# A box of 2 x 4 x 1 around (1, 2, 0.5); the object in it is 4 high in every frame.
CLIP: Row = {
    "name": "fox",
    "key": "k",
    "status": "done",
    "error": None,
    "asset": "fox",
    "clip": "Run",
    "clip_name": "fox__Run",
    "problem": None,
    "frames": 16,
    "seconds": 1.5,
    "vertices": 8,
    "triangles": 12,
    "finite": True,
    "low": [0.0, 0.0, 0.0],
    "high": [2.0, 4.0, 1.0],
    "frame_side": 4.0,
    "motion": 0.05,
    "degenerate": 0.0,
}
UNMEASURED = dict.fromkeys(("frames", "seconds", "vertices", "triangles", "low", "high", "frame_side", "motion"))
ASSET: Row = {
    "name": "fox",
    "asset_id": "animals/fox",
    "path": "/assets/fox.glb",
    "sha256": "00",
    "bytes": 10,
    "split": "train",
    "category": "animal",
    "group": "foxes",
    "licence": "CC0-1.0",
    "author": "someone",
    "source": "somewhere",
    "hide_nodes": ["Icosphere"],
    "clips": [],
    "status": "done",
    "error": None,
}


def run(root: Path, poses: list[Row], assets: list[Row] | None = None, **options: Any) -> list[Row]:
    write_table(root, "collect", assets or [ASSET])
    write_table(root, "pose", poses)
    curate(root, CurateOptions(**options))
    return read_table(root, "curate")


def test_an_accepted_clip_carries_all_that_later_stages_need(tmp_path: Path) -> None:
    [row] = run(tmp_path, [CLIP])

    assert row["accepted"] is True
    assert row["reasons"] == ""
    assert row["visible"] == 1.0
    assert row["centre"] == [1.0, 2.0, 0.5]
    # The longest side, 4, is scaled to just under 1.
    assert 0.9 < row["scale"] * 4 <= 1
    expected = {column: CLIP[column] for column in CLIP if column not in ("name", "key", "status", "error")}
    expected |= {column: ASSET[column] for column in ASSET if column not in ("name", "clips", "status", "error")}
    assert {column: row[column] for column in expected} == expected


@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        ({"frames": 1}, "frames 1 below min_frames 2"),
        ({"seconds": 0.05}, "seconds 0.05 below min_seconds 0.1"),
        ({"motion": 0.001}, "motion 0.001 below min_motion 0.003"),
        ({"frame_side": 2.0}, "root motion 2 above max_root_motion 1.7"),
        ({"frame_side": 0.5}, "root motion 8 above max_root_motion 1.7; visible size 0.125 below min_visible 0.25"),
        ({"degenerate": 0.75}, "degenerate share 0.75 above max_degenerate 0.5"),
        ({"high": [0.0, 0.0, 0.0], "frame_side": 0.0, "motion": 0.0}, "zero size: all vertices in one place"),
        ({"high": [1e-320, 0.0, 0.0], "frame_side": 1e-320}, "zero size: all vertices in one place"),
        ({"finite": False, "motion": float("nan")}, "vertices that are not finite"),
        ({"finite": False, **UNMEASURED, "problem": "not in the file"}, "not in the file"),
        ({"triangles": 0}, "no triangles"),
        ({"clip": None, "frames": 1, "seconds": 0.0, "motion": 0.0}, "no animation"),
        ({"frames": 1, "motion": 0.0}, "frames 1 below min_frames 2; motion 0 below min_motion 0.003"),
    ],
)
def test_reasons(tmp_path: Path, change: Row, reasons: str) -> None:
    [row] = run(tmp_path, [CLIP | change])
    assert row["reasons"] == reasons
    assert row["accepted"] is False


def test_thresholds_are_inclusive_and_can_be_changed(tmp_path: Path) -> None:
    clip = CLIP | {"motion": 0.003, "frames": 2, "seconds": 0.1, "frame_side": 4 / 1.7, "degenerate": 0.5}
    assert run(tmp_path, [clip])[0]["accepted"]
    [row] = run(tmp_path, [clip], min_motion=0.004, max_root_motion=1.5)
    assert row["reasons"] == "motion 0.003 below min_motion 0.004; root motion 1.7 above max_root_motion 1.5"


STILL = {"clip": None, "frames": 1, "seconds": 0.0, "motion": 0.0}


def test_assets_without_animation_are_clips_of_one_frame_where_asked_for(tmp_path: Path) -> None:
    [row] = run(tmp_path, [CLIP | STILL], static=True)
    assert row["accepted"] and row["frames"] == 1 and 0.9 < row["scale"] * 4 <= 1
    [row] = run(tmp_path, [CLIP | STILL | {"degenerate": 0.75}], static=True)
    assert row["reasons"] == "degenerate share 0.75 above max_degenerate 0.5"
    [row] = run(tmp_path, [CLIP | {"frames": 1}], static=True)  # an animation of one frame stays what it is
    assert row["reasons"] == "frames 1 below min_frames 2"


def test_the_first_accepted_clips_of_an_asset_are_kept(tmp_path: Path) -> None:
    poses = [CLIP | {"clip": "a", "frames": 1}, CLIP | {"clip": "b"}, CLIP | {"clip": "c"}]
    rows = run(tmp_path, poses, clips_per_asset=1)
    assert [row["accepted"] for row in rows] == [False, True, False]
    assert rows[2]["reasons"] == "beyond clips_per_asset 1"


def test_assets_without_a_clip_keep_a_row_with_the_reason(tmp_path: Path) -> None:
    assets = [
        ASSET | {"name": "broken", "status": "failed", "error": "it is empty"},
        ASSET | {"name": "copy", "status": "refused", "error": "same content as fox"},
        ASSET | {"name": "crash"},
        ASSET,
    ]
    crash = dict.fromkeys(CLIP) | {"name": "crash", "key": "k", "status": "failed", "error": "Blender died"}

    rows = run(tmp_path, [crash, CLIP, CLIP | {"clip": "Sit", "clip_name": "fox__Sit"}], assets)

    assert [(row["asset"], row["clip_name"], row["reasons"]) for row in rows] == [
        ("broken", None, "failed at collect: it is empty"),
        ("copy", None, "refused at collect: same content as fox"),
        ("crash", None, "failed at pose: Blender died"),
        ("fox", "fox__Run", ""),
        ("fox", "fox__Sit", ""),
    ]


def test_needs_the_tables_before_it(tmp_path: Path) -> None:
    write_table(tmp_path, "collect", [ASSET])
    with pytest.raises(ValueError, match="run `python -m dataset_toolkits pose"):
        curate(tmp_path, CurateOptions())


def test_negative_thresholds() -> None:
    with pytest.raises(ValueError, match=r"curate\.min_motion is at least 0, not -1"):
        CurateOptions(min_motion=-1)


def test_clips_of_two_assets_that_would_share_a_name_get_hashes(tmp_path: Path) -> None:
    assets = [ASSET | {"name": name} for name in ("a", "a__b", "c")]
    poses = [
        CLIP | {"name": asset, "asset": asset, "clip": clip, "clip_name": name}
        for asset, clip, name in (("a", "b__c", "a__b__c"), ("a__b", "C", "a__b__C"), ("c", "d", "c__d"))
    ]
    names = [row["clip_name"] for row in run(tmp_path, poses, assets)]
    assert names[0].startswith("a__b__c-") and names[1].startswith("a__b__C-") and names[2] == "c__d"
    assert names[0][-8:] != names[1][-8:]


def test_poses_of_another_file_are_not_measured(tmp_path: Path) -> None:
    inputs = {"sha256": "00", "hide_nodes": ["Icosphere"], "clips": []}
    assert run(tmp_path, [CLIP | {"inputs": write_inputs(inputs)}])[0]["accepted"]
    with pytest.raises(ValueError, match=r"pose made fox before its sha256 changed: run .* pose --root"):
        run(tmp_path, [CLIP | {"inputs": write_inputs(inputs | {"sha256": "11"})}])


def test_clips_that_were_posed_again_are_to_be_measured_again(tmp_path: Path) -> None:
    run(tmp_path, [CLIP])
    assert [clip["pose"] for clip in accepted_clips(tmp_path)] == ["k"]
    for poses in ([CLIP | {"key": "other"}], [CLIP | {"name": "bear"}]):  # with other options; of other assets
        write_table(tmp_path, "pose", poses)
        with pytest.raises(ValueError, match=r"curate measured fox__Run before pose was run again: run .* curate"):
            accepted_clips(tmp_path)
