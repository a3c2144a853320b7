"""An ablation as data (`configs/eval/ablations/*.yaml`): variants that differ in one thing, and their evaluation."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ss4d.config import did_you_mean, load_options
from ss4d.evaluation.protocol import PROTOCOLS, names_in
from ss4d.evaluation.tables import TableSpec, read_specs

ABLATIONS = PROTOCOLS / "ablations"


@dataclass
class Start:
    """A run that all variants of an ablation start from; ablations that name the same one share it."""

    name: str
    experiment: str
    train: list[str]  # overrides of train.py, which hold for the variants too where they set nothing else


@dataclass
class Ablation:
    """What a file in `configs/eval/ablations` holds. Variants are named as they are in results and tables."""

    name: str
    title: str
    experiment: str  # of train.py
    vary: list[str]  # keys of train.py that a variant sets to its value; variants differ in nothing else
    variants: dict[str, Any]
    method: str  # of `run`: "reconstruction" judges a run, "ours" a pipeline with the run's model
    protocol: str = "ss4d_assets"
    train: list[str] = field(default_factory=list)  # overrides of all variants
    start: Start | None = None
    sets: dict[str, str] = field(default_factory=dict)  # where data.root varies: the toolkit's option behind each value
    settings: dict[str, list[str]] = field(default_factory=dict)  # changes of the protocol, a table each
    paper_table: int | None = None  # in configs/eval/tables.yaml
    columns: list[list[Any]] = field(default_factory=list)  # of a table that the paper does not have

    def __post_init__(self) -> None:
        self.settings = self.settings or {"": []}

    def overrides(self, label: str) -> list[str]:
        """What tells a variant from the others, for train.py; where data sets vary, `data.root` is named by its set."""
        return [f"{key}={override_value(self.variants[label])}" for key in self.vary]

    def table(self) -> TableSpec:
        """The table's description, for the paper's own tables the one in `configs/eval/tables.yaml`."""
        if self.paper_table is not None:
            return next(spec for spec in read_specs() if spec.id == str(self.paper_table))
        rows = {label: label for label in self.variants}
        return TableSpec(self.name, self.title, self.columns, protocol=self.protocol, rows=rows)


def read_ablation(name: str, checkpoint: str) -> Ablation:
    """An ablation by name.

    Args:
        checkpoint: the folder that `${checkpoint}` stands for.

    Raises:
        ValueError: there is none of that name, with the nearest one; a key that is unknown or missing.
    """
    names = names_in("ablations")
    if name not in names:
        advice = did_you_mean(name, names, f"there are {', '.join(names)}")
        raise ValueError(f"There is no ablation {name!r}: {advice}")
    content = read_yaml(ABLATIONS / f"{name}.yaml", checkpoint)
    if "start" in content:
        start = content["start"]
        path = ABLATIONS / "starts" / f"{start}.yaml"
        content["start"] = load_options(Start, {"name": start, **read_yaml(path, checkpoint)}, origin=str(path))
    return load_options(Ablation, {"name": name, **content}, origin=str(ABLATIONS / f"{name}.yaml"))


def override_value(value: Any) -> str:
    """A plain value as text in an override."""
    return value if isinstance(value, str) else json.dumps(value)


def read_yaml(path: Path, checkpoint: str = "") -> dict[str, Any]:
    """The content of a file, `${checkpoint}` replaced."""
    from omegaconf import OmegaConf

    merged = OmegaConf.merge(OmegaConf.load(path), {"checkpoint": checkpoint})
    content: Any = OmegaConf.to_container(merged, resolve=True)
    return {key: value for key, value in content.items() if key != "checkpoint"}
