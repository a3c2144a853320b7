"""The flows and the sparse VAE learn four real clips by heart (assets/four_clips).

The structure VAE learns two boxes in test_trainer.py: of objects that fill a fiftieth of the cube its dice loss takes
longer than a test has.
"""

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

FAST = ["train.warmup_steps=5"]

# Steps, what else differs from the tiny experiment (models with fewer blocks, which learn faster), and the share of the
# loss (mean of the first five steps) that may be left at the end (mean of the last ten).
CASES = {
    "structure_flow": (
        30,
        [*FAST, "train.learning_rate=2e-3", "batch_size=16", "frames=[1]", "models.flow.args.num_blocks=2"],
        0.65,
    ),
    "sparse_vae": (
        60,
        [
            *FAST,
            *("data.tokens_per_batch=6400", "batch_size=4", "frames=[1]", "models.encoder.args.num_blocks=1"),
            *("models.decoder.args.num_blocks=2", "models.decoder.args.representation_config.num_gaussians=4"),
        ],
        0.88,
    ),
    "sparse_flow": (
        40,
        [
            *FAST,
            "train.learning_rate=3e-3",
            "data.tokens_per_batch=4000",
            "frames=[1]",
            "models.flow.args.num_blocks=2",
        ],
        0.8,
    ),
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
    steps, changes, share = CASES[experiment]
    lines = [f"experiment={experiment}/tiny", "debug=overfit", f"run_dir={tmp_path}"]
    lines += [f"data.root={ROOT}/assets/four_clips", "threads=1"]
    lines += [f"train.steps={steps}", *changes]
    if experiment == "sparse_flow":
        lines.append(f"objective.image_encoder={ROOT}/checkpoints/ss4d-tiny/ckpts/image_encoder")
    started = time.process_time()
    run(resolve(lines))
    losses = logged(tmp_path)
    begun, ended = sum(losses[:5]) / 5, sum(losses[-10:]) / 10
    print(f"{experiment}: {time.process_time() - started:.0f} s, {begun:.3f} to {ended:.3f}")
    assert ended < share * begun
    assert time.process_time() - started < LIMIT
