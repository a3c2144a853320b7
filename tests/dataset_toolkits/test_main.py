from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from dataset_toolkits.__main__ import main
from dataset_toolkits.engine.records import write_table
from ss4d.data.format import Row, read_table

REPOSITORY = Path(__file__).parents[2]
MOTION = {"still": 0.0, "slow": 0.05, "fast": 0.2}


def command(stage: str, root: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "dataset_toolkits", stage, "--root", str(root), *arguments]


def toolkit(stage: str, root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(stage, root, *arguments),
        cwd=REPOSITORY,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def collected(root: Path, count: int = 3) -> Path:
    """A data set whose assets are collected."""
    for index in range(count):
        path = root / "source" / f"object {index}.glb"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content {index}")
    assert main(["collect", "--root", str(root), f"collect.folder={root / 'source'}"]) == 0
    return root


def posed(root: Path) -> None:
    """What the stage pose would make of the collected assets: a triangle that moves more or less."""
    rows: list[Row] = []
    for asset, (clip, motion) in zip(read_table(root, "collect"), MOTION.items(), strict=True):
        vertices = np.array([[[0, 0, 0], [1, 0, 0], [0, 1, 1]]] * 2, np.float32)
        name = asset["name"]
        tensors = {"triangles": np.array([[0, 1, 2]], np.int32), "vertices_0": vertices, "times_0": np.arange(2.0)}
        path = root / "pose" / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        save_file(tensors, path, {"clips": json.dumps([clip])})
        measured = {"frames": 2, "seconds": 1.0, "vertices": 3, "triangles": 1, "finite": True, "degenerate": 0.0}
        box = {"low": [0.0, 0.0, 0.0], "high": [1.0, 1.0, 1.0], "frame_side": 1.0, "motion": motion}
        head = {"name": name, "key": f"key {name}", "status": "done", "error": None, "problem": None}
        rows.append(head | {"asset": name, "clip": clip, "clip_name": f"{name}__{clip}"} | measured | box)
    write_table(root, "pose", rows)


def blender_that_hangs(folder: Path) -> str:
    script = folder / "blender"
    script.write_text("#!/bin/sh\nexec sleep 600\n")
    script.chmod(0o755)
    return str(script)


def test_changing_a_threshold_makes_only_what_depends_on_it(tmp_path: Path) -> None:
    root = collected(tmp_path / "set with ünïcödé")
    posed(root)
    assert main(["curate", "--root", str(root), "curate.min_motion=0.1"]) == 0
    result = toolkit("voxelize", root, "voxelize.resolutions=[8]", "--workers", "1")
    assert result.returncode == 0, result.stderr
    assert "voxelize: 1 made, 0 were there, 0 failed; 1 items in the table" in result.stdout

    assert main(["curate", "--root", str(root), "curate.min_motion=0.01"]) == 0
    result = toolkit("voxelize", root, "--workers", "1")  # the resolution is remembered
    assert "voxelize: 1 made, 1 were there" in result.stdout
    assert [row["clip_name"] for row in read_table(root, "voxelize")] == ["object_1__slow", "object_2__fast"]
    assert list(read_table(root, "voxelize")[0])[-4:] == ["clip_name", "cubes", "outside", "voxels_8"]

    assert main(["curate", "--root", str(root), "curate.min_frames=3"]) == 0
    assert main(["voxelize", "--root", str(root)]) == 0
    assert read_table(root, "voxelize") == []


def test_status_counts_failures(tmp_path: Path) -> None:
    root = collected(tmp_path)
    environment = {"SS4D_BLENDER_PYTHON": blender_that_hangs(tmp_path)}
    result = toolkit("pose", root, "--time-limit", "0.5", **environment)
    assert result.returncode == 3
    assert "FAILED pose object_0: took longer than 0.5 s" in result.stderr
    assert [row["status"] for row in read_table(root, "pose")] == ["failed"] * 3
    assert toolkit("pose", root, **environment).returncode == 3  # known, not tried again

    (root / "source" / "empty.glb").touch()
    assert main(["collect", "--root", str(root)]) == 1


def test_interrupt(tmp_path: Path) -> None:
    root = collected(tmp_path)
    driver = subprocess.Popen(
        command("pose", root, "--workers", "2"),
        cwd=REPOSITORY,
        env=os.environ | {"SS4D_BLENDER_PYTHON": blender_that_hangs(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background makes them, and their children, ignore SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 30
    while not list(root.glob("tmp/*")) and time.monotonic() < deadline:  # until a worker has begun
        time.sleep(0.05)
    driver.send_signal(signal.SIGINT)
    _, errors = driver.communicate(timeout=30)
    assert driver.returncode == 130
    assert errors.splitlines()[-1] == "pose: interrupted; run the same command again to continue"
    assert "Traceback" not in errors
    assert not list((root / "tmp").iterdir())
    assert not (root / "records").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["curate"], r"collect.parquet is missing: run `python -m dataset_toolkits collect"),
        (["collect"], "collect: collect needs a source: collect.folder=DIR"),
        (
            ["collect", "collect.foldr=x"],
            "unknown key collect.foldr: did you mean collect.folder?",
        ),
        (["all", "--shard", "0/2"], "--shard goes with one of pose, render, voxelize, features, encode"),
        (["voxelize", "--shard", "2/2"], "the shard 2/2 is not of the form i/n"),
    ],
)
def test_mistakes_are_told_in_one_sentence(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, "--root", str(tmp_path)]) == 2
    output = capsys.readouterr()
    assert message in output.err
    assert output.err.count("\n") == 1
    assert output.out == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["voxelise"], "invalid choice: 'voxelise'"),
        (["pose", "--workers", "0"], "0 is not a whole number of at least 1"),
        (["pose", "--time-limit", "0"], "0 is not a number of seconds above 0"),
        (["pose", "--time-limit", "1h"], "1h is not a number of seconds above 0"),
    ],
)
def test_mistakes_in_switches(
    tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([*arguments, "--root", str(tmp_path)])
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


def test_options_may_stand_on_both_sides_of_switches(tmp_path: Path) -> None:
    root = collected(tmp_path)
    arguments = ["collect.only=[object 1]", "--root", str(root), "--workers", "2", "collect.val_share=1"]
    assert main(["collect", *arguments]) == 0
    assert [(row["asset_id"], row["split"]) for row in read_table(root, "collect")] == [("object 1", "val")]
