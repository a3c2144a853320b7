"""The command line: a clip in, a folder of Gaussians and videos out; every mistake gets one sentence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import inference
from ss4d import SS4DPipeline
from ss4d.gaussians.ply import read_ply
from ss4d.video import read_clip, write_video


def frames(count: int, size: int = 48) -> np.ndarray:
    """A disc that moves to the right, RGBA."""
    y, x = np.mgrid[:size, :size]
    clip = np.zeros((count, size, size, 4), np.uint8)
    for frame in range(count):
        disc = (x - 16 - 2 * frame) ** 2 + (y - 24) ** 2 < 100
        clip[frame][disc] = (200, 60, 30, 255)
    return clip


def write_folder(folder: Path, clip: np.ndarray) -> Path:
    folder.mkdir()
    for index, frame in enumerate(clip):
        Image.fromarray(frame).save(folder / f"{index}.png")
    return folder


def run(*arguments: object) -> int:
    return inference.main([str(argument) for argument in arguments])


@pytest.mark.parametrize("count", [1, 3])
def test_a_folder_of_images_becomes_gaussians_and_videos(count: int, pipeline_folder: Path, tmp_path: Path):
    out = tmp_path / "out"
    source = write_folder(tmp_path / "in", frames(count))
    assert run(source, "--model", pipeline_folder, "--out", out, "--size", 64) == 0
    report = json.loads((out / "result.json").read_text())
    plys = sorted((out / "frames").iterdir())
    assert [path.name for path in plys] == [f"{i:05d}.ply" for i in range(count)]
    assert [len(read_ply(path)) for path in plys] == report["gaussians"]
    assert [2 * n for n in report["voxels"]] == report["gaussians"]
    assert {stage["name"] for stage in report["stages"]} == {
        "conditioning",
        "structure",
        "latents",
        "gaussians",
        "writing",
    }
    assert all(stage["seconds"] > 0 and stage["peak_memory_mb"] > 0 for stage in report["stages"])
    assert len(read_clip(out / "compare.mp4").frames) == count == len(read_clip(out / "voxels.mp4").frames)
    assert len(read_clip(out / "orbit.mp4").frames) >= count
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]  # no temporary folder stays


def test_a_video_is_keyed_and_sampled_and_an_earlier_result_replaced(pipeline_folder: Path, tmp_path: Path):
    clip = frames(6)
    white = np.where(clip[..., 3:] > 0, clip[..., :3], 255).astype(np.uint8)
    write_video(tmp_path / "clip.mp4", white, 12.0)
    for steps in (1, 2):
        arguments = ["--num-frames", 2, "--steps", steps, "--guidance", 0, "--size", 64]
        assert run(tmp_path / "clip.mp4", "--model", pipeline_folder, "--out", tmp_path / "out", *arguments) == 0
    report = json.loads((tmp_path / "out/result.json").read_text())
    assert report["num_frames"] == 2
    assert report["structure_sampler"]["steps"] == 2 and report["latent_sampler"]["cfg_strength"] == 0


def test_the_implementations_are_chosen_and_named(pipeline_folder: Path, tmp_path: Path):
    source, out = write_folder(tmp_path / "in", frames(1)), tmp_path / "out"
    arguments = ["--size", 32, "--backend", "attention=torch", "rasterizer=torch"]
    assert run(source, "--model", pipeline_folder, "--out", out, *arguments) == 0
    report = json.loads((out / "result.json").read_text())
    assert report["backend"] == {"attention": "torch", "convolution": "ours", "rasterizer": "torch"}
    assert run(source, "--model", pipeline_folder, "--out", out, "--size", 32) == 0
    report = json.loads((out / "result.json").read_text())
    assert report["backend"]["attention"] == "sdpa"


def test_the_seed_decides(pipeline_folder: Path):
    pipeline = SS4DPipeline.from_pretrained(pipeline_folder)
    first, again, other = (pipeline.run(frames(2), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.gaussians[1].xyz, again.gaussians[1].xyz)
    assert first.voxels[0].shape != other.voxels[0].shape or not torch.equal(first.voxels[0], other.voxels[0])


def broken_model(pipeline_folder: Path, tmp_path: Path, fault: str) -> Path:
    folder = shutil.copytree(pipeline_folder, tmp_path / "model")
    path = folder / "ckpts/slat_flow_model.safetensors"
    weights = load_file(path)
    if fault == "missing":
        del weights["out_layer.bias"]
    elif fault == "extra":
        weights["blocks.7.surprise"] = torch.zeros(3)
    elif fault == "misshapen":
        weights["out_layer.bias"] = torch.zeros(3)
    save_file(weights, path)
    if fault == "truncated":
        path.write_bytes(path.read_bytes()[:-1000])
    elif fault == "no file":
        path.unlink()
    return folder


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing", "missing 1 weight (out_layer.bias)"),
        ("extra", "unexpected 1 weight (blocks.7.surprise)"),
        ("misshapen", "of another shape 1 weight (out_layer.bias [3] instead of [4])"),
        ("truncated", "is damaged or cut short"),
        ("no file", "has no ckpts/slat_flow_model.safetensors"),
    ],
)
def test_a_broken_model_folder_is_refused(
    fault: str, message: str, pipeline_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source = write_folder(tmp_path / "in", frames(1))
    model = broken_model(pipeline_folder, tmp_path, fault)
    assert run(source, "--model", model, "--out", tmp_path / "out") == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and message in error and "\n" not in error
    assert not (tmp_path / "out").exists()


def no_input(folder: Path) -> Path:
    return folder / "missing.mp4"


def empty_folder(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def unreadable_video(folder: Path) -> Path:
    (folder / "noise.mp4").write_bytes(bytes(range(256)) * 20)
    return folder / "noise.mp4"


def frames_of_different_sizes(folder: Path) -> Path:
    source = write_folder(folder / "sizes", frames(2))
    Image.fromarray(frames(1, size=50)[0]).save(source / "9.png")
    return source


def no_foreground(folder: Path) -> Path:
    return write_folder(folder / "clear", np.zeros((2, 32, 32, 4), np.uint8))


def busy_background(folder: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    return write_folder(folder / "busy", noise)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (no_input, "missing.mp4"),
        (empty_folder, "empty"),
        (unreadable_video, "noise.mp4"),
        (frames_of_different_sizes, "9.png"),
        (no_foreground, "--mask"),
        (busy_background, "--mask"),
    ],
)
def test_bad_input_is_refused(make, message, pipeline_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(make(tmp_path), "--model", pipeline_folder, "--out", tmp_path / "out") == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and message in error and "\n" not in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-frames", "0"], "--num-frames 0"),
        (["--steps", "0"], "steps = 0"),
        (["--backend", "attention=fast"], "choose one of auto, torch, sdpa"),
        (["--backend", "convolution=spconv"], "backend.convolution = spconv"),
        (["--model", "nowhere/at/all"], "there is no model folder nowhere/at/all"),
    ],
)
def test_bad_options_are_refused(arguments, message, pipeline_folder: Path, tmp_path: Path, capsys):
    source = write_folder(tmp_path / "in", frames(1))
    assert run(source, "--model", pipeline_folder, "--out", tmp_path / "out", *arguments) == 1
    assert message in capsys.readouterr().err


def test_a_folder_with_other_content_is_not_replaced(pipeline_folder: Path, tmp_path: Path, capsys):
    source = write_folder(tmp_path / "in", frames(1))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    assert run(source, "--model", pipeline_folder, "--out", tmp_path / "mine") == 1
    assert "holds something else" in capsys.readouterr().err
    assert (tmp_path / "mine/thesis.txt").read_text() == "years of work"
