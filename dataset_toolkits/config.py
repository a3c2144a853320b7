"""The options of all stages: defaults, a file, `key=value`, and what is kept in `ROOT/config.yaml`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dataset_toolkits.collect import CollectOptions
from dataset_toolkits.curate import CurateOptions
from dataset_toolkits.encode import EncodeOptions
from dataset_toolkits.engine.records import write_file
from dataset_toolkits.features.stage import FeaturesOptions
from dataset_toolkits.pose import PoseOptions
from dataset_toolkits.render import RenderOptions
from dataset_toolkits.report.page import ReportOptions
from dataset_toolkits.voxelize import VoxelizeOptions
from ss4d.config import load_options, read_yaml
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
    stored = config_path(root)
    base = file or (stored if stored.exists() else None)
    values = None if base is None else read_yaml(base)
    return load_options(ToolkitConfig, values, overrides, origin=str(base or ""))


def save_config(root: Path, config: ToolkitConfig) -> None:
    """Keep the options in `ROOT/config.yaml`."""
    import yaml

    content = HEADER + yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True)
    path = config_path(root)
    if not path.exists() or path.read_text() != content:
        write_file(root, path, content.encode())
