"""Seconds of every stage, cold and warm, and memory (Table 4).

The first run of a process is cold (kernels are compiled, files are read); the table shows the median of the warm runs.
All runs have the same seed, and so the same voxels. Loading the models, and writing what `inference.py` writes, are
measured apart.
"""

from __future__ import annotations

import dataclasses
import platform
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ss4d.evaluation.identity import checkpoint_hash
from ss4d.evaluation.json_files import read_json, write_json
from ss4d.evaluation.options import TimingOptions
from ss4d.evaluation.results import check_label
from ss4d.evaluation.table_formats import counted
from ss4d.pipeline import SS4DPipeline
from ss4d.video import find_foreground, read_clip

PREFIX = "timing_"


def run(options: TimingOptions) -> list[str]:
    """Write `timing_<label>.json` into the folder of results, where `tables` finds it."""
    check_label(options.label)
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
    pipeline = SS4DPipeline.from_pretrained(options.model, device, precision=options.precision)
    loading = time.perf_counter() - started
    rgba = find_foreground(read_clip(Path(options.clip), options.frames))
    results = [pipeline.run(rgba, seed=options.seed) for _ in range(options.repeats + 1)]
    runs = [result.stages for result in results]
    with tempfile.TemporaryDirectory() as place:
        started = time.perf_counter()
        results[-1].write(Path(place))
        export = time.perf_counter() - started
    totals = [sum(stage.seconds for stage in stages) for stages in runs]
    return {
        "name": options.label,
        "model": str(options.model),
        "sha256": checkpoint_hash(options.model),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else cpu_name(),
        "threads": torch.get_num_threads(),
        "precision": results[-1].precision,
        "frames": len(rgba),
        "voxels": sum(len(voxels) for voxels in results[-1].voxels),
        "seed": options.seed,
        "loading_seconds": loading,
        "export_seconds": export,
        "cold_seconds": totals[0],
        "seconds": statistics.median(totals[1:]),
        "cold": [dataclasses.asdict(stage) for stage in runs[0]],
        "warm": [[dataclasses.asdict(stage) for stage in stages] for stages in runs[1:]],
    }


def cpu_name() -> str:
    """Of this machine, as its maker calls it where that is known."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def read_timings(results: Path) -> dict[str, dict[str, Any]]:
    """The reports of every method that was timed, by name."""
    found = {}
    for path in sorted(results.glob(f"{PREFIX}*.json")):
        report = read_json(path)
        try:
            report["seconds"] = float(report["seconds"])
            found[str(report["name"])] = report
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged ({error!r}): delete it and run timing again.") from error
    return found


def timed_on(report: Mapping[str, Any]) -> str:
    """What a report was measured with, in a few words."""
    threads = f", {counted(report['threads'], 'thread')}" if "threads" in report else ""
    frames = f", {counted(report['frames'], 'frame')}" if "frames" in report else ""
    model = f", {report['model']}" if "model" in report else ""
    return f"this code, {report.get('device', 'unknown device')}{threads}{frames}{model}"
