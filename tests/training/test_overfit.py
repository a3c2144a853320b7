"""Each experiment, as configs/experiment/*/tiny.yaml has it, learns four real clips by heart (assets/four_clips)."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from small_runs import figures, resolve

import train

ROOT = Path(train.__file__).parent
LIMIT = 180  # seconds on one core

# Steps, what else differs from the tiny experiment, and the loss that must be reached (mean of the last five steps)
# from the one at the start.
CASES = {
    "structure_vae": (60, ["batch_size=4"], 1.0, 0.30),
    "structure_flow": (100, ["batch_size=16", "frames=[1]"], 1.3, 0.65),
    "sparse_vae": (60, ["data.tokens_per_batch=3000", "frames=[2]"], 0.15, 0.05),
    "sparse_flow": (60, ["data.tokens_per_batch=6000", "frames=[2]"], 1.5, 0.9),
}


@pytest.mark.slow
@pytest.mark.parametrize("experiment", list(CASES))
def test_four_clips_are_learnt(experiment: str, tmp_path: Path):
    steps, changes, first, last = CASES[experiment]
    lines = [f"experiment={experiment}/tiny", "debug=overfit", f"run_dir={tmp_path}", f"train.steps={steps}"]
    lines += [f"data.root={ROOT}/assets/four_clips", *changes]
    if experiment == "sparse_flow":
        lines.append(f"objective.image_encoder={ROOT}/checkpoints/ss4d-tiny/ckpts/image_encoder")
    started = time.monotonic()
    train.run(resolve(lines))
    losses = figures(tmp_path)
    print(f"{experiment}: {time.monotonic() - started:.0f} s, {losses[0]:.3f} to {sum(losses[-5:]) / 5:.3f}")
    assert losses[0] > first and sum(losses[-5:]) / 5 < last
    assert time.monotonic() - started < LIMIT
