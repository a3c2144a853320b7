"""Train one of the four models: `python train.py experiment=structure_flow/tiny [key=value ...]`.

On several GPUs: `torchrun --nproc-per-node 8 train.py experiment=structure_flow/paper gpus=8`. configs/train.yaml lists
every key; docs/training.md explains them.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import DictConfig, OmegaConf

from ss4d.models import create_model
from ss4d.training.alignment import warm_start
from ss4d.training.checkpointing import SaveError
from ss4d.training.cost import phase_cost
from ss4d.training.distributed import joined_world
from ss4d.training.objectives import OBJECTIVES
from ss4d.training.overrides import check_overrides
from ss4d.training.phases import Phase, read_phases
from ss4d.training.precision import is_fast_at_bfloat16
from ss4d.training.trainer import Trainer

CONFIGS = Path(__file__).parent / "configs"


def main() -> None:
    try:
        check_overrides(sys.argv[1:], CONFIGS, "train")
    except ValueError as error:
        sys.exit(f"train.py: {error}")
    train()


@hydra.main(version_base="1.3", config_path="configs", config_name="train")
def train(config: DictConfig) -> None:
    """Run with a config that Hydra composed; what is wrong with it, or with the machine, is said in a sentence."""
    try:
        run(config)
    except (ValueError, SaveError, FloatingPointError) as error:
        sys.exit(f"train.py: {error}")


def run(config: DictConfig) -> None:
    """Train as a resolved `configs/train.yaml` says."""
    options: Any = OmegaConf.to_container(config, resolve=True)
    phases = read_phases(config)
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.dry_run:
        print(forecast(phases, options))
        return
    with joined_world(config.gpus) as world:
        torch.manual_seed(config.seed)
        models = {name: create_model(spec["name"], **spec["args"]) for name, spec in options["models"].items()}
        objective = OBJECTIVES[config.objective.name](models, options["objective"])
        if config.init_from:
            report = warm_start(models, config.init_from, config.objective.name)
            if world.is_first:
                print(report)
        run_dir = Path(config.run_dir)
        if world.is_first:
            record(run_dir, config)
            print(f"run folder {run_dir}, {world.size} process{'es' * (world.size > 1)} on {world.device.type}")
            print(summary(phases, world.size))
        Trainer(objective, phases, options["models"], run_dir, options, world).fit()


def forecast(phases: list[Phase], options: Mapping[str, Any]) -> str:
    """What a run would cost, without data: the schedule, parameters, FLOPs and memory."""
    processes = options["gpus"] or 1
    parts = [summary(phases, processes)]
    for phase in phases:
        cost = phase_cost(phase, options, processes)
        parts.append(f"\nphase {phase.name}, the largest batch of a process: {cost}")
    return "\n".join(parts)


def record(run_dir: Path, config: DictConfig) -> None:
    """What a run needs to be repeated: the resolved config, the commit and the environment."""
    run_dir.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, run_dir / "config.yaml", resolve=True)
    environment = {
        "command": sys.argv,
        "commit": git_commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": f"{platform.platform()}, {os.cpu_count()} cores",
        "bfloat16": is_fast_at_bfloat16(torch.device("cuda" if torch.cuda.is_available() else "cpu")),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    (run_dir / "environment.json").write_text(json.dumps(environment, indent=2) + "\n")


def summary(phases: list[Phase], processes: int) -> str:
    """What a step of each phase takes in."""
    lines = []
    for phase in phases:
        clips, frames = phase.data.max_clips, max(phase.data.frames)
        product = clips * processes * phase.accumulation
        lines.append(
            f"phase {phase.name}: steps {phase.start} to {phase.stop}, learning rate {phase.train.learning_rate:g}; "
            f"batch_size {clips} x gpus {processes} x accumulation {phase.accumulation} = {product} clips of up to "
            f"{frames} frames a step, at most {phase.data.tokens_per_batch:,} tokens a batch"
        )
    return "\n".join(lines)


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
    main()
