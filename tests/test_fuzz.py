"""Damaged files through the readers of the commands: they are read, or refused in one sentence, within seconds."""

from __future__ import annotations

import json
import shutil
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from damage import damaged, with_wrong_values
from PIL import Image
from videos import make_video, numbered

from dataset_toolkits.__main__ import main as toolkit
from scripts.eval.__main__ import main as evaluation
from ss4d.failures import run_command
from ss4d.gaussians import Gaussians, read_ply, write_ply
from ss4d.models.folder import PipelineFolder
from ss4d.video import find_foreground, read_clip
from ss4d.viewer.result import read_result

SEEDS = range(12)
REPOSITORY = Path(__file__).parents[1]


def write_clip(path: Path) -> None:
    frames = numbered(6)
    if path.suffix in (".mp4", ".webm"):
        make_video(path, frames, codec="libx264" if path.suffix == ".mp4" else "libvpx-vp9")
        return
    first, *others = [Image.fromarray(frame) for frame in frames]
    if path.suffix == ".gif":
        first.save(path, save_all=True, append_images=others)
    else:
        first.save(path)


def check(path: Path, read: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> None:
    content = path.read_bytes()
    statuses = set()
    for seed in SEEDS:
        path.write_bytes(damaged(content, seed))
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            statuses.add(run_command(read, []))
        said = capsys.readouterr().err
        assert "unforeseen" not in said and said.count("\n") <= 1, f"seed {seed}: {said}"
        assert time.perf_counter() - started < 30
    path.write_bytes(content)
    assert run_command(read, []) == 0 and 1 in statuses


@pytest.mark.parametrize("suffix", ["mp4", "webm", "gif", "png", "webp"])
def test_clips(suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"clip.{suffix}"
    write_clip(path)
    check(path, lambda: read_clip(path), capsys)


def test_gaussians_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "frames").mkdir()
    frame, report = tmp_path / "frames/frame_00000.ply", tmp_path / "result.json"
    shapes = ((40, 3), (40, 3), (40, 4), (40, 1), (40, 1, 3))
    write_ply(Gaussians(*(torch.rand(*shape) + 0.01 for shape in shapes)), frame)
    report.write_text('{"num_frames": 1, "resolution": 8, "input": "clip.mp4"}')
    check(frame, lambda: read_ply(frame), capsys)
    check(report, lambda: read_result(tmp_path), capsys)


@pytest.mark.parametrize("name", ["pipeline.json", "ckpts/image_encoder.json", "ckpts/image_encoder.safetensors"])
def test_checkpoints(name: str, pipeline_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = shutil.copytree(pipeline_folder, tmp_path / "model")
    check(folder / name, lambda: PipelineFolder.open(folder).load_models(), capsys)


def test_masks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A palette, a folder of an object each, and a video of masks."""
    frames = numbered(2)
    mask = np.zeros((64, 64), np.uint8)
    mask[20:40, 16:50] = 1
    picture = Image.fromarray(mask, "P")
    picture.putpalette([0, 0, 0, 128, 0, 0])
    for folder in ("masks", "objects/1", "objects/2"):
        (tmp_path / folder).mkdir(parents=True)
        for number in range(2):
            picture.save(tmp_path / folder / f"{number}.png")
    make_video(tmp_path / "masks.mp4", np.repeat(255 * mask[None, ..., None], 3, axis=-1).repeat(2, 0))
    for masks, file in (("masks", "masks/1.png"), ("objects", "objects/2/0.png"), ("masks.mp4", "masks.mp4")):
        check(tmp_path / file, partial(find_foreground, frames, tmp_path / masks), capsys)


def check_command(path: Path, run: Callable[[], int], content: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    """Damage a text file of options, which has `content` as YAML or JSON: a command ends with a sentence or none."""
    whole = path.read_bytes()
    statuses = set()
    for seed in range(40):
        changed = damaged(whole, seed)
        if seed % 2 and content is not None:
            wrong = with_wrong_values(yaml.safe_load(whole), seed)
            changed = (json.dumps(wrong) if content == "json" else yaml.safe_dump(wrong)).encode()
        path.write_bytes(changed)
        status = run()
        said = capsys.readouterr().err
        assert said.count("\n") <= 1 or "asset/s" in said, f"seed {seed}: {said}"
        assert said or not status, f"seed {seed}"
        statuses.add(status)
    path.write_bytes(whole)
    assert len(statuses) > 1


@pytest.mark.parametrize("name", ["tiny", "paper"])
def test_options_of_the_toolkit(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = Path(shutil.copy(REPOSITORY / f"configs/data/{name}.yaml", tmp_path / "options.yaml"))
    (tmp_path / "fox.glb").write_text("fox")
    arguments = ["collect", "--root", str(tmp_path / "set"), "--config", str(file), f"collect.folder={tmp_path}"]
    check_command(file, lambda: toolkit(arguments), "yaml", capsys)


def test_indexes_of_assets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "fox.glb").write_text("fox")
    entry = {"id": "fox", "file": "fox.glb", "split": "train", "group": "a", "clips": ["run"], "hide_nodes": ["b"]}
    index = tmp_path / "index.json"
    index.write_text(json.dumps({"objects": [entry]}))
    root = tmp_path / "set"
    check_command(
        index, lambda: toolkit(["collect", "--root", str(root), f"collect.folder={tmp_path}"]), "json", capsys
    )


@pytest.mark.parametrize(("file", "command"), [("davis", "run protocol="), ("suites/ss4d_assets", "suite ")])
def test_protocols_and_suites(file: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(shutil.copy(REPOSITORY / f"configs/eval/{file}.yaml", tmp_path / "mine.yaml"))
    arguments = [*f"{command}{path}".split(), f"data={tmp_path / 'none'}", f"out={tmp_path / 'out'}"]
    for seed in range(40):
        whole = path.read_bytes()
        wrong = yaml.safe_dump(with_wrong_values(yaml.safe_load(whole), seed)).encode()
        path.write_bytes(wrong if seed % 2 else damaged(whole, seed))
        assert evaluation(arguments) == 1  # there is no data set
        said = capsys.readouterr().err
        assert said.startswith(("error: ", "failed: ")) and said.count("\n") == 1, f"seed {seed}: {said}"
        path.write_bytes(whole)
