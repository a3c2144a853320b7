"""The command line: a clip in, a folder of Gaussians and videos out; every mistake gets one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from videos import make_video

import inference
from ss4d import SS4DPipeline
from ss4d.gaussians.ply import read_header, read_ply
from ss4d.video import read_clip, write_video
from ss4d.viewer.result import read_result


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
    assert [path.name for path in plys] == [f"frame_{i:05d}.ply" for i in range(count)]
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
    names = {"frames", "preview.png", "player.html", "orbit.mp4", "compare.mp4", "voxels.mp4", "result.json"}
    assert {path.name for path in out.iterdir()} == names
    assert len(read_result(out).gaussians) == count
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


def test_another_run_that_ends_first_takes_nothing(
    pipeline_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    source, out = write_folder(tmp_path / "in", frames(1)), tmp_path / "out"
    small = ["--model", pipeline_folder, "--out", out, "--size", 32, "--backend", "rasterizer=torch"]
    work = SS4DPipeline.run

    def overtaken(pipeline: SS4DPipeline, *arguments: Any, **options: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(SS4DPipeline, "run", work)
            assert run(source, *small, "--seed", 2) == 0
        return work(pipeline, *arguments, **options)

    monkeypatch.setattr(SS4DPipeline, "run", overtaken)
    assert run(source, *small, "--seed", 1) == 0
    assert json.loads((out / "result.json").read_text())["seed"] == 1
    assert (out / "preview.png").is_file() and "instead" not in capsys.readouterr().out
    assert not list(tmp_path.glob("ss4d-result-*"))


def test_a_mask_of_everything_is_taken_at_its_word(pipeline_folder: Path, tmp_path: Path):
    """No background is looked for, though alpha is 255 throughout."""
    source = busy_background(tmp_path)
    masks = write_folder(tmp_path / "masks", np.full((2, 32, 32), 255, np.uint8))
    small = ["--model", pipeline_folder, "--size", 32, "--backend", "rasterizer=torch"]
    assert run(source, "--mask", masks, "--out", tmp_path / "out", *small) == 0


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
        (["--steps", "0"], "--steps 0"),
        (["--size", "0"], "--size 0"),
        (["--guidance", "nan"], "--guidance nan"),
        (["--seed", str(2**70)], "seeds have 64 bits"),
        (["--device", "gpu"], "'gpu' is no device: use cpu, cuda or cuda:N"),
        (["--device", "cuda:99"], "this machine has no device cuda:99"),
        (["--start", "1"], "pictures, which have no times"),
        (["--backend", "attention=fast"], "choose one of auto, torch, sdpa"),
        (["--backend", "convolution=spconv"], "backend.convolution = spconv"),
        (["--model", "nowhere/at/all"], "there is no model folder nowhere/at/all"),
    ],
)
def test_bad_options_are_refused(arguments, message, pipeline_folder: Path, tmp_path: Path, capsys):
    source = write_folder(tmp_path / "in", frames(1))
    assert run(source, "--model", pipeline_folder, "--out", tmp_path / "out", *arguments) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and message in error and "\n" not in error
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_content_is_not_replaced(pipeline_folder: Path, tmp_path: Path, capsys):
    source = write_folder(tmp_path / "in", frames(1))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    assert run(source, "--model", pipeline_folder, "--out", tmp_path / "mine") == 1
    assert "holds something else" in capsys.readouterr().err
    assert (tmp_path / "mine/thesis.txt").read_text() == "years of work"


def test_what_others_keep_in_the_folder_stays(pipeline_folder: Path, tmp_path: Path):
    source, out = write_folder(tmp_path / "in", frames(1)), tmp_path / "outputs"
    small = ["--model", pipeline_folder, "--size", 32, "--backend", "rasterizer=torch"]
    assert run(source, "--out", out / "second", *small) == 0
    second = {path: path.read_bytes() for path in sorted((out / "second").rglob("*")) if path.is_file()}
    (out / "eval").mkdir()
    (out / "eval/table.csv").write_text("numbers")
    for layout in ("compact", "reference"):
        assert run(source, "--out", out, "--ply", layout, *small) == 0
    assert {path: path.read_bytes() for path in second} == second and (out / "eval/table.csv").read_text() == "numbers"
    with (out / "frames/frame_00000.ply").open("rb") as file:
        assert len(read_header(file, "frame").dtype.names or ()) == 62


def test_a_destination_is_checked_before_anything_is_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "out").write_text("mine")
    assert run(tmp_path / "no clip", "--model", tmp_path / "no model", "--out", tmp_path / "out") == 1
    assert "out is a file" in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "mine"


def test_a_part_of_a_clip_is_taken_and_its_pace_kept(pipeline_folder: Path, tmp_path: Path):
    clip = frames(5)
    white = np.where(clip[..., 3:] > 0, clip[..., :3], 255).astype(np.uint8)
    write_video(tmp_path / "clip.mp4", white, durations=[1.0, 0.25, 0.75, 0.25, 1.0])
    arguments = ["--start", 1, "--end", 2.25, "--size", 32, "--model", pipeline_folder, "--out", tmp_path / "out"]
    assert run(tmp_path / "clip.mp4", *arguments, "--backend", "rasterizer=torch") == 0
    for name in ("compare", "voxels"):
        spans = read_clip(tmp_path / f"out/{name}.mp4").durations
        assert spans is not None and np.allclose(spans, [0.25, 0.75, 0.25], atol=1e-4)
    orbit = read_clip(tmp_path / "out/orbit.mp4").durations
    assert orbit is not None and np.allclose(orbit, 1 / 12, atol=1e-4)  # a turntable that does not jerk
    write_video(tmp_path / "fast.mp4", white, durations=[1 / 240] * 5)
    arguments = ["--num-frames", 2, "--size", 32, "--model", pipeline_folder, "--out", tmp_path / "fast"]
    assert run(tmp_path / "fast.mp4", *arguments, "--backend", "rasterizer=torch") == 0
    orbit = read_clip(tmp_path / "fast/orbit.mp4").durations
    assert orbit is not None and np.allclose(orbit, 1 / 60, atol=1e-4)  # nor one that turns in a blink


class WhatIsRed:
    """Stands in for a session of rembg."""

    def predict(self, img: Image.Image) -> list[Image.Image]:
        red, green, blue = np.moveaxis(np.asarray(img).astype(int), -1, 0)
        return [Image.fromarray((255 * (red - np.maximum(green, blue) > 60)).astype(np.uint8))]


def test_a_busy_background_is_removed_by_the_matting_model(
    pipeline_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    clip = frames(3)
    noise = np.random.default_rng(0).integers(0, 100, clip[..., :3].shape)
    source = write_folder(tmp_path / "in", np.where(clip[..., 3:] > 0, clip[..., :3], noise).astype(np.uint8))
    asked: list[str] = []

    def open_session(model: str) -> WhatIsRed:
        asked.append(model)
        return WhatIsRed()

    monkeypatch.setattr("ss4d.video.matting.open_session", open_session)
    arguments = ["--size", 32, "--model", pipeline_folder, "--out", tmp_path / "out", "--backend", "rasterizer=torch"]
    assert run(source, *arguments) == 0
    assert asked == ["birefnet-general-lite"]
    assert (tmp_path / "out/preview.png").stat().st_size > 1000


def test_a_clip_of_a_phone(pipeline_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Stored lying, with a rotation flag, at a variable rate, before noise that moves with the hand."""
    clip = frames(5)
    noise = np.random.default_rng(0).integers(0, 100, (clip.shape[1] + 10, clip.shape[2] + 10, 3))
    behind = np.stack([noise[2 * t : 2 * t + clip.shape[1], t : t + clip.shape[2]] for t in range(5)])
    shown = np.where(clip[..., 3:] > 0, clip[..., :3], behind).astype(np.uint8)[:, :, 4:-4]
    durations = [1 / 30, 1 / 30, 0.5, 1 / 24, 1 / 12]
    stored = np.ascontiguousarray(np.rot90(shown, 1, axes=(1, 2)))
    video = make_video(tmp_path / "IMG_0001.mov", stored, durations, display_matrix=(0, 1, -1, 0))
    monkeypatch.setattr("ss4d.video.matting.open_session", lambda model: WhatIsRed())
    arguments = ["--size", 32, "--model", pipeline_folder, "--out", tmp_path / "out", "--backend", "rasterizer=torch"]
    assert run(video, *arguments) == 0
    read, red = read_clip(video).frames.astype(int), clip[:, :, 4:-4, 3] > 0
    assert read.shape == shown.shape and ((read[..., 0] - read[..., 1] > 60) == red).mean() > 0.97
    spans = read_clip(tmp_path / "out/compare.mp4").durations
    assert spans is not None and np.allclose(spans, durations, atol=1e-3)


def test_warnings_about_the_input_are_notes(pipeline_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    cut = frames(2)[:, 24:]  # half a disc, at the border of the picture
    source = write_folder(tmp_path / "in", cut)
    arguments = ["--num-frames", 5, "--size", 32, "--model", pipeline_folder, "--out", tmp_path / "out"]
    assert run(source, *arguments, "--backend", "rasterizer=torch") == 0
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]
    assert len(notes) == 2 and "only 2 of the 5 frames" in notes[0] and "touches the border" in notes[1]
