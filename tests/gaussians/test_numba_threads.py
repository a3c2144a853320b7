"""The CPU rasteriser and threads: their number changes no bit of the result, and torch keeps its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from numba.core.dispatcher import Dispatcher

from ss4d.gaussians.backends.numba_compositing import backward, count_tiles, fill_tiles, forward, sum_slots
from ss4d.gaussians.backends.numba_projection import project, project_backward

KERNELS = (project, count_tiles, fill_tiles, forward, backward, sum_slots, project_backward)
THREADS = """
import sys

import torch
from test_rasterize import images, random_scene, render_with_gradients

g, results = random_scene(2000, 0.03, seed=2), []
for count in (3, 2, 1):
    torch.set_num_threads(count)
    rendering, gradients = render_with_gradients(g, 64, 80, "numba")
    results.append([*images(rendering), *gradients.values()])
same = [all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True)) for other in results[1:]]
sys.exit(0 if all(same) else f"differs: {same}")
"""


def run_python(script: str, **environment: str) -> None:
    here, root = Path(__file__).parent, Path(__file__).parents[2]
    paths = os.pathsep.join(map(str, (here, root / "tests", root)))
    result = subprocess.run(
        [sys.executable, "-c", script],
        env={key: value for key, value in {**os.environ, "PYTHONPATH": paths, **environment}.items() if value},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_are_compiled(kernel: Any) -> None:
    """Python runs them as well, with the same results in ten times the time of a picture."""
    assert isinstance(kernel, Dispatcher)


def test_bitwise_the_same_on_any_number_of_threads() -> None:
    run_python(THREADS)


ALONE = """
import torch

torch.set_num_threads(1)
from ss4d.cameras import Camera
from ss4d.gaussians import Gaussians, rasterize

g = Gaussians(torch.zeros(1, 3), torch.full((1, 3), 0.1), torch.eye(4)[:1], torch.ones(1, 1), torch.zeros(1, 1, 3))
camera = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 2], [0, 0, 0, 1]])
rasterize(g, Camera(camera, torch.tensor([[1.4, 0, 0.5], [0, 1.4, 0.5], [0, 0, 1]])), 32, torch.zeros(3))
assert torch.get_num_threads() == 1, torch.get_num_threads()
"""


def test_rendering_leaves_torchs_threads_alone() -> None:
    run_python(ALONE, OMP_NUM_THREADS="")
