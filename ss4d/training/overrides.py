"""Overrides of a Hydra program: what names nothing in its config is refused in one sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ss4d.config import did_you_mean, nearest_key

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

# Keys that a config may gain: mappings by free names, and arguments of models, which the registry of models checks.
FREE_FORM = (
    "data.category_weight.*",
    "models.*.args.*",
    "phases.*",
    "hydra.job.env_set.*",
    "hydra.launcher.additional_parameters.*",
)


def check_overrides(arguments: Sequence[str], config_dir: Path, config_name: str) -> None:
    """Refuse overrides on the command line of a Hydra program that name nothing its config has.

    Call it on `sys.argv[1:]` ahead of `hydra.main`. Values are not looked at but for keys inside of mappings; requests
    for help pass. A sweep over several experiments must be valid for each.

    Args:
        config_dir: absolute or relative to the working directory.
        config_name: of the primary config, without ".yaml".

    Raises:
        ValueError: text that is no override, an unknown key or option of a group ("experiment=..."), with the nearest
            one, a group without a choice, or an addition ("+key=value") outside of the free-form mappings.
    """
    from hydra._internal.utils import get_args_parser

    options = get_args_parser().parse_args(list(arguments))
    if options.help or options.hydra_help or options.shell_completion:
        return
    overrides = [_parse(text) for text in options.overrides]
    groups = [override for override in overrides if _is_group(override, config_dir)]
    _check_choices(groups, config_dir, config_name)
    for chosen in product(*(_choices(override) for override in groups)):
        known = _compose(config_name, config_dir, [text for text in chosen if text])
        added: set[str] = set()
        for override in sorted(overrides, key=lambda override: not (override.is_add() or override.is_force_add())):
            if override not in groups:
                _check_override(override, known, added)


def _parse(text: str) -> Override:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise ValueError(f"'{text}' is not of the form key=value, such as train.steps=5 ({error})") from error
    if not override.key_or_group:
        raise ValueError(f"'{text}' is not of the form key=value, such as train.steps=5 (it has no key)")
    return override


def _is_group(override: Override, config_dir: Path) -> bool:
    """Whether it chooses a file ("experiment=NAME") instead of a value; mappings are values, as Hydra has it."""
    if not override.is_sweep_override() and isinstance(override.value(), dict):
        return False
    return override.key_or_group.startswith("hydra/") or (config_dir / override.key_or_group).is_dir()


def _choices(override: Override) -> list[str]:
    """The override for each option that a sweep goes through; "" leaves the group out."""
    if override.is_delete():
        return [""]
    values = override.sweep_string_iterator() if override.is_sweep_override() else [override.get_value_element_as_str()]
    return [f"{override.get_key_element()}={value}" for value in values]


def _check_choices(groups: Sequence[Override], config_dir: Path, config_name: str) -> None:
    """Every option of our own groups exists, and no group lacks one."""
    from omegaconf import OmegaConf

    for override in groups:
        folder = config_dir / override.key_or_group
        if folder.is_dir() and not override.is_delete():
            options = _options(folder)
            for choice in _choices(override):
                value = choice.partition("=")[2]
                if value not in options:
                    hint = did_you_mean(value, options, f"choose one of {', '.join(options)}")
                    raise ValueError(f"unknown {override.key_or_group} {value}: {hint}")
    defaults: Any = OmegaConf.to_container(OmegaConf.load(config_dir / f"{config_name}.yaml"))
    named = {override.key_or_group for override in groups}
    for entry in defaults.get("defaults", []):
        for group, option in entry.items() if isinstance(entry, dict) else ():
            if option == "???" and group not in named:
                options = _options(config_dir / group)
                raise ValueError(f"no {group} is named: give {group}=NAME with one of {', '.join(options)}")


def _options(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml"))


def _compose(config_name: str, config_dir: Path, choices: list[str]) -> Any:
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException

    with initialize_config_dir(str(config_dir.resolve()), version_base="1.3"):
        try:
            return compose(config_name, choices, return_hydra_config=True)
        except HydraException as error:
            raise ValueError(f"{' '.join(choices)}: {str(error).splitlines()[0]}") from error


def _check_override(override: Override, config: Any, added: set[str]) -> None:
    """Raise ValueError for a key that is neither in the config nor among those `added`, which grow by its own."""
    known = [*_keys(config), *added]
    for key in _named_keys(override, config):
        if key in known:
            continue
        free = any(fnmatchcase(key, pattern) for pattern in FREE_FORM)
        if free and (override.is_add() or override.is_force_add()):
            added.add(key)
            continue
        if free and not override.is_delete():
            raise ValueError(f"{key} is not there yet: add it with +{override.input_line}")
        raise ValueError(f"unknown key {key}: {nearest_key(key, known)}")


def _named_keys(override: Override, config: Any) -> Iterator[str]:
    """The key, or where its value is a mapping that joins a section: the keys in there."""
    from omegaconf import DictConfig, OmegaConf

    def walk(key: str, value: Any) -> Iterator[str]:
        section = OmegaConf.select(config, key, throw_on_missing=False)
        if isinstance(value, Mapping) and isinstance(section, DictConfig):
            for name, inner in value.items():
                yield from walk(f"{key}.{name}", inner)
        else:
            yield key

    value = None if override.is_sweep_override() else override.value()
    return walk(override.key_or_group, value)


def _keys(config: Any, prefix: str = "") -> Iterator[str]:
    """Dotted keys of all sections and values."""
    from omegaconf import DictConfig

    for name in config:
        key = f"{prefix}{name}"
        yield key
        node = config._get_node(name)
        if isinstance(node, DictConfig) and not (node._is_none() or node._is_missing() or node._is_interpolation()):
            yield from _keys(node, f"{key}.")
