"""The result that the browsers open."""

from __future__ import annotations

from pathlib import Path

import pytest

import inference
from ss4d.cameras import Orbit
from ss4d.gaussians import GaussianSequence
from ss4d.viewer.__main__ import main
from ss4d.viewer.result import read_result

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="session")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four frames of the demo clip by ss4d-tiny, with their player."""
    out = tmp_path_factory.mktemp("viewer") / "result"
    clip = str(ROOT / "assets" / "demo.mp4")
    assert inference.main([clip, "--out", str(out), "--num-frames", "4", "--steps", "2", "--guidance", "0"]) == 0
    assert main([str(out)]) == 0
    return out


@pytest.fixture(scope="session")
def sequence(result: Path) -> GaussianSequence:
    return read_result(result).gaussians


@pytest.fixture(scope="session")
def orbit(result: Path) -> Orbit:
    """Of the checkpoint's view: nearer than that of a result in the frame of its clip, at the height of the input."""
    orbit = read_result(result).orbit
    assert orbit.radius < Orbit().radius and orbit.fov_deg < Orbit().fov_deg and orbit.elevation == 0
    return orbit
