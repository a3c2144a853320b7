"""A set of static objects, made by the command line with Blender: killed and resumed, and laid out as declared."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_stage import snapshot
from gltf_builder import GltfBuilder, cube
from html_page import Page
from safetensors import safe_open

from dataset_toolkits.blender.process import BlenderProcess
from ss4d.data.format import COLUMNS, RECORD_COLUMNS, SIMILARITIES, Cube, artifact_path, read_table

REPOSITORY = Path(__file__).parents[2]
OPTIONS = [
    *("curate.static=true", "render.engine=BLENDER_WORKBENCH", "render.size=64", "render.views=4"),
    *("render.cond_size=32", "render.cond_views=1", "render.cond_around_static=2"),
    *("voxelize.frame=view", "voxelize.resolutions=[16]"),
]
NAMES = ["a", "b", "c"]


def write_assets(folder: Path) -> None:
    """Boxes of different proportions."""
    folder.mkdir()
    for index, name in enumerate(NAMES):
        builder = GltfBuilder()
        builder.node("box", mesh=cube(builder), scale=[1, 1 + index / 2, 0.5])
        builder.write(folder / f"{name}.glb")


def start(root: Path, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dataset_toolkits", "all", "--root", str(root), "--workers", "1"]
    return subprocess.Popen(
        [*command, f"collect.folder={folder}", *OPTIONS],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(root: Path, folder: Path) -> None:
    driver = start(root, folder)
    errors = driver.communicate(timeout=900)[1]
    assert driver.returncode == 0, errors


def kill_after_first_record(root: Path, folder: Path, stage: str) -> None:
    """Start, and kill (SIGKILL) once the stage has made one item and works on the next."""
    driver = start(root, folder)
    deadline = time.monotonic() + 600
    while not list(root.glob(f"records/{stage}/*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert driver.poll() is None
    driver.kill()
    driver.communicate()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, blender: BlenderProcess) -> Path:
    path = tmp_path_factory.mktemp("static") / "assets"
    write_assets(path)
    return path


@pytest.fixture(scope="module")
def root(folder: Path) -> Path:
    """The set, made without interruption."""
    path = folder.parent / "set"
    finish(path, folder)
    return path


@pytest.mark.slow
def test_static_clips_killed_and_resumed_are_the_same_bytes(root: Path, folder: Path, tmp_path: Path) -> None:
    for stage in ("pose", "render"):
        kill_after_first_record(tmp_path / "set", folder, stage)
        assert len(list((tmp_path / "set").glob(f"records/{stage}/*"))) < len(NAMES)
    finish(tmp_path / "set", folder)
    assert snapshot(tmp_path / "set") == snapshot(root)


@pytest.mark.slow
def test_tables_have_the_columns_that_the_format_names(root: Path) -> None:
    for stage, own in COLUMNS.items():
        if stage == "encode":
            continue
        expected = {column.replace("<R>", "16") for column in own}
        if stage not in ("collect", "curate"):
            expected |= set(RECORD_COLUMNS)
        assert set(read_table(root, stage)[0]) == expected, stage


@pytest.mark.slow
def test_a_static_clip_has_one_frame_and_a_cube_for_each_conditioning_video(root: Path) -> None:
    assert [(row["clip_name"], row["clip"], row["accepted"]) for row in read_table(root, "curate")] == [
        (name, None, True) for name in NAMES
    ]
    assert Page(root / "report" / "index.html").of("num-clips").text == "3"
    assert {row["frames"] for row in read_table(root, "render")} == {1}
    assert {(row["cubes"], row["outside"] < 0.5) for row in read_table(root, "voxelize")} == {(3, True)}
    with safe_open(artifact_path(root, "features", "b"), "np") as file:
        cubes = [Cube(view) for view in range(3)]
        names = {name(16) for cube in cubes for name in (cube.coords, cube.feats, cube.view_counts)}
        assert set(file.keys()) == names | {SIMILARITIES}
        for cube_ in cubes:
            assert set(file.get_tensor(cube_.coords(16))[:, 0]) == {0}
