"""An objective that someone adds, with a model of its own: one class, its name in OBJECTIVES, a config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from small_runs import logged, overrides, resolve
from tiny import RESOLUTION
from torch import nn

from ss4d.data import Occupancy, OccupancyDataset
from ss4d.models import registry
from ss4d.models.checkpoint import load_model
from ss4d.training.objectives import OBJECTIVES, Loss, Objective, ObjectiveOptions
from ss4d.training.previews import Preview
from ss4d.training.run import run


class Denoiser(nn.Module):
    """Something that no other part of the code knows."""

    def __init__(self, channels: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv3d(1, channels, 3, padding=1), nn.ReLU(), nn.Conv3d(channels, 1, 3, padding=1)
        )

    def forward(self, grid: torch.Tensor) -> torch.Tensor:
        return self.layers(grid.flatten(0, 1)).unflatten(0, grid.shape[:2])


@dataclass(frozen=True)
class DenoisingOptions(ObjectiveOptions):
    noise: float = 0.5
    denoiser: str | None = None  # a trained one, frozen
    head: str | None = None


class DenoisingObjective(Objective):
    Options = DenoisingOptions
    dataset = OccupancyDataset
    trainable: ClassVar = {"denoiser": (Denoiser,), "head": (Denoiser,)}

    @classmethod
    def frame_tokens(cls, models: Mapping[str, Any], resolution: int, voxels: float) -> float:
        return float(resolution**3)

    def forward(self, batch: Occupancy, generator: torch.Generator) -> Loss:
        noisy = batch.grid + self.options.noise * torch.randn(batch.grid.shape, generator=generator)
        total = (self.model("head")(self.model("denoiser")(noisy)) - batch.grid).square().mean()
        return Loss(total, {"loss": total})

    def preview(self, batch: Occupancy, generator: torch.Generator) -> Preview:
        raise NotImplementedError


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, clip_folder: Path, tmp_path: Path) -> Any:
    """The config of a run of it, with changes."""
    monkeypatch.setitem(OBJECTIVES, "denoising", DenoisingObjective)
    monkeypatch.setitem(registry._MODELS, "Denoiser", registry._Entry(Denoiser))

    def config(folder: str, models: list[str], *changes: str, **objective: Any) -> DictConfig:
        made = resolve(overrides("structure_vae", clip_folder, tmp_path / folder, "train.steps=3", *changes))
        OmegaConf.set_struct(made, False)
        made.objective = {"name": "denoising", "noise": 0.25, **objective}
        made.models = {name: {"name": "Denoiser", "args": {"channels": 4}} for name in models}
        return made

    return config


def test_it_trains_resumes_and_says_what_is_not_counted(command: Any, tmp_path: Path, capsys: pytest.CaptureFixture):
    both = ["denoiser", "head"]
    with pytest.warns(UserWarning, match="FLOPs and activations of Denoiser are not counted: ss4d/training/counting"):
        assert run(command("run", both)) is None
    assert len(logged(tmp_path / "run")) == 3
    with pytest.warns(UserWarning, match="not counted"):
        assert run(command("run", both, "train.steps=4")) is None
    assert "resuming at step 3" in capsys.readouterr().out
    assert isinstance(load_model(tmp_path / "run/ckpts/denoiser"), Denoiser)


def test_its_cost_counts_the_frozen_model_and_the_tokens_that_it_says(command: Any, capsys: pytest.CaptureFixture):
    frozen = command("frozen", ["denoiser"], "dry_run=true")
    with pytest.warns(UserWarning, match="not counted"):
        run(frozen)
    said = capsys.readouterr().out
    parameters = sum(parameter.numel() for parameter in Denoiser(4).parameters())
    assert f"4 clips of 1 frames, {4 * RESOLUTION**3:,} tokens" in said and f"{parameters:,}" in said


def test_what_it_took_frozen_may_be_named_in_another_way(command: Any, tmp_path: Path, capsys: pytest.CaptureFixture):
    """Of an option with the name of a model the file counts, not how its path is written."""
    with pytest.warns(UserWarning, match="not counted"):
        run(command("run", ["denoiser", "head"]))
        source = str(tmp_path / "run/ckpts/denoiser")
        run(command("half", ["head"], denoiser=source))
        with pytest.raises(ValueError, match=r"another run, .*: objective.denoiser = .* instead of"):
            run(command("half", ["head"], "train.steps=4", denoiser=str(tmp_path / "run/ckpts/head")))
        run(command("half", ["head"], "train.steps=4", denoiser=str(tmp_path / "half/../run/ckpts/denoiser")))
    capsys.readouterr()
    with pytest.warns(UserWarning, match="not counted"):
        run(command("half", ["head"], "dry_run=true", denoiser=source))
    assert "denoiser" in (said := capsys.readouterr().out) and "frozen" in said


def test_a_checkpoint_folder_has_no_such_model(command: Any, pipeline_folder: Path):
    with pytest.raises(ValueError, match=r"a checkpoint folder has no denoiser of denoising .*: give a run folder"):
        run(command("start", ["denoiser", "head"], f"init_from={pipeline_folder}"))
