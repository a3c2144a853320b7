"""The four objectives train on real entry points; stopping and resuming changes nothing."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from safetensors.torch import load_file
from tiny import FEATURES, GAUSSIANS, IMAGE_SIZE, LATENT_SIDE, RESOLUTION

import train
from ss4d.models.checkpoint import load_model

CONFIGS = Path(train.__file__).parent / "configs"
SMALL = {
    "structure_vae": [
        f"data.tokens_per_batch={4 * RESOLUTION**3}",
        "models.encoder.args.channels=[4,8]",
        "models.decoder.args.channels=[8,4]",
    ],
    "structure_flow": [
        f"data.tokens_per_batch={4 * LATENT_SIDE**3}",
        f"models.image_encoder.args.image_size={IMAGE_SIZE}",
        "models.image_encoder.args.channels=24",
        "models.image_encoder.args.num_heads=2",
        "models.flow.args.model_channels=24",
        "models.flow.args.cond_channels=24",
        "models.flow.args.num_heads=2",
        "models.flow.args.num_blocks=2",
        "frames=[1,4]",
    ],
    "sparse_vae": [
        f"data.tokens_per_batch={4 * 216}",
        f"models.encoder.args.in_channels={FEATURES}",
        "models.encoder.args.model_channels=24",
        "models.decoder.args.model_channels=24",
        "models.encoder.args.num_blocks=1",
        "models.decoder.args.num_blocks=1",
        "models.decoder.args.num_heads=3",
        f"models.decoder.args.representation_config.num_gaussians={GAUSSIANS['num_gaussians']}",
    ],
    "sparse_flow": [
        f"data.tokens_per_batch={4 * 216}",
        "models.flow.args.model_channels=24",
        "models.flow.args.cond_channels=24",
        "models.flow.args.num_heads=2",
        "models.flow.args.num_blocks=1",
        "models.flow.args.io_block_channels=[12]",
        "models.flow.args.io_block_channels_t=[24]",
        "frames=[1,4]",
    ],
}


def fit(experiment: str, clips: Path, runs: Path, *changes: str, folder: str | None = None) -> Path:
    """Run `train.py` on a small version of an experiment; returns its run folder."""
    run_dir = runs / (folder or experiment)
    overrides = [
        f"experiment={experiment}/tiny",
        f"data.root={clips}",
        f"data.resolution={RESOLUTION}",
        f"run_dir={run_dir}",
        "train.warmup_steps=1",
        "train.log_every=1",
        *SMALL[experiment],
        *changes,
    ]
    if experiment == "sparse_flow":
        overrides.append(f"objective.image_encoder={runs}/structure_flow/ckpts/image_encoder")
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        train.run(compose("train", overrides))
    return run_dir


def losses(run_dir: Path) -> list[float]:
    with (run_dir / "log.csv").open() as file:
        return [float(row["value"]) for row in csv.DictReader(file) if row["figure"] == "loss"]


def same_weights(a: Path, b: Path) -> bool:
    paths = sorted(path.name for path in (a / "ckpts").glob("*.safetensors"))
    pairs = [(load_file(a / "ckpts" / name), load_file(b / "ckpts" / name)) for name in paths]
    return all(torch.equal(x[key], y[key]) for x, y in pairs for key in x)


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
        assert len(losses(run_dir)) == 2
        config: Any = OmegaConf.load(run_dir / "config.yaml")
        for name, spec in config.models.items():
            model = load_model(run_dir / "ckpts" / name)
            assert sum(p.numel() for p in model.parameters()) > 0 and spec.name
        assert (run_dir / "environment.json").read_text().strip()
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
    values = losses(fit("structure_vae", clip_folder, runs, *changes, folder="learning"))
    assert sum(values[-5:]) < 0.5 * sum(values[:5])


def test_a_frozen_image_encoder_is_used_as_it_is(runs: Path, clip_folder: Path):
    encoder = runs / "structure_flow/ckpts/image_encoder"
    changes = ["train.steps=1", f"objective.image_encoder={encoder}", "~models.image_encoder"]
    small = [change for change in SMALL["structure_flow"] if "image_encoder" not in change]
    run_dir = runs / "frozen"
    data = [f"data.root={clip_folder}", f"data.resolution={RESOLUTION}"]
    overrides = ["experiment=structure_flow/tiny", *data, f"run_dir={run_dir}", *small, *changes]
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        train.run(compose("train", overrides))
    assert sorted(path.stem for path in (run_dir / "ckpts").glob("*.json")) == ["flow"]
