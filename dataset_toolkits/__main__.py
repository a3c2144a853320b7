"""From animated assets to training data; see docs/data.md.

stages, in order:
  collect    list and hash assets from a folder, index files or Objaverse
  pose       pose the clips of every asset (Blender)
  curate     measure clips against thresholds
  render     views with depth and conditioning videos (Blender)
  voxelize   surface voxels of every frame
  features   features of the voxels that a camera sees
  encode     latents, with given checkpoints
  report     one HTML page about the data set
  all        all but encode

and, printed:
  sources    a Markdown table of the packs in the data set, with licences and hashes
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ss4d.failures import print_text
from ss4d.shard import Shard

if TYPE_CHECKING:  # imported where they are used: --help must answer at once
    from dataset_toolkits.config import ToolkitConfig
    from dataset_toolkits.engine.execute import Execution
    from dataset_toolkits.engine.stage import Stage

MAX_STATUS = 100
INTERRUPTED = 130
ITEM_STAGES = ("pose", "render", "voxelize", "features", "encode")
ALL = ("collect", "pose", "curate", "render", "voxelize", "features", "report")


def main(arguments: list[str] | None = None) -> int:
    """Run a stage; returns the number of items that failed, at most 100, or 2 if it cannot start."""
    given = parse_arguments(arguments)
    given.root = given.root.absolute()  # processes of a cluster work in other folders
    try:
        return _run_command(given)
    except ValueError as error:
        print(f"{given.stage}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{given.stage}: interrupted; run the same command again to continue", file=sys.stderr)
        return INTERRUPTED


def _run_command(given: argparse.Namespace) -> int:
    from dataset_toolkits.config import load_config, save_config
    from dataset_toolkits.engine.execute import Execution
    from dataset_toolkits.report.sources import markdown

    if given.stage == "sources":
        print_text(markdown(given.root).rstrip("\n"))
        return 0
    execution = Execution(
        workers=given.workers,
        executor=given.executor,
        address=given.address,
        shard=Shard.parse(given.shard),
        time_limit=given.time_limit,
        retry=given.retry,
    )
    if given.stage not in ITEM_STAGES and execution.shard.count > 1:
        raise ValueError(f"--shard goes with one of {', '.join(ITEM_STAGES)}: {given.stage} has no items to share")
    config = load_config(given.root, given.config, given.overrides)
    save_config(given.root, config)
    stages = ALL if given.stage == "all" else (given.stage,)
    return min(sum(_run_stage(stage, given.root, config, execution) for stage in stages), MAX_STATUS)


def _run_stage(name: str, root: Path, config: ToolkitConfig, execution: Execution) -> int:
    """Run one stage; returns the number of failed items."""
    from dataset_toolkits.collect import collect
    from dataset_toolkits.curate import curate
    from dataset_toolkits.engine.execute import run_stage
    from dataset_toolkits.report.page import write_report

    options = getattr(config, name)
    if name in ITEM_STAGES:
        return run_stage(_item_stage(name)(root, options), execution)
    if name == "collect":
        return collect(root, options)
    if name == "curate":
        curate(root, options)
    else:
        print(f"report: {write_report(root, options)}")
    return 0


def _item_stage(name: str) -> type[Stage]:
    from dataset_toolkits.encode import EncodeStage
    from dataset_toolkits.features.stage import FeaturesStage
    from dataset_toolkits.pose import PoseStage
    from dataset_toolkits.render import RenderStage
    from dataset_toolkits.voxelize import VoxelizeStage

    stages: tuple[type[Stage], ...] = (PoseStage, RenderStage, VoxelizeStage, FeaturesStage, EncodeStage)
    return {stage.name: stage for stage in stages}[name]


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dataset_toolkits",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="The exit status is the number of failed items, at most 100; 2 also means that the stage did not start.",
    )
    parser.add_argument("stage", choices=[*ALL[:-1], "encode", "report", "all", "sources"], metavar="STAGE")
    parser.add_argument("--root", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--config", type=Path, help="YAML file of options; replaces ROOT/config.yaml")
    parser.add_argument("--workers", type=_at_least_one, help="processes; default: one per core")
    parser.add_argument("--executor", choices=("local", "ray"), default="local", help="this machine or a Ray cluster")
    parser.add_argument("--address", default="auto", help="of the Ray cluster; default: the one of this machine")
    parser.add_argument("--shard", default="0/1", metavar="I/N", help="make only every N-th item, starting at the I-th")
    parser.add_argument("--time-limit", type=_seconds, metavar="S", help="seconds per item; default: that of the stage")
    parser.add_argument("--retry", action="store_true", help="make items again that failed in an earlier run")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="options, such as render.size=256")
    return parser.parse_intermixed_args(arguments)


def _at_least_one(text: str) -> int:
    if not (text.isdecimal() and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
