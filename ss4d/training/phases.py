"""Progressive learning (paper §4.3): a run is a sequence of phases, e.g. 8, then 16, then 32 frames.

A phase is a partial config laid over the rest of it: `phases.frames16 = {frames: [16], train: {steps: 20000}}`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ss4d.config import load_options
from ss4d.data import DataSettings
from ss4d.training.objectives import ObjectiveOptions, objective_options
from ss4d.training.settings import TrainSettings

# What may differ from phase to phase; of the objective its weights and other numbers, models are the run's.
PHASE_KEYS = ("frames", "batch_size", "accumulation", "data", "objective", "train")


@dataclass(frozen=True)
class Phase:
    """Steps `start` to `stop` - 1 of a run."""

    name: str
    start: int
    stop: int
    accumulation: int  # batches of every process that make one step
    data: DataSettings
    objective: ObjectiveOptions
    train: TrainSettings


def read_phases(config: DictConfig) -> list[Phase]:
    """The phases of a config in their order; one, named "main", where `phases` is empty or null.

    Raises:
        ValueError: an unknown key, one that no phase may set, a value that does not fit, or steps without a phase.
    """
    given = dict(config.phases or {})
    _check_steps_are_used(config, given)
    phases: list[Phase] = []
    for name, options in phase_sections(config):
        try:
            data = load_options(DataSettings, options["data"], section="data")
            objective = objective_options(options["objective"])
            train = load_options(TrainSettings, options["train"], section="train")
        except ValueError as error:
            raise ValueError(f"phase {name}: {error}" if given else str(error)) from None
        if 1 < train.steps <= train.warmup_steps:
            warnings.warn(
                f"phase {name}: train.warmup_steps = {train.warmup_steps} leaves none of {train.steps} steps for the "
                "schedule after it",
                stacklevel=2,
            )
        start = phases[-1].stop if phases else 0
        phases.append(Phase(str(name), start, start + train.steps, options["accumulation"], data, objective, train))
    _check_alike(phases)
    return phases


def phase_sections(config: DictConfig) -> list[tuple[str, dict[str, Any]]]:
    """The name of each phase with the config that holds in it, not yet checked by type.

    Raises:
        ValueError: a key that no phase may set, or an accumulation that is none.
    """
    base = OmegaConf.masked_copy(config, [str(key) for key in config if key != "phases"])
    OmegaConf.set_struct(base, False)  # unknown keys are refused when a section is read, with the nearest one
    given = dict(config.get("phases") or {}) or {"main": {}}
    return [(str(name), _overlay(base, str(name), changes or {})) for name, changes in given.items()]


def check_overrides_are_used(config: DictConfig, overrides: Sequence[str]) -> None:
    """Compare what the command line gives with what the phases set for themselves; what some set is warned of.

    Raises:
        ValueError: every phase sets the key, so that it would be ignored.
    """
    phases = dict(config.get("phases") or {})
    for key, _, value in (text.lstrip("+").partition("=") for text in overrides):
        if key.partition(".")[0] not in PHASE_KEYS or value == "???":
            continue
        own = [str(name) for name, changes in phases.items() if _sets(changes, key)]
        if own and len(own) == len(phases):
            raise _ignored(key, OmegaConf.select(config, key), own[0])
        if own:
            others = ", ".join(str(name) for name in phases if name not in own)
            warnings.warn(f"{key} holds in the phases {others}; {', '.join(own)} set their own", stacklevel=2)


def _check_steps_are_used(config: DictConfig, phases: Mapping[str, Any]) -> None:
    own = [name for name, changes in phases.items() if _sets(changes, "train.steps")]
    if own and len(own) == len(phases) and not OmegaConf.is_missing(config.train, "steps"):
        raise _ignored("train.steps", config.train.steps, own[0])


def _sets(changes: Any, key: str) -> bool:
    """Whether a phase has a value for a key; a section of values does not count."""
    return not isinstance(OmegaConf.select(OmegaConf.create(changes or {}), key), DictConfig | None)


def _ignored(key: str, value: Any, phase: str) -> ValueError:
    return ValueError(
        f"{key} = {value} would be ignored, for every phase has {key.rpartition('.')[2]} of its own: set "
        f"phases.{phase}.{key}, or phases=null for a run of one phase"
    )


def _overlay(base: DictConfig, name: str, changes: Any) -> dict[str, Any]:
    for key in changes:
        if key not in PHASE_KEYS:
            raise ValueError(f"phases.{name} sets {key}; a phase may set {', '.join(PHASE_KEYS)}")
    options: Any = OmegaConf.to_container(OmegaConf.merge(base, changes), resolve=True)
    for key, same in (("frames", "frames"), ("batch_size", "max_clips")):
        if key in changes and options["data"].get(same) != options[key]:
            raise ValueError(
                f"phases.{name} sets {key} = {options[key]}, but data.{same} = {options['data'].get(same)} is given as "
                "well: give one of the two"
            )
    if not isinstance(options["accumulation"], int) or options["accumulation"] < 1:
        raise ValueError(f"phases.{name}: accumulation = {options['accumulation']} must be a whole number from 1 on")
    return {key: value if key == "accumulation" else _without_missing(value) for key, value in options.items()}


def _without_missing(section: Any) -> Any:
    """A section without the keys that have no value yet ("???")."""
    if not isinstance(section, dict):
        return section
    return {key: value for key, value in section.items() if value != "???"}


def _check_alike(phases: Sequence[Phase]) -> None:
    for phase in phases[1:]:
        for key in ("strategy", "precision", "freeze", "compile"):
            if getattr(phase.train, key) != getattr(phases[0].train, key):
                raise ValueError(f"phases.{phase.name} sets train.{key}, which must be the same in all phases")
        for key, value in vars(phase.objective).items():
            if value != vars(phases[0].objective)[key] and type(value) not in (int, float):
                raise ValueError(f"phases.{phase.name} sets objective.{key}; a phase may set its numbers alone")
