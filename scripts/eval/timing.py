"""Seconds of every stage, cold and warm, and memory: `python -m scripts.eval.timing CLIP --model DIR` (Table 4).

The first run of a process is cold (kernels are compiled, files are read); the figures of the table are of the others.
Writes `timing_<name>.json` into the folder of results, where `scripts.eval.tables` finds it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from ss4d.pipeline import SS4DPipeline
from ss4d.video import find_foreground, read_clip

PREFIX = "timing_"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path, help="video or folder of images")
    parser.add_argument("--model", default="checkpoints/ss4d-tiny")
    parser.add_argument("--name", default="ours", help="of the method in the table")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3, help="warm runs")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--results", type=Path, default=Path("outputs/eval"))
    options = parser.parse_args(arguments)
    try:
        report = measure(options)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    options.results.mkdir(parents=True, exist_ok=True)
    path = options.results / f"{PREFIX}{options.name}.json"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(report, indent=1) + "\n")
    os.replace(temporary, path)
    print(f"{report['seconds']:.2f} s warm, {report['cold_seconds']:.2f} s cold -> {path}")
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Time the pipeline on a clip."""
    if options.repeats < 1:
        raise ValueError(f"--repeats {options.repeats}: at least one warm run is needed.")
    started = time.perf_counter()
    pipeline = SS4DPipeline.from_pretrained(options.model, options.device)
    loading = time.perf_counter() - started
    rgba = find_foreground(read_clip(options.input, options.frames))
    runs = [pipeline.run(rgba, seed=seed).stages for seed in range(options.repeats + 1)]
    totals = [sum(stage.seconds for stage in stages) for stages in runs]
    return {
        "name": options.name,
        "model": str(options.model),
        "device": torch.cuda.get_device_name() if options.device.startswith("cuda") else platform.processor(),
        "threads": torch.get_num_threads(),
        "frames": len(rgba),
        "loading_seconds": loading,
        "cold_seconds": totals[0],
        "seconds": statistics.median(totals[1:]),
        "cold": [dataclasses.asdict(stage) for stage in runs[0]],
        "warm": [[dataclasses.asdict(stage) for stage in stages] for stages in runs[1:]],
    }


def read_timings(results: Path) -> dict[str, float]:
    """Warm seconds of every method that was timed, by name."""
    reports = [json.loads(path.read_text()) for path in sorted(results.glob(f"{PREFIX}*.json"))]
    return {report["name"]: float(report["seconds"]) for report in reports}


if __name__ == "__main__":
    sys.exit(main())
