"""Presets of quality and the samplers' settings in pipeline.json: what each comes to, and what goes before it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_inference import frames, run, write_folder

from ss4d import SS4DPipeline
from ss4d.flow import SamplerSettings
from ss4d.models.checkpoint import CheckpointError
from ss4d.models.folder import PipelineFolder
from ss4d.quality import QUALITIES


@pytest.mark.parametrize(("steps", "fast"), [(1, 1), (2, 1), (4, 2), (25, 12)])
def test_fast_halves_the_steps_and_nothing_else(steps: int, fast: int):
    settings = SamplerSettings(steps, 4.0, (0.2, 0.9), 2.0, "multistep")
    assert QUALITIES["fast"].settings(settings) == SamplerSettings(fast, 4.0, (0.2, 0.9), 2.0, "multistep")
    assert QUALITIES["balanced"].settings(settings) == QUALITIES["best"].settings(settings) == settings


@pytest.mark.parametrize(
    ("given", "steps", "refined"),
    [
        ({}, 2, False),
        ({"quality": "balanced"}, 2, False),
        ({"quality": "fast"}, 1, False),
        ({"quality": "fast", "steps": 3}, 3, False),
        ({"quality": "best"}, 2, True),
        ({"quality": "best", "refine": False}, 2, False),
    ],
)
def test_a_run_takes_the_preset_and_what_is_given_goes_before_it(
    given: dict[str, Any], steps: int, refined: bool, pipeline_folder: Path
):
    result = SS4DPipeline.from_pretrained(pipeline_folder, "cpu").run(frames(1), **given)
    assert (result.structure.steps, result.latents.steps) == (steps, steps)
    assert (result.refinement is not None) == refined


def test_the_command_takes_a_preset(pipeline_folder: Path, tmp_path: Path):
    source = write_folder(tmp_path / "in", frames(1))
    arguments = ["--model", pipeline_folder, "--out", tmp_path / "out", "--size", 64, "--quality", "fast"]
    assert run(source, *arguments) == 0
    assert json.loads((tmp_path / "out/result.json").read_text())["structure_sampler"]["steps"] == 1


def test_an_unknown_preset_is_refused(pipeline_folder: Path):
    with pytest.raises(ValueError, match="quality 'superb': choose one of fast, balanced, best"):
        SS4DPipeline.from_pretrained(pipeline_folder, "cpu").run(frames(1), quality="superb")


def sampler_of(folder: Path, copy: Path, **params: Any) -> SamplerSettings:
    """What is read from a copy of a pipeline.json with these parameters added."""
    content = json.loads((folder / "pipeline.json").read_text())
    content["args"]["slat_sampler"]["params"] |= params
    (copy / "pipeline.json").write_text(json.dumps(content))
    return PipelineFolder.open(copy).sampler("slat_sampler")


def test_a_checkpoint_without_a_solver_is_eulers_and_a_named_one_is_taken(pipeline_folder: Path, tmp_path: Path):
    params = json.loads((pipeline_folder / "pipeline.json").read_text())["args"]["slat_sampler"]["params"]
    assert "solver" not in params  # as in the released files, and as versions that know no choice read it
    assert sampler_of(pipeline_folder, tmp_path).solver == "euler"
    assert sampler_of(pipeline_folder, tmp_path, solver="multistep").solver == "multistep"
    assert SamplerSettings(solver="heun").entries()["solver"] == "heun"


def test_an_unknown_solver_in_a_checkpoint_is_refused(pipeline_folder: Path, tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"slat_sampler has an unknown setting .solver = rk45: choose from"):
        sampler_of(pipeline_folder, tmp_path, solver="rk45")
