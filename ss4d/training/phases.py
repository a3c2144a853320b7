"""Progressive learning (paper §4.3): a run is a sequence of phases, e.g. 8, then 16, then 32 frames.

A phase is a partial config laid over the rest of it: `phases.frames16 = {frames: [16], train: {steps: 20000}}`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

from ss4d.config import load_options
from ss4d.data import DataSettings
from ss4d.training.settings import TrainSettings

# What may differ from phase to phase; models and their objective are the run's.
PHASE_KEYS = ("frames", "batch_size", "accumulation", "data", "train")


@dataclass(frozen=True)
class Phase:
    """Steps `start` to `stop` - 1 of a run."""

    name: str
    start: int
    stop: int
    accumulation: int  # batches of every process that make one step
    data: DataSettings
    train: TrainSettings


def read_phases(config: DictConfig) -> list[Phase]:
    """The phases of a config in their order; one, named "main", where `phases` is empty or null.

    Raises:
        ValueError: a phase sets a key that the config lacks, or that belongs to the whole run.
    """
    base = OmegaConf.masked_copy(config, [str(key) for key in config if key != "phases"])
    OmegaConf.set_struct(base, True)
    phases: list[Phase] = []
    for name, changes in (dict(config.phases or {}) or {"main": {}}).items():
        options = _overlay(base, str(name), changes or {})
        data = load_options(DataSettings, options["data"], section="data")
        train = load_options(TrainSettings, options["train"], section="train")
        if options["accumulation"] < 1:
            raise ValueError(f"accumulation = {options['accumulation']} must be at least 1")
        start = phases[-1].stop if phases else 0
        phases.append(Phase(str(name), start, start + train.steps, options["accumulation"], data, train))
    _check_alike(phases)
    return phases


def _overlay(base: DictConfig, name: str, changes: Any) -> dict[str, Any]:
    for key in changes:
        if key not in PHASE_KEYS:
            raise ValueError(f"phases.{name} sets {key}; a phase may set {', '.join(PHASE_KEYS)}")
    try:
        options: Any = OmegaConf.to_container(OmegaConf.merge(base, changes), resolve=True)
    except (ConfigAttributeError, ConfigKeyError) as error:
        raise ValueError(f"phases.{name} sets a key that the config lacks: {str(error).splitlines()[0]}") from error
    return options


def _check_alike(phases: Sequence[Phase]) -> None:
    for phase in phases[1:]:
        for key in ("strategy", "precision"):
            if getattr(phase.train, key) != getattr(phases[0].train, key):
                raise ValueError(f"phases.{phase.name} sets train.{key}, which is the same for a whole run")
