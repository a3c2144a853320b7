"""Small versions of the experiments, for tests that train."""

from __future__ import annotations

import csv
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig
from safetensors.torch import load_file
from tiny import FEATURES, GAUSSIANS, IMAGE_SIZE, LATENT_SIDE, RESOLUTION
from torch import equal

from ss4d.training.command_line import compose_config
from ss4d.training.run import run

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

# In the frame of the view alone.
IN_VIEWS = {
    "structure_estimator": [
        f"data.tokens_per_batch={4 * RESOLUTION**3}",
        "data.recolor=0",
        f"models.estimator.args.image_size={IMAGE_SIZE}",
        "models.estimator.args.channels=[8,8,16,16]",
        "models.estimator.args.imagenet=false",
        "frames=[1,4]",
    ],
}


def overrides(experiment: str, clips: Path, run_dir: Path, *changes: str) -> list[str]:
    """train.py's command line for a small version of an experiment, in the frame of the clip as `clip_folder` is; those
    of `IN_VIEWS` need a set of that frame.

    The sparse flow takes the image encoder of a run `structure_flow` in the same folder.
    """
    lines = [
        f"experiment={experiment}/{'tiny_clip' if experiment.endswith('flow') else 'tiny'}",
        f"data.root={clips}",
        f"data.resolution={RESOLUTION}",
        f"run_dir={run_dir}",
        "train.warmup_steps=1",
        "train.log_every=1",
        "train.validate_every=0",
        "train.preview_every=0",
        "phases=null",
        "data.quarter_turns=[0]",
        "data.category_weight=null",
        *{**SMALL, **IN_VIEWS}[experiment],
    ]
    if experiment == "sparse_flow":
        lines.append(f"objective.image_encoder={run_dir.parent}/structure_flow/ckpts/image_encoder")
    return [*lines, *changes]


def resolve(lines: list[str]) -> DictConfig:
    """The config of a command line."""
    GlobalHydra.instance().clear()
    return compose_config(lines)


def fit(experiment: str, clips: Path, runs: Path, *changes: str, folder: str | None = None) -> Path:
    """Run `train.py` on a small version of an experiment; returns its run folder."""
    run_dir = runs / (folder or experiment)
    run(resolve(overrides(experiment, clips, run_dir, *changes)))
    return run_dir


def logged(run_dir: Path, name: str = "loss") -> list[float]:
    """A logged metric, row after row."""
    with (run_dir / "log.csv").open() as file:
        return [float(row["value"]) for row in csv.DictReader(file) if row["metric"] == name]


def same_weights(a: Path, b: Path) -> bool:
    """Whether two runs exported bitwise the same models."""
    paths = sorted(path.name for path in (a / "ckpts").glob("*.safetensors"))
    pairs = [(load_file(a / "ckpts" / name), load_file(b / "ckpts" / name)) for name in paths]
    return bool(pairs) and all(equal(x[key], y[key]) for x, y in pairs for key in x)
