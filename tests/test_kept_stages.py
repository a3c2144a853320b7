"""`pipeline.run(keep=FOLDER)`: several results in one folder, and what is let go."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from test_inference import frames

from ss4d import SS4DPipeline
from ss4d.gaussians import GaussianSequence


@pytest.fixture(scope="module")
def pipeline(pipeline_folder: Path) -> SS4DPipeline:
    return SS4DPipeline.from_pretrained(pipeline_folder, "cpu")


def copied(sequence: GaussianSequence) -> list[torch.Tensor]:
    return [frame.xyz.clone() for frame in sequence]


def test_a_later_run_in_the_folder_leaves_the_first_result_alone(pipeline: SS4DPipeline, tmp_path: Path):
    clip = np.stack(frames(2))
    first = pipeline.run(clip, seed=1, keep=tmp_path / "kept")
    before = copied(first.gaussians)
    second = pipeline.run(clip, seed=2, keep=str(tmp_path / "kept"))
    after = copied(first.gaussians)
    assert all(map(torch.equal, before, after))
    assert not all(map(torch.equal, after, copied(second.gaussians)))


def test_frames_of_a_process_that_ended_go(pipeline: SS4DPipeline, tmp_path: Path):
    left = tmp_path / "frame_0123_00000.safetensors"
    left.write_bytes(b"of an earlier process")
    pipeline.run(np.stack(frames(1)), keep=tmp_path)
    assert not left.exists() and list(tmp_path.glob("frame_*"))


def test_a_folder_is_let_go_with_the_last_result_that_reads_it(pipeline: SS4DPipeline, tmp_path: Path):
    def opened() -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    before = opened()
    results = [pipeline.run(np.stack(frames(1)), keep=tmp_path / str(number)) for number in range(3)]
    assert opened() == before + 3 and results[0].gaussians[0].xyz.isfinite().all()
    results.clear()
    assert opened() == before


def test_a_name_of_any_bytes_is_a_folder(pipeline: SS4DPipeline, tmp_path: Path):
    result = pipeline.run(np.stack(frames(1)), keep=tmp_path / os.fsdecode(b"kept\xff"))
    assert len(result.gaussians[0])


def test_numbers_of_numpy_are_numbers(pipeline: SS4DPipeline, tmp_path: Path):
    given = {"seed": np.int64(3), "steps": np.int64(1), "guidance": np.float32(1)}
    result = pipeline.run(np.stack(frames(1)), keep=tmp_path, **given)  # type: ignore[arg-type]
    plain = pipeline.run(np.stack(frames(1)), seed=3, steps=1, guidance=1.0)
    assert torch.equal(result.gaussians[0].xyz, plain.gaussians[0].xyz)
    result.save(tmp_path / "out", size=32)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"guidance": float("nan")}, ValueError, "cfg_strength = nan"),
        ({"guidance": float("inf")}, ValueError, "cfg_strength = inf"),
        ({"refine": "yes"}, TypeError, "refine must be True, False or RefineSettings, but it is 'yes'"),
        ({"seed": 1.5}, TypeError, "integer"),
        ({"steps": 2.0}, TypeError, "integer"),
    ],
)
def test_what_is_no_number_is_refused_before_the_work(
    pipeline: SS4DPipeline, arguments: dict, error: type[Exception], message: str
):
    with pytest.raises(error, match=message):
        pipeline.run(np.stack(frames(1)), **arguments)


def test_no_window_and_no_rate(pipeline: SS4DPipeline, pipeline_folder: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="window = 0: windows overlap, so take 4 frames or more"):
        SS4DPipeline.from_pretrained(pipeline_folder, "cpu", window=0)
    result = pipeline.run(np.stack(frames(1)))
    for fps in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="fps must be positive"):
            result.save(tmp_path / "out", fps=fps)
    assert not (tmp_path / "out").exists()
