"""What an ablation trains, and how each variant is evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ss4d.evaluation.ablations.ablation import Ablation, Start
from ss4d.evaluation.options import AblateOptions, JudgingOptions, RunOptions
from ss4d.training.command_line import compose_config

OWN_KEYS = ("experiment", "run_dir", "init_from", "data.root")  # of train.py, which the ablation sets itself


@dataclass
class Plan:
    """The configs of all runs, and the evaluations of each variant."""

    ablation: Ablation
    folder: Path  # of the ablation's runs, models, results and tables
    start: DictConfig | None
    variants: dict[str, DictConfig]  # by label
    evaluations: dict[str, list[RunOptions]]  # by label, one for each setting of the ablation

    @property
    def is_dry(self) -> bool:
        """Whether costs are to be printed, and nothing made."""
        return any(config.dry_run for config in self.variants.values())


def make_plan(ablation: Ablation, options: AblateOptions) -> Plan:
    """Everything an ablation does, before it does anything.

    Raises:
        ValueError: an option that train.py or the protocol does not have, or that the ablation sets itself; a data set
            that is not named.
    """
    sets, train = split_sets(ablation, options.train)
    check_overrides(ablation, options, train)
    check_sets(ablation, sets)
    roots = {label: sets[value] if ablation.sets else options.data for label, value in ablation.variants.items()}
    folder = Path(options.out) / ablation.name
    inherited: list[str] = []
    start = None
    if ablation.start is not None:
        run_dir = options.start or f"{options.out}/runs/{ablation.start.name}"
        inherited = [f"init_from={run_dir}", *ablation.start.train]
        if options.start is None:
            own = start_overrides(ablation.start, train, options.start_train)
            start = compose_config(command_line(ablation.start.experiment, run_dir, options.data, own))
    variants, evaluations = {}, {}
    for label, data in roots.items():
        chosen = [] if ablation.sets else ablation.overrides(label)
        overrides = [*inherited, *ablation.train, *train, *chosen]
        variants[label] = compose_config(command_line(ablation.experiment, f"{folder}/runs/{label}", data, overrides))
        evaluations[label] = [
            evaluation(ablation, options, label, data, changes) for changes in ablation.settings.values()
        ]
    return Plan(ablation, folder, start, variants, evaluations)


def split_sets(ablation: Ablation, given: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The data sets by name, from data.NAME=DIR, and the arguments that are left for train.py."""
    prefixes = {f"data.{name}=": name for name in ablation.sets}
    sets = {name: text.removeprefix(key) for text in given for key, name in prefixes.items() if text.startswith(key)}
    return sets, [text for text in given if not text.startswith(tuple(prefixes))]


def check_overrides(ablation: Ablation, options: AblateOptions, train: Sequence[str]) -> None:
    """ValueError for an option of train.py that the ablation sets itself, or one of a start that it does not have."""
    for key in map(key_of, train):
        if key in (*OWN_KEYS, *ablation.vary):
            raise ValueError(f"{key} cannot be given: the ablation {ablation.name} sets it itself.")
    if ablation.start is None and (options.start is not None or options.start_train):
        raise ValueError(f"The variants of {ablation.name} start from nothing: leave start= and start.KEY= out.")


def check_sets(ablation: Ablation, sets: dict[str, str]) -> None:
    """ValueError where data sets vary and one is not named, or was made by another option than its name says."""
    for name, option in ablation.sets.items():
        if name not in sets:
            raise ValueError(f"{ablation.name} needs data.{name}=DIR, a set made with {option} (docs/evaluation.md).")
        key, _, expected = option.partition("=")
        config = Path(sets[name]) / "config.yaml"
        found = OmegaConf.select(OmegaConf.load(config), key) if config.exists() else None
        if found not in (None, expected):
            raise ValueError(f"data.{name}={sets[name]} must be made with {option}, but {config} says {found}.")


def start_overrides(start: Start, train: Sequence[str], start_train: Sequence[str]) -> list[str]:
    """What train.py is given for a start: a key that the start sets itself keeps its value, unless it is of `train` or
    given for the start."""
    fixed = {key_of(override) for override in start.train if not key_of(override).startswith("train.")}
    return [*start.train, *(override for override in train if key_of(override) not in fixed), *start_train]


def key_of(override: str) -> str:
    """The key that an override changes, adds or removes."""
    return override.partition("=")[0].lstrip("+~")


def command_line(experiment: str, run_dir: str, data: str, overrides: Sequence[str]) -> list[str]:
    """Overrides of train.py."""
    return [f"experiment={experiment}", f"run_dir={run_dir}", f"data.root={data}", *overrides]


def evaluation(ablation: Ablation, options: AblateOptions, label: str, data: str, changes: Sequence[str]) -> RunOptions:
    """The options of `run` that evaluate a variant under a setting of the protocol."""
    folder = f"{options.out}/{ablation.name}"
    shared: dict[str, Any] = {item.name: getattr(options, item.name) for item in fields(JudgingOptions)}
    judged = RunOptions(
        protocol=ablation.protocol,
        changes=[*changes, *options.changes],
        data=data,
        method=ablation.method,
        label=label,
        model=f"{folder}/{'models' if ablation.method == 'ours' else 'runs'}/{label}",
        out=folder,
        **shared,
    )
    judged.check_used()
    return judged
