"""Seconds of every stage, cold and warm, and memory (Table 4).

The first run of a process is cold (kernels are compiled, files are read); the table shows the median of the warm runs.
"""

from __future__ import annotations

import dataclasses
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from ss4d.evaluation.json_files import read_json, write_json
from ss4d.evaluation.options import TimingOptions
from ss4d.pipeline import SS4DPipeline
from ss4d.video import find_foreground, read_clip

PREFIX = "timing_"


def run(options: TimingOptions) -> list[str]:
    """Write `timing_<label>.json` into the folder of results, where `tables` finds it."""
    report = measure(options)
    path = Path(options.results) / f"{PREFIX}{options.label}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, report)
    print(f"{report['seconds']:.2f} s warm, {report['cold_seconds']:.2f} s cold -> {path}")
    return []


def measure(options: TimingOptions) -> dict[str, Any]:
    """Time the pipeline on a clip.

    Raises:
        ValueError: no repeats, or a clip or model that cannot be used.
    """
    if options.repeats < 1:
        raise ValueError(f"repeats={options.repeats}: at least one warm run is needed.")
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    started = time.perf_counter()
    pipeline = SS4DPipeline.from_pretrained(options.model, device)
    loading = time.perf_counter() - started
    rgba = find_foreground(read_clip(Path(options.clip), options.frames))
    runs = [pipeline.run(rgba, seed=seed).stages for seed in range(options.repeats + 1)]
    totals = [sum(stage.seconds for stage in stages) for stages in runs]
    return {
        "name": options.label,
        "model": str(options.model),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else platform.processor(),
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
    found = {}
    for path in sorted(results.glob(f"{PREFIX}*.json")):
        report = read_json(path)
        try:
            found[str(report["name"])] = float(report["seconds"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged ({error!r}): delete it and run timing again.") from error
    return found
