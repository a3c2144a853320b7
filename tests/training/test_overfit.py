"""Each experiment, as configs/experiment/*/tiny.yaml has it, learns four real clips by heart (assets/four_clips)."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from small_runs import figures, resolve

import train

CLIPS = Path(train.__file__).parent / "assets/four_clips"
LIMIT = 180  # seconds on one core
COMMON = ["train.warmup_steps=5", "train.validate_every=0", "train.preview_every=0", "train.save_every=1000"]

# Steps, what else differs from the tiny experiment, and the loss that must be reached (mean of the last five steps)
# from the one at the start.
CASES = {
    "structure_vae": (60, ["batch_size=4", "data.quarter_turns=[0]"], 1.0, 0.30),
    "structure_flow": (100, ["batch_size=16", "frames=[1]", "data.quarter_turns=[0]"], 1.3, 0.65),
    "sparse_vae": (60, ["data.tokens_per_batch=3000", "frames=[2]", "data.quarter_turns=[0]"], 0.15, 0.05),
    "sparse_flow": (60, ["data.tokens_per_batch=6000", "frames=[2]", "data.quarter_turns=[0]"], 1.5, 0.9),
}


@pytest.mark.slow
@pytest.mark.parametrize("experiment", list(CASES))
def test_four_clips_are_learnt(experiment: str, tmp_path: Path):
    steps, changes, first, last = CASES[experiment]
    lines = [f"experiment={experiment}/tiny", f"data.root={CLIPS}", f"run_dir={tmp_path}", f"train.steps={steps}"]
    lines += ["train.log_every=1", *COMMON, *changes]
    if experiment == "sparse_flow":
        lines.append("objective.image_encoder=checkpoints/ss4d-tiny/ckpts/image_encoder")
    started = time.monotonic()
    train.run(resolve(lines))
    losses = figures(tmp_path)
    print(f"{experiment}: {time.monotonic() - started:.0f} s, {losses[0]:.3f} to {sum(losses[-5:]) / 5:.3f}")
    assert losses[0] > first and sum(losses[-5:]) / 5 < last
    assert time.monotonic() - started < LIMIT
