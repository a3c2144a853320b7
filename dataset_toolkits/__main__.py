"""From animated assets to training data; see docs/data.md.

stages, in order:
  collect    list and hash assets from a folder or Objaverse
  pose       pose the clips of every asset (Blender)
  curate     measure clips against thresholds
  render     views with depth and conditioning videos (Blender)
  voxelize   surface voxels of every frame
  features   features of the voxels that a camera sees
  encode     latents, with given checkpoints
  report     one HTML page about the data set
  all        all but encode
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

from dataset_toolkits.collect import collect
from dataset_toolkits.config import ToolkitConfig, load_config, save_config
from dataset_toolkits.curate import curate
from dataset_toolkits.encode import EncodeStage
from dataset_toolkits.engine.execute import Execution, Shard, run_stage
from dataset_toolkits.features.stage import FeaturesStage
from dataset_toolkits.pose import PoseStage
from dataset_toolkits.render import RenderStage
from dataset_toolkits.report.page import write_report
from dataset_toolkits.voxelize import VoxelizeStage

MAX_STATUS = 100
INTERRUPTED = 130
ALL = ("collect", "pose", "curate", "render", "voxelize", "features", "report")
ITEM_STAGES = {stage.name: stage for stage in (PoseStage, RenderStage, VoxelizeStage, FeaturesStage, EncodeStage)}


def main(arguments: list[str] | None = None) -> int:
    """Run a stage; returns the number of items that failed, at most 100, or 2 where it cannot start."""
    given = _parser().parse_intermixed_args(arguments)
    try:
        execution = Execution(
            workers=given.workers,
            executor=given.executor,
            address=given.address,
            shard=Shard.parse(given.shard),
            time_limit=given.time_limit,
            retry=given.retry,
        )
        if given.stage not in ITEM_STAGES and execution.shard.count > 1:
            raise ValueError(f"--shard goes with one of {', '.join(ITEM_STAGES)}: {given.stage} is not cut into items")
        config = load_config(given.root, given.config, given.overrides)
        save_config(given.root, config)
        stages = ALL if given.stage == "all" else (given.stage,)
        return min(sum(_run(stage, given.root, config, execution) for stage in stages), MAX_STATUS)
    except ValueError as error:
        print(f"{given.stage}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{given.stage}: interrupted; run the same command again to go on from here", file=sys.stderr)
        return INTERRUPTED


def _run(stage: str, root: Path, config: ToolkitConfig, execution: Execution) -> int:
    """Run one stage; returns the number of failed items."""
    options = getattr(config, stage)
    if stage in ITEM_STAGES:
        return run_stage(ITEM_STAGES[stage](root, options), execution)
    if stage == "collect":
        return collect(root, options)
    if stage == "curate":
        curate(root, options)
    else:
        print(f"report: {write_report(root, options)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dataset_toolkits",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="The exit status is the number of failed items, at most 100; 2 also means that the stage did not start.",
    )
    parser.add_argument("stage", choices=[*ALL[:-1], "encode", "report", "all"], metavar="STAGE")
    parser.add_argument("--root", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--config", type=Path, help="options that differ from the defaults; replaces ROOT/config.yaml")
    parser.add_argument("--workers", type=_at_least_one, help="processes; default: one a core")
    parser.add_argument("--executor", choices=("local", "ray"), default="local", help="where items are made")
    parser.add_argument("--address", default="auto", help="of the Ray cluster; default: the one of this machine")
    parser.add_argument("--shard", default="0/1", metavar="I/N", help="make only every N-th item, from the I-th on")
    parser.add_argument("--time-limit", type=_seconds, metavar="S", help="seconds an item; default: the stage's own")
    parser.add_argument("--retry", action="store_true", help="make items again that failed in an earlier run")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="options, such as render.size=256")
    return parser


def _at_least_one(text: str) -> int:
    if not (text.isdecimal() and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 on")
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
