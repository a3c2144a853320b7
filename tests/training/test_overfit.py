"""Each experiment, as configs/experiment/*/tiny.yaml has it, learns four real clips by heart (assets/four_clips)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from small_runs import logged, resolve

from ss4d.training.run import run

ROOT = Path(__file__).parents[2]
LIMIT = 180  # seconds of one core; time of the processor, which other work beside the tests does not stretch

# Steps, what else differs from the tiny experiment, and the loss that must be reached (mean of the last ten steps)
# from the one of the first five.
CASES = {
    "structure_vae": (150, ["batch_size=2"], 1.0, 0.50),
    "structure_flow": (100, ["batch_size=16", "frames=[1]"], 1.3, 0.65),
    "sparse_vae": (160, ["data.tokens_per_batch=3000", "frames=[1]"], 0.07, 0.055),
    "sparse_flow": (120, ["data.tokens_per_batch=4000", "frames=[1]"], 1.5, 1.3),
}


@pytest.fixture
def threads() -> Iterator[None]:
    """Torch's number of threads, put back after a run that sets it."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("experiment", list(CASES))
def test_four_clips_are_learnt(experiment: str, tmp_path: Path):
    steps, changes, first, last = CASES[experiment]
    lines = [f"experiment={experiment}/tiny", "debug=overfit", f"run_dir={tmp_path}", f"train.steps={steps}"]
    lines += [f"data.root={ROOT}/assets/four_clips", "threads=1", *changes]
    if experiment == "sparse_flow":
        lines.append(f"objective.image_encoder={ROOT}/checkpoints/ss4d-tiny/ckpts/image_encoder")
    started = time.process_time()
    run(resolve(lines))
    losses = logged(tmp_path)
    begun, ended = sum(losses[:5]) / 5, sum(losses[-10:]) / 10
    print(f"{experiment}: {time.process_time() - started:.0f} s, {begun:.3f} to {ended:.3f}")
    assert begun > first and ended < last
    assert time.process_time() - started < LIMIT
