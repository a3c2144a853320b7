"""The peak of this very process."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch

from ss4d.memory import peak_memory

CPU = torch.device("cpu")


def test_memory_of_a_cpu_includes_what_was_freed():
    before = peak_memory(CPU)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    held = torch.ones((before - pages * resource.getpagesize() + 200_000_000) // 4)  # 200 MB above the peak
    del held
    assert peak_memory(CPU) - before == pytest.approx(200e6, abs=50e6)
