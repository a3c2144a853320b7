"""Damaged files through the readers of the commands: they are read, or refused in one sentence, within seconds."""

from __future__ import annotations

import random
import shutil
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from videos import make_video, numbered

from ss4d.failures import run_command
from ss4d.gaussians import Gaussians, read_ply, write_ply
from ss4d.models.folder import PipelineFolder
from ss4d.video import read_clip
from ss4d.viewer.result import read_result

SEEDS = range(12)


def damaged(content: bytes, seed: int) -> bytes:
    """Cut short, or with bits flipped in the header or anywhere."""
    draw = random.Random(seed)
    kind, changed = seed % 3, bytearray(content)
    if kind == 0:
        return content[: draw.randrange(len(content))]
    for _ in range(draw.choice([1, 4, 16])):
        changed[draw.randrange(min(len(changed), 400) if kind == 1 else len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


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
