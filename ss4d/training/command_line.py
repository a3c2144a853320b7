"""The command line of train.py: Hydra composes the config, what is wrong is said in one sentence."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ss4d.config import did_you_mean, nearest_key
from ss4d.training.phases import check_overrides_are_used

CONFIGS = Path(__file__).parents[2] / "configs"
GROUPS = ("experiment", "debug")  # folders of configs/, of which a file is chosen; the first one must be
# Keys that a config may gain by "+key=value"; what becomes of them is checked where they are used.
FREE_FORM = ("data.category_weight.*", "models.*.args.*", "phases.*")


def compose_config(arguments: Sequence[str]) -> DictConfig:
    """The config of a command line without Hydra's own flags.

    Raises:
        ValueError: an argument that is refused, in one sentence.
    """
    check_choices(arguments)
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            config = compose("train", list(arguments))
    except (HydraException, ValueError) as error:
        raise ValueError(explain(error, arguments)) from error
    check_overrides_are_used(config, arguments)
    return config


def check_choices(arguments: Sequence[str]) -> None:
    """ValueError where an experiment is missing, or one is named that does not exist."""
    if any(argument.startswith("=") for argument in arguments):
        raise ValueError("'=' stands without a key in front: give key=value, such as train.steps=5")
    if any(argument in ("--hydra-help", "--info", "--version") for argument in arguments):
        return
    _check_launcher(arguments)
    for group in GROUPS:
        known = sorted(
            path.relative_to(CONFIGS / group).with_suffix("").as_posix() for path in (CONFIGS / group).rglob("*.yaml")
        )
        known = [name for name in known if name.rpartition("/")[2][0] != "_"]
        chosen = [argument.partition("=")[2] for argument in arguments if argument.startswith(f"{group}=")]
        for name in (name for names in chosen for name in names.split(",")):
            if name not in (*known, "null"):
                raise ValueError(f"unknown {group} {name}: {did_you_mean(name, known, 'it is ' + ' or '.join(known))}")
        if group == GROUPS[0] and not chosen:
            raise ValueError(f"no {group} is named: give {group}=NAME with one of {', '.join(known)}")


def _check_launcher(arguments: Sequence[str]) -> None:
    """ValueError where a launcher of submitit is asked for that cannot work here."""
    launcher = next((text.partition("=")[2] for text in arguments if text.startswith("hydra/launcher=submitit")), None)
    if launcher and find_spec("submitit") is None:
        raise ValueError(f"hydra/launcher={launcher} needs a package: pip install hydra-submitit-launcher")
    if launcher == "submitit_slurm" and shutil.which("srun") is None:
        raise ValueError(
            "hydra/launcher=submitit_slurm needs SLURM, and srun is not on this machine: start it on a login node of "
            "the cluster, or take torchrun"
        )


def name_sweep(arguments: Sequence[str]) -> list[str]:
    """For a sweep, the argument that makes Hydra name each job by the keys that are swept, and by no others."""
    if not {"-m", "--multirun"} & set(arguments):
        return []
    given = [text for text in arguments if not text.startswith("-") and "=" in text]
    parsed = OverridesParser.create().parse_overrides(given)
    fixed = [
        str(item.key_or_group) for item in parsed if not item.is_sweep_override() or item.key_or_group == "run_dir"
    ]
    quoted = ",".join(f"'{key}'" for key in dict.fromkeys(fixed))
    return [f"hydra.job.config.override_dirname.exclude_keys=[{quoted}]"]


def of_job(config: DictConfig) -> DictConfig:
    """The config that Hydra composed for a job, checked by `check_overrides_are_used`. One of a sweep gets a folder of
    its own inside `run_dir`, such as RUN_DIR/seed=1, unless `run_dir` is swept."""
    check_overrides_are_used(config, HydraConfig.get().overrides.task)
    if HydraConfig.get().mode != RunMode.MULTIRUN:
        return config
    name = HydraConfig.get().job.override_dirname.replace("/", "_")
    if name:
        config.run_dir = f"{config.run_dir}/{name}"
    return config


def explain(error: Exception, arguments: Sequence[str]) -> str:
    """An error of Hydra in one sentence, with the nearest key for one that is unknown."""
    if isinstance(error, OverrideParseException):
        return (
            f"'{error.override}' is not of the form key=value, such as train.steps=5: a value with '=', brackets or "
            "commas needs quotes of its own, as in 'run_dir=\"a=b\"'"
        )
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        options = sorted(error.options or [])
        return f"unknown {group} {name}: {did_you_mean(name, options, 'it is ' + ' or '.join(options))}"
    text = " ".join(str(error).split())
    unknown = re.match(r"Could not (?:override|delete from config\.) '([^']+)'(?! is)", text)
    if unknown is None or "value of" in text:
        return text
    cause = error.__cause__
    key = unknown[1]
    if isinstance(cause, OmegaConfBaseException) and cause.full_key and cause.full_key.startswith(key):
        key = cause.full_key  # inside of a mapping that was given
    sentence = f"unknown key {key}: {nearest_key(key, list(_known_keys(arguments)))}"
    if any(fnmatchcase(key, pattern) for pattern in FREE_FORM) and text.startswith("Could not override"):
        sentence += f"{'' if sentence.endswith('?') else '.'} Or add it with +{key}=VALUE"
    return sentence


def _known_keys(arguments: Sequence[str]) -> Iterator[str]:
    """Of the config that the chosen experiment gives, those of Hydra included."""
    choices = [argument for argument in arguments if argument.partition("=")[0] in GROUPS and "," not in argument]
    choices = choices or [f"{GROUPS[0]}=structure_flow/tiny"]  # of a sweep, an example
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose("train", choices, return_hydra_config=True)
    OmegaConf.set_struct(config, False)
    yield from _keys(OmegaConf.to_container(config), "")


def _keys(section: Any, prefix: str) -> Iterator[str]:
    for name, value in section.items():
        yield f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _keys(value, f"{prefix}{name}.")
