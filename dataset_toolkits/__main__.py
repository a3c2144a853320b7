"""Command line: `python -m dataset_toolkits prepare --assets DIR --root OUT`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dataset_toolkits.clip import Parameters
from dataset_toolkits.index import AssetEntry, read_index
from dataset_toolkits.prepare import prepare_objects


def main(arguments: list[str] | None = None) -> int:
    """Run a subcommand; returns the number of objects and clips that failed, at most 100."""
    options = _parser().parse_args(arguments)
    return options.run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dataset_toolkits", description=__doc__)
    commands = parser.add_subparsers(required=True)
    defaults = Parameters()
    prepare = commands.add_parser("prepare", help="pose, voxelise and render the clips of animated objects")
    prepare.set_defaults(run=_prepare)
    prepare.add_argument("--assets", type=Path, required=True, help="folder with index.json")
    prepare.add_argument("--root", type=Path, required=True, help="folder of the data set to write")
    prepare.add_argument("--objects", help="ids separated by commas; default: all")
    prepare.add_argument("--split", help="only the objects of this split")
    prepare.add_argument("--clips-per-object", type=int, default=4, help="at most, the best clip first")
    prepare.add_argument("--frames", type=int, default=defaults.frames, help="spread over each clip")
    prepare.add_argument("--resolution", type=int, default=defaults.resolution, help="voxels along each axis")
    prepare.add_argument("--views", type=int, default=defaults.views, help="cameras all around")
    prepare.add_argument("--size", type=int, default=defaults.size, help="pixels of these views")
    prepare.add_argument("--cond-views", type=int, default=defaults.cond_views, help="videos from the front")
    prepare.add_argument("--cond-size", type=int, default=defaults.cond_size, help="pixels of these videos")
    prepare.add_argument("--workers", type=int, default=2, help="processes")
    return parser


def _prepare(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    entries = _select(read_index(options.assets), options.objects, options.split)
    parameters = Parameters(
        frames=options.frames,
        resolution=options.resolution,
        views=options.views,
        size=options.size,
        cond_views=options.cond_views,
        cond_size=options.cond_size,
    )
    total = sum(len(entry.clips[: options.clips_per_object]) for entry in entries)
    num_clips = num_resumed = num_left_out = num_failed = 0
    with tqdm(total=total, unit="clip") as progress:
        for result in prepare_objects(entries, options.root, parameters, options.clips_per_object, options.workers):
            num_clips += len(result.records)
            num_resumed += result.num_resumed
            num_left_out += len(result.root_motion)
            num_failed += len(result.failures)
            progress.update(len(result.records) + len(result.failures))
            for failure in result.failures:
                progress.write(f"FAILED {failure.object_id} {failure.clip or ''}: {failure.error}")
    print(
        f"{num_clips} clips in {options.root} ({num_resumed} were there), "
        f"{num_left_out} left out for root motion, {num_failed} failures"
    )
    return min(num_failed, 100)


def _select(entries: list[AssetEntry], objects: str | None, split: str | None) -> list[AssetEntry]:
    if objects:
        wanted = objects.split(",")
        unknown = set(wanted) - {entry.object_id for entry in entries}
        if unknown:
            raise SystemExit(f"not in the index: {', '.join(sorted(unknown))}")
        entries = [entry for entry in entries if entry.object_id in wanted]
    return [entry for entry in entries if split in (None, entry.split)]


if __name__ == "__main__":
    sys.exit(main())
