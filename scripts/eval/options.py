"""Options of `scripts.eval.run`: `key=value`, read by OmegaConf; a protocol's own by `protocol.key=value`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ss4d.evaluation.protocol import Protocol, make_protocol

PROTOCOLS = Path(__file__).parents[2] / "configs" / "eval"


@dataclass
class Options:
    """What to evaluate, and where things are."""

    method: str = "ours"  # see scripts/eval/methods.py
    data: str = "data/tiny"  # the protocol's data set
    out: str = "outputs/eval"
    label: str | None = None  # the method's name in results and tables; null: `method`
    model: str = "checkpoints/ss4d-tiny"  # ours: checkpoint folder or Hub id
    steps: int | None = None  # ours: sampling steps; null: the checkpoint's
    guidance: float | None = None  # ours: guidance strength; null: the checkpoint's
    results: str | None = None  # views, gaussians: the folder that another method wrote
    axes: str = "y_up"  # gaussians: which way is up in the PLY files, "y_up" or "z_up"
    align_azimuth: bool = False  # gaussians: turn a result to match the input, and report by how much
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])  # of methods that sample; others take the first
    shard: str = "0/1"  # this process's part, i/n with i from 0
    weights: str | None = None  # folder with the weights of metrics' networks
    download: bool = False  # weights that are not in that folder: fetch them from the Hub
    weights_hub: str | None = None  # Hub repository with the files of networks that have none of their own
    device: str = "cpu"  # ours: where the models run

    @property
    def name(self) -> str:
        """The method's name in results."""
        return self.label or self.method


@dataclass
class Command:
    """A parsed command line."""

    options: Options
    protocol: Protocol


def parse(arguments: Sequence[str]) -> Command:
    """Read `protocol=NAME [key=value ...]`.

    Raises:
        ValueError: no or an unknown protocol, an unknown option with the nearest known one, a value of another type.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    plain = [argument for argument in arguments if not argument.startswith("protocol")]
    wanted = [argument.removeprefix("protocol=") for argument in arguments if argument.startswith("protocol=")]
    changes = [argument.removeprefix("protocol.") for argument in arguments if argument.startswith("protocol.")]
    if len(wanted) != 1:
        raise ValueError(f"Say protocol=NAME once; there are {', '.join(protocol_names())}.")
    names = [item.name for item in fields(Options)]
    for argument in plain:
        key = argument.split("=")[0]
        if "=" not in argument or key not in names:
            near = difflib.get_close_matches(key, [*names, "protocol"], 1)
            advice = f"did you mean {near[0]}=?" if near else f"there are {', '.join(names)}"
            raise ValueError(f"{argument!r} is no option; {advice}")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Options), OmegaConf.from_dotlist(plain))
        options: Any = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise ValueError(f"{getattr(error, 'full_key', '')}: {str(error).splitlines()[0]}") from error
    return Command(options, load_protocol(wanted[0], changes))


def load_protocol(name: str, changes: Sequence[str] = ()) -> Protocol:
    """A protocol of `configs/eval/` by name, or one at a path, with `key=value` changes.

    Raises:
        ValueError: there is none, or it has a key or value that no protocol has.
    """
    from omegaconf import OmegaConf

    path = Path(name) if name.endswith(".yaml") else PROTOCOLS / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(f"There is no protocol {name!r}; there are {', '.join(protocol_names())}.")
    merged = OmegaConf.merge(OmegaConf.load(path), OmegaConf.from_dotlist(list(changes)))
    content: Any = OmegaConf.to_container(merged, resolve=True)
    return make_protocol(content, str(path))


def protocol_names() -> list[str]:
    """Of the protocols in `configs/eval/`."""
    return sorted(path.stem for path in PROTOCOLS.glob("*.yaml") if path.stem != "tables")
