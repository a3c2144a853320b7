"""A small result: a ball in three colours with a red knob on top, which moves to the right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ss4d.gaussians import Gaussians, GaussianSequence, write_ply
from ss4d.gaussians.gaussians import SH_DEGREE_0
from ss4d.gaussians.ply import canonical_quaternions

RADIUS = 0.3  # of the ball's Gaussians' centres


def ball(count: int, shift: float) -> Gaussians:
    """A shell of `count` flat Gaussians and a knob of 100 at z = 0.45: nothing about it is symmetric."""
    generator = np.random.default_rng(count)
    index = np.arange(count) + 0.5
    height, turn = 1 - 2 * index / count, np.pi * (1 + np.sqrt(5)) * index
    flat = np.sqrt(1 - height**2)
    directions = np.stack([flat * np.cos(turn), flat * np.sin(turn), height], axis=1)
    knob = np.array([0.0, 0.0, 0.45]) + 0.02 * generator.standard_normal((100, 3))
    xyz = np.concatenate([RADIUS * directions, knob]) + np.array([shift, 0.0, 0.0])
    halfway = directions + np.array([0.0, 0.0, 1.0])  # turns z to the direction
    halfway /= np.maximum(np.linalg.norm(halfway, axis=1, keepdims=True), 1e-9)
    rotation = np.concatenate([halfway[:, 2:], np.cross([0.0, 0.0, 1.0], halfway)], axis=1)
    rotation = np.concatenate([rotation, generator.standard_normal((100, 4))])
    scale = np.concatenate([np.tile([0.02, 0.015, 0.008], (count, 1)), generator.uniform(0.01, 0.02, (100, 3))])
    rgb = np.concatenate([0.5 + 0.4 * directions, np.tile([0.9, 0.1, 0.1], (100, 1))])
    opacity = generator.uniform(0.5, 0.9, (count + 100, 1))
    arrays = (xyz, scale, canonical_quaternions(rotation), opacity, ((rgb - 0.5) / SH_DEGREE_0)[:, None])
    return Gaussians(*(torch.from_numpy(array).float() for array in arrays))


@pytest.fixture(scope="session")
def sequence() -> GaussianSequence:
    return GaussianSequence([ball(2000, 0.0), ball(1800, 0.05), ball(2200, 0.1)])


@pytest.fixture(scope="session")
def result(sequence: GaussianSequence, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the result."""
    return write_result(tmp_path_factory.mktemp("export") / "ball", sequence, {})


@pytest.fixture(scope="session")
def framed(sequence: GaussianSequence, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same result in the frame of its view."""
    folder = tmp_path_factory.mktemp("framed") / "ball"
    return write_result(folder, sequence, {"frame": {"crop": 0.8, "distance": 1.4}})


def write_result(folder: Path, sequence: GaussianSequence, about: dict[str, object]) -> Path:
    """As inference.py writes it, without pictures."""
    (folder / "frames").mkdir(parents=True)
    for index, frame in enumerate(sequence):
        write_ply(frame, folder / "frames" / f"{index:05d}.ply")
    report = {"num_frames": len(sequence), "resolution": 64, "input": "ball.mp4", **about}
    (folder / "result.json").write_text(json.dumps(report))
    return folder
