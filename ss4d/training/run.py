"""A training run, from its config to the last checkpoint: what train.py starts."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import DictConfig, OmegaConf

from ss4d.backend import Backend, describe, use
from ss4d.config import load_options, option
from ss4d.files import written_atomically
from ss4d.models import create_model
from ss4d.precision import is_fast_at_bfloat16
from ss4d.training.cost import phase_cost
from ss4d.training.distributed import by_first, joined_world
from ss4d.training.objectives import create_objective, objective_options
from ss4d.training.phases import Phase, read_phases
from ss4d.training.precision import autocast_dtype
from ss4d.training.run_folder import append_history, check_same_run, held, reached_step
from ss4d.training.trainer import Trainer
from ss4d.training.warm_start import check_same_latents, source_statistics, warm_start

FORECAST_RATE = 400e12  # FLOP/s that the duration of a dry run is for: 40% of an H100 in bfloat16


@dataclass(frozen=True)
class ModelSpec:
    """A model by its registered name."""

    name: str
    args: Mapping[str, Any]


@dataclass(frozen=True)
class WandbOptions:
    """Weights & Biases."""

    mode: Literal["disabled", "offline", "online"]
    project: str

    def __post_init__(self) -> None:
        if self.mode != "disabled" and find_spec("wandb") is None:
            raise ValueError(f"wandb.mode = {self.mode} needs the wandb package: pip install -e '.[train]'")


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """All of configs/train.yaml, which says what each key means; sections that phases change are read by them."""

    run_dir: str
    init_from: str | None
    dry_run: bool
    seed: int = option(at_least=0)
    threads: int | None = option(at_least=1)
    batch_size: int = option(at_least=1)
    frames: Sequence[int] = option(at_least=1)
    gpus: int | None = option(at_least=1)
    accumulation: int = option(at_least=1)
    data: Mapping[str, Any]
    train: Mapping[str, Any]
    objective: Mapping[str, Any]
    models: Mapping[str, ModelSpec]
    phases: Mapping[str, Any] | None
    backend: Backend
    wandb: WandbOptions

    def __post_init__(self) -> None:
        for key in ("run_dir", "init_from"):
            if getattr(self, key) == "":
                raise ValueError(f"{key} is empty: name a folder")


def run(config: DictConfig) -> int | None:
    """Train as a resolved `configs/train.yaml` says.

    Returns the number of the signal that stopped the run before its end, None at its end.

    Raises:
        ValueError: an option, model or data that does not fit.
        SaveError: a checkpoint could not be written.
        FloatingPointError: the loss or its gradients stopped being finite.
    """
    content: Any = OmegaConf.to_container(config, resolve=True)
    options, phases = load_options(RunOptions, content), read_phases(config)
    aims = objective_options(content["objective"])
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.dry_run:
        print(forecast(phases, content))
        return None
    with joined_world(options.gpus) as world, ExitStack() as until_the_end:
        run_dir = Path(options.run_dir)
        by_first(lambda: check_same_run(run_dir, config, world.size), world)
        use(options.backend, world.device)
        torch.manual_seed(options.seed)
        models = {name: create_model(spec.name, **spec.args) for name, spec in options.models.items()}
        objective = create_objective(models, aims)
        objective.initialize()
        source = options.init_from if reached_step(run_dir) is None else None  # a run that has begun has its weights
        if source:
            report = warm_start(models, source, aims.name)
            if world.is_first:
                print(report)
        trainer = Trainer(objective, phases, content["models"], run_dir, content, world)
        trainer.prepare()
        if source and (own := objective.statistics()) and (statistics := source_statistics(source)):
            objective.use_statistics(statistics)
            if world.is_first:
                print(f"latents are normalised as those of {source}")
                check_same_latents(source, statistics, own)
        by_first(lambda: until_the_end.enter_context(held(run_dir)), world)
        if world.is_first:
            half = autocast_dtype(phases[0].train.precision, world.device) is not None
            record(run_dir, config, world.size, describe(world.device, half))
            print(f"run folder {run_dir}, {world.size} process{'es' * (world.size > 1)} on {world.device.type}")
            print(", ".join(f"{part}: {name}" for part, name in describe(world.device, half).items()))
            print(schedule(phases, world.size))
        return trainer.fit()


def forecast(phases: list[Phase], content: Mapping[str, Any]) -> str:
    """What a run would cost, without data: the schedule, parameters, FLOPs and memory."""
    processes, whole = content["gpus"] or 1, 0.0
    parts = [schedule(phases, processes)]
    for phase in phases:
        cost = phase_cost(phase, content, processes)
        parts.append(f"\nphase {phase.name}, the largest batch of a process: {cost}")
        whole += (phase.stop - phase.start) * phase.accumulation * cost.flops
    days = whole / (FORECAST_RATE * 86400)
    parts.append(
        f"\nall steps: {whole / 1e12:,.0f} TFLOP on each device, {days:.3g} days at {FORECAST_RATE / 1e12:g} TFLOP/s"
    )
    return "\n".join(parts)


def schedule(phases: list[Phase], processes: int) -> str:
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


def record(run_dir: Path, config: DictConfig, processes: int, backend: Mapping[str, str]) -> None:
    """What a run needs to be repeated: the resolved config, the commit, the environment and the backends in use."""
    run_dir.mkdir(parents=True, exist_ok=True)
    append_history(run_dir, config, processes, _git_commit())
    with written_atomically(run_dir / "config.yaml") as temporary:
        OmegaConf.save(config, temporary, resolve=True)
    environment = {
        "command": sys.argv,
        "commit": _git_commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": f"{platform.platform()}, {os.cpu_count()} cores",
        "backend": backend,
        "bfloat16": is_fast_at_bfloat16(torch.device("cuda" if torch.cuda.is_available() else "cpu")),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    (run_dir / "environment.json").write_text(json.dumps(environment, indent=2) + "\n")


def _git_commit() -> str:
    """The commit the code runs from, marked where files differ from it."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        result = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except OSError:  # no git here
        return "unknown"
    return result.stdout.strip() or "unknown"
