"""Rates by hand."""

from __future__ import annotations

import pytest
import torch

from ss4d.training.distributed import World
from ss4d.training.throughput import peak_flops, throughput

FIGURES = {"clips": 2.0, "frames": 8.0, "tokens": 1000.0, "batches": 3.0, "seconds": 0.5, "loss": 1.0}


def test_rates_count_every_batch_of_every_process():
    rates = throughput(FIGURES, flops_per_token=1e9, world=World(rank=0, size=4, device=torch.device("cpu")))
    assert rates == pytest.approx(
        {
            "steps_per_second": 2,
            "clips_per_second": 48,  # 2 clips, 3 batches, 4 processes, in half a second
            "frames_per_second": 192,
            "tokens_per_second": 24000,
            "model_tflops": 24,
        }
    )


def test_utilisation_is_of_the_peak_of_all_gpus(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    peak = peak_flops("NVIDIA H100 80GB HBM3")
    assert peak is not None
    world = World(rank=0, size=4, device=torch.device("cuda"))
    rates = throughput(FIGURES, flops_per_token=peak / 12000, world=world)  # 24,000 tokens a second: 2 peaks of 4
    assert rates["utilisation"] == pytest.approx(0.5)


def test_peaks_are_known_by_name():
    assert peak_flops("NVIDIA A800-SXM4-80GB") == 312e12
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops(None) is None
