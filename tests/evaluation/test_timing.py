"""Seconds of the pipeline, from runs whose cost is known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ss4d.evaluation import timing
from ss4d.evaluation.options import TimingOptions
from ss4d.result import Stage


def pipeline_that_costs(seconds: list[float]) -> Any:
    """A pipeline whose runs take so long by their own account, one after the other."""
    left = iter(seconds)

    def run(rgba: np.ndarray, seed: int) -> SimpleNamespace:
        stages = [Stage("structure", next(left), 1.0)]
        return SimpleNamespace(stages=stages, precision="float32", voxels=[[0]], write=lambda place: None)

    return SimpleNamespace(from_pretrained=lambda *_, **__: SimpleNamespace(run=run))


def test_the_cold_run_is_not_among_those_of_the_median(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(timing, "SS4DPipeline", pipeline_that_costs([100.0, 1.0, 3.0]))
    monkeypatch.setattr(timing, "read_clip", lambda path, frames: path)
    monkeypatch.setattr(timing, "find_foreground", lambda clip: np.zeros((1, 8, 8, 4), np.uint8))
    monkeypatch.setattr(timing, "checkpoint_hash", lambda model: "0" * 64)
    report = timing.measure(TimingOptions(clip="clip.mp4", model="model", repeats=2, device="cpu"))
    assert report["cold_seconds"] == 100 and report["seconds"] == 2
