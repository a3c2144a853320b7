"""The four objectives train on real entry points; stopping and resuming changes nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file
from small_runs import SMALL, fit, logged, overrides, resolve, same_weights

from ss4d.models import create_model
from ss4d.models.checkpoint import CheckpointError, load_model
from ss4d.training import validation
from ss4d.training.optimization import LossScale
from ss4d.training.phases import read_phases
from ss4d.training.run import run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, clip_folder: Path) -> Path:
    """All four experiments, a few steps each; the sparse flow uses the structure flow's image encoder."""
    folder = tmp_path_factory.mktemp("runs")
    for experiment in SMALL:
        fit(experiment, clip_folder, folder, "train.steps=2")
    return folder


def test_every_experiment_leaves_models_config_and_log(runs: Path):
    for experiment in SMALL:
        run_dir = runs / experiment
        assert len(logged(run_dir)) == 2
        config: Any = OmegaConf.to_container(OmegaConf.load(run_dir / "config.yaml"))
        for name, spec in config["models"].items():
            assert json.loads((run_dir / f"ckpts/{name}.json").read_text()) == spec
            assert load_model(run_dir / "ckpts" / name).training is False
        environment = json.loads((run_dir / "environment.json").read_text())
        assert environment["torch"] == torch.__version__ and environment["command"] == sys.argv
    statistics = load_file(runs / "sparse_flow/ckpts/latent_statistics.safetensors")
    assert statistics["mean"].tolist() == [0.5] * 8 and statistics["std"].tolist() == [2.0] * 8


@pytest.mark.parametrize("experiment", ["structure_vae", "structure_flow", "sparse_vae", "sparse_flow"])
def test_stopping_and_resuming_changes_nothing(experiment: str, runs: Path, clip_folder: Path):
    schedule = ["train.final_learning_rate=1e-3", "train.learning_rate=1e-3"]
    whole = fit(experiment, clip_folder, runs, "train.steps=4", *schedule, folder=f"{experiment}_whole")
    for steps in (2, 4):
        parts = fit(experiment, clip_folder, runs, f"train.steps={steps}", *schedule, folder=f"{experiment}_parts")
    assert same_weights(whole, parts)


def test_the_structure_vae_learns_two_boxes(runs: Path, clip_folder: Path):
    changes = ["train.steps=60", "train.learning_rate=5e-3", "train.precision=fp32"]
    values = logged(fit("structure_vae", clip_folder, runs, *changes, folder="learning"))
    assert sum(values[-5:]) < 0.5 * sum(values[:5])


def test_a_frozen_image_encoder_is_used_as_it_is(runs: Path, clip_folder: Path):
    encoder = runs / "structure_flow/ckpts/image_encoder"
    lines = overrides("structure_flow", clip_folder, runs / "frozen", "train.steps=1")
    lines = [line for line in lines if "models.image_encoder" not in line]
    run(
        resolve(
            [*lines, f"objective.image_encoder={encoder}", "~models.image_encoder", "objective.positional_init=false"]
        )
    )
    assert sorted(path.stem for path in (runs / "frozen" / "ckpts").glob("*.json")) == ["flow"]


def test_an_image_encoder_that_is_not_there_is_named_with_its_option(clip_folder: Path, tmp_path: Path):
    lines = overrides("sparse_flow", clip_folder, tmp_path / "sparse_flow", "objective.image_encoder=nowhere/encoder")
    with pytest.raises(
        CheckpointError, match=r"objective\.image_encoder=nowhere/encoder cannot be used: there is no such model"
    ):
        run(resolve(lines))


def test_phases_follow_each_other_and_resume_inside_one(runs: Path, clip_folder: Path):
    first = "+phases.short={frames:[1],train:{steps:2}}"
    second = "+phases.long={frames:[4],accumulation:2,train:{steps:%d}}"
    flat = ["train.final_learning_rate=1e-3", "train.learning_rate=1e-3"]

    def train(folder: str, steps: int) -> Path:
        lines = overrides("structure_flow", clip_folder, runs / folder, *flat, first, second % steps)
        run(resolve([line for line in lines if not line.startswith("frames=")]))  # both phases have their own
        return runs / folder

    whole = train("phases_whole", 2)
    assert len(logged(whole)) == 4
    for steps in (1, 2):
        stopped = train("phases_stopped", steps)
    assert same_weights(whole, stopped)


@pytest.mark.parametrize(("experiment", "model"), [("structure_vae", "decoder"), ("structure_flow", "flow")])
def test_the_best_weights_on_held_out_clips_are_kept(experiment: str, model: str, runs: Path, clip_folder: Path):
    lines = ["train.steps=4", "train.validate_every=2", "train.validate_batches=2", "train.validate_split=train"]
    run_dir = fit(experiment, clip_folder, runs, *lines, folder=f"{experiment}_best")
    losses = logged(run_dir, "val_loss")
    assert len(losses) == 2
    best, last = (load_file(run_dir / folder / f"{model}.safetensors") for folder in ("best", "ckpts"))
    same = all(torch.equal(best[key], last[key]) for key in best)
    assert same == (losses[1] < losses[0])


@pytest.mark.parametrize("experiment", ["structure_vae", "structure_flow", "sparse_vae", "sparse_flow"])
def test_previews_show_held_out_clips(experiment: str, runs: Path, clip_folder: Path):
    decoders = {
        "structure_flow": ("structure_decoder", "structure_vae"),
        "sparse_flow": ("gaussian_decoder", "sparse_vae"),
    }
    lines = ["train.steps=2", "train.preview_every=2", "train.validate_split=train", "frames=[4]"]
    if experiment in decoders:
        name, source = decoders[experiment]
        lines += [f"objective.{name}={runs / source}/ckpts/decoder", "data.masking.probability=1"]
    run_dir = fit(experiment, clip_folder, runs, *lines, folder=f"{experiment}_previews")
    names = {path.name for path in (run_dir / "samples").iterdir()}
    assert {"preview_00000002.png", "preview_00000002.mp4"} <= names
    assert ("masking_00000000.png" in names) == (experiment in decoders)
    picture = np.asarray(Image.open(run_dir / "samples/preview_00000002.png"))
    assert picture.shape[0] % 96 == picture.shape[1] % 96 == 0 and picture.std() > 0


def test_half_precision_skips_steps_that_overflow(runs: Path, clip_folder: Path, monkeypatch: pytest.MonkeyPatch):
    lines = ["train.steps=3", "train.precision=fp16"]
    monkeypatch.setattr(LossScale, "of", classmethod(lambda cls, precision: cls(2.0**60, fixed=False)))
    run_dir = fit("structure_vae", clip_folder, runs, *lines, folder="fp16")
    assert logged(run_dir, "loss_scale") == pytest.approx([2.0**59, 2.0**58, 2.0**57], rel=1e-5)
    torch.manual_seed(0)
    spec = resolve(overrides("structure_vae", clip_folder, run_dir)).models.encoder
    start, found = create_model(spec.name, **spec.args).state_dict(), load_file(run_dir / "ckpts/encoder.safetensors")
    assert all(torch.equal(start[key], found[key]) for key in found)


def test_half_precision_after_another_starts_with_its_own_scale(runs: Path, clip_folder: Path):
    fit("structure_vae", clip_folder, runs, "train.steps=2", "train.precision=fp32", folder="to_fp16")
    run_dir = fit("structure_vae", clip_folder, runs, "train.steps=3", "train.precision=fp16", folder="to_fp16")
    assert logged(run_dir, "loss_scale") == [2.0**16]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            ["data.masking.probability=0.5"],
            r"data\.masking\.probability = 0\.5, but this objective has no",
        ),
        (["data.recolor=0.5"], r"data\.recolor = 0\.5, but this objective sees no colours"),
        (["train.validate_every=1", "train.validate_split=other"], r"train\.validate_split = other: .* has no clip of"),
    ],
)
def test_data_that_a_run_would_miss_later_are_refused_at_once(
    changes: list[str], message: str, clip_folder: Path, tmp_path: Path
):
    with pytest.raises(ValueError, match=message):
        fit("structure_vae", clip_folder, tmp_path, "train.steps=2", *changes)
    assert not (tmp_path / "structure_vae").exists()


def test_held_out_clips_count_alike(clip_folder: Path, tmp_path: Path):
    config = resolve(
        overrides("structure_vae", clip_folder, tmp_path, "data.static_weight=0.3", "data.group_cap=4", "train.steps=1")
    )
    settings = validation._settings(read_phases(config)[0])
    assert (settings.static_weight, settings.group_cap, settings.category_weight) == (1.0, None, {})


def test_held_out_clips_are_neither_masked_nor_recoloured(clip_folder: Path, tmp_path: Path):
    changes = ["data.masking.probability=1", "data.recolor=1", "train.steps=1"]
    phase = read_phases(resolve(overrides("structure_flow", clip_folder, tmp_path, *changes)))[0]
    assert (phase.data.masking.probability, phase.data.recolor) == (1, 1)
    settings = validation._settings(phase)
    assert (settings.masking.probability, settings.recolor) == (0, 0)
