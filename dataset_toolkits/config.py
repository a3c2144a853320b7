"""The options of all stages: defaults, a file, `key=value`, and what is kept in `ROOT/config.yaml`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from dataset_toolkits.collect import CollectOptions
from dataset_toolkits.curate import CurateOptions
from dataset_toolkits.encode import EncodeOptions
from dataset_toolkits.engine.records import write_file
from dataset_toolkits.features.stage import FeaturesOptions
from dataset_toolkits.pose import PoseOptions
from dataset_toolkits.render import RenderOptions
from dataset_toolkits.report.page import ReportOptions
from dataset_toolkits.voxelize import VoxelizeOptions
from ss4d.config import did_you_mean
from ss4d.data.format import config_path

HEADER = "# Options of this data set. Written by dataset_toolkits: change them with key=value on its command line.\n"


@dataclass
class ToolkitConfig:
    """One field a stage."""

    collect: CollectOptions = field(default_factory=CollectOptions)
    pose: PoseOptions = field(default_factory=PoseOptions)
    curate: CurateOptions = field(default_factory=CurateOptions)
    render: RenderOptions = field(default_factory=RenderOptions)
    voxelize: VoxelizeOptions = field(default_factory=VoxelizeOptions)
    features: FeaturesOptions = field(default_factory=FeaturesOptions)
    encode: EncodeOptions = field(default_factory=EncodeOptions)
    report: ReportOptions = field(default_factory=ReportOptions)


def load_config(root: Path, file: Path | None, overrides: Sequence[str]) -> ToolkitConfig:
    """The options to work with.

    Args:
        file: replaces what `ROOT/config.yaml` holds.
        overrides: `key=value` with dots in keys, e.g. "render.size=256".

    Raises:
        ValueError: an unknown option, with the nearest valid one, or a value of a wrong type.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    config = OmegaConf.structured(ToolkitConfig)
    for stage in config.values():  # dataclasses that are frozen make read-only nodes
        OmegaConf.set_readonly(stage, False)
    stored = config_path(root)
    base = file or (stored if stored.exists() else None)
    layers = [(str(base), _read(base))] if base is not None else []
    layers += [(override, _parse(override)) for override in overrides]
    for origin, layer in layers:
        _refuse_unknown(layer, origin)
        try:
            config = OmegaConf.merge(config, layer)
        except OmegaConfBaseException as error:
            raise ValueError(f"{origin}: {getattr(error, 'full_key', '') or 'value'}: {_first_line(error)}") from error
    result = OmegaConf.to_object(config)
    assert isinstance(result, ToolkitConfig)
    return result


def save_config(root: Path, config: ToolkitConfig) -> None:
    """Keep the options in `ROOT/config.yaml`."""
    from omegaconf import OmegaConf

    content = HEADER + OmegaConf.to_yaml(OmegaConf.structured(config))
    path = config_path(root)
    if not path.exists() or path.read_text() != content:
        write_file(root, path, content.encode())


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read as YAML: {_first_line(error)}") from error
    if not isinstance(content or {}, dict):
        raise ValueError(f"{path} must map stages to their options")
    return content or {}


def _parse(override: str) -> dict[str, Any]:
    from omegaconf import OmegaConf
    from yaml import YAMLError

    key, sign, _ = override.partition("=")
    if not (key and sign):
        raise ValueError(f"'{override}' is not of the form key=value, such as render.size=256")
    try:
        parsed = OmegaConf.to_container(OmegaConf.from_dotlist([override]))
    except YAMLError as error:
        raise ValueError(f"'{override}': the value is not YAML: {_first_line(error)}") from error
    assert isinstance(parsed, dict)
    return {str(key): value for key, value in parsed.items()}


def _refuse_unknown(layer: Mapping[str, Any], origin: str) -> None:
    known = list(_keys(ToolkitConfig()))
    stages = [field.name for field in fields(ToolkitConfig)]
    for stage, options in layer.items():
        names = list(options) if isinstance(options, dict) else []
        given = [f"{stage}.{name}" for name in names] or [str(stage)]
        for key in given:
            if key not in known and key not in stages:
                hint = did_you_mean(key, known + stages, f"the stages are {', '.join(stages)}")
                raise ValueError(f"unknown option {key} ({origin}): {hint}")


def _keys(options: Any, prefix: str = "") -> Iterator[str]:
    for option in fields(options):
        value = getattr(options, option.name)
        if is_dataclass(value):
            yield from _keys(value, f"{prefix}{option.name}.")
        else:
            yield f"{prefix}{option.name}"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
