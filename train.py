"""Train one of the four models: `python train.py experiment=structure_flow/tiny [key=value ...]`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import DictConfig, OmegaConf

from ss4d.data import DataSettings, open_dataset
from ss4d.models import create_model
from ss4d.models.checkpoint import load_weights
from ss4d.training.objectives import OBJECTIVES
from ss4d.training.trainer import Trainer, TrainerSettings


@hydra.main(version_base="1.3", config_path="configs", config_name="train")
def main(config: DictConfig) -> None:
    run(config)


def run(config: DictConfig) -> None:
    """Train as a resolved `configs/train.yaml` says."""
    run_dir = Path(config.run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, run_dir / "config.yaml", resolve=True)
    (run_dir / "commit.txt").write_text(git_commit() + "\n")
    torch.manual_seed(config.seed)
    if config.threads:
        torch.set_num_threads(config.threads)

    options: Any = OmegaConf.to_container(config, resolve=True)
    models = {name: create_model(spec["name"], **spec["args"]) for name, spec in options["models"].items()}
    for name, model in models.items():
        if config.init_from:
            load_weights(model, Path(config.init_from) / "ckpts" / f"{name}.safetensors")
        print(f"{name}: {sum(p.numel() for p in model.parameters()):,} parameters")
    objective = OBJECTIVES[config.objective.name](models, options["objective"])
    data = DataSettings(**options["data"])
    dataset = open_dataset(objective.dataset, data)
    print(f"{len(dataset)} clips from {data.root}; run folder {run_dir}")
    for stage, count in dataset.clips.skipped.items():
        print(f"left out: {count} clips that the {stage} stage did not make")
    settings = TrainerSettings(**options["train"])
    Trainer(objective, dataset, data, settings, options["models"], run_dir, config.seed).fit()


def git_commit() -> str:
    """The commit the code runs from, marked where files differ from it."""
    result = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return result.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
