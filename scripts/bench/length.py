"""What a longer clip costs: CPU seconds, peak memory, and flickering where windows of time meet.

    python -m scripts.bench length --frames 32 96 --steps 1 --size 64

Each length runs in a process of its own on a clip that plays the demo there and back. `--quality` samples one clip in
windows and, where it is no longer than two of them, at once: their structures and their flickering at seams.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ss4d import SS4DPipeline
from ss4d.flow.long_clips import time_windows
from ss4d.gaussians import GaussianSequence
from ss4d.memory import peak_main_memory
from ss4d.refine.silhouette import shrink, silhouette, silhouette_iou
from ss4d.result import Generation
from ss4d.video import Clip, crop_clip_rgba, find_foreground, read_clip, stored
from ss4d.visualize import render_views

ROOT = Path(__file__).parents[2]
SHIPPED = 16  # frames of assets/demo.mp4


def run(options: Namespace) -> None:
    if options.single:
        print(json.dumps(cost(options)))
        return
    if options.quality:
        print(json.dumps(quality(options), indent=1))
        return
    print("| frames | voxels | CPU s, generation | CPU s, writing | ms a frame | peak, MB |")
    print("|---:|---:|---:|---:|---:|---:|")
    for frames in options.frames:
        arguments = ["--single", "--frames", frames, "--window", options.window, "--steps", options.steps]
        arguments += ["--size", options.size, "--threads", options.threads or 1]
        command = [sys.executable, "-m", "scripts.bench", "length", *map(str, arguments)]
        found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout)
        each = 1000 * (found["generation"] + found["writing"]) / frames
        seconds = f"{found['generation']:.2f} | {found['writing']:.2f} | {each:.0f}"
        print(f"| {frames} | {found['voxels']} | {seconds} | {found['peak'] / 1e6:.0f} |", flush=True)


def there_and_back(frames: int) -> np.ndarray:
    """Numbers of the demo's frames, [frames]."""
    period = [*range(SHIPPED), *range(SHIPPED - 2, 0, -1)]
    return np.resize(period, frames)


def clip_of(frames: int) -> Clip:
    """The demo played there and back, its background removed."""
    clip = read_clip(ROOT / "assets/demo.mp4")
    rgba = find_foreground(clip)[there_and_back(frames)]
    return Clip(rgba, None, clip.source, np.arange(frames), frames)


def generate(frames: int, window: int, steps: int | None, keep: Path | None = None) -> Generation:
    pipeline = SS4DPipeline.from_pretrained(ROOT / "checkpoints/ss4d-tiny", "cpu", window=window)
    clip = clip_of(frames) if keep is None else stored(clip_of(frames), keep / "clip.npy")
    return pipeline.run(clip, steps=steps, keep=keep)


def cost(options: Namespace) -> dict[str, float]:
    """CPU seconds and peak memory, bytes, of this process, which has done nothing else."""
    torch.set_num_threads(options.threads)
    generate(2, options.window, 1)  # what is compiled or loaded once
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        result = generate(options.frames[0], options.window, options.steps, Path(folder) / "kept")
        generated = time.process_time()
        (Path(folder) / "result").mkdir()
        result.write(Path(folder) / "result", options.size)
        written = time.process_time()
    peak = peak_main_memory()
    voxels = sum(map(len, result.voxels))
    return {"generation": generated - start, "writing": written - generated, "peak": peak, "voxels": voxels}


def quality(options: Namespace) -> dict[str, Any]:
    """One clip in windows and at once: their structures, and flickering where windows meet against elsewhere."""
    frames = options.frames[0]
    results = {"windows": generate(frames, options.window, options.steps)}
    if frames <= 2 * options.window:  # attention over a clip grows with its square
        results["at once"] = generate(frames, frames, options.steps)
    found: dict[str, Any] = {"frames": frames, "window": options.window, "steps": results["windows"].structure.steps}
    for name, result in results.items():
        found[f"IoU of the front's silhouette with the input's, {name}"] = input_iou(result)
        seams = seam_ratio(flicker(result.gaussians, result, options.size), frames, options.window)
        found[f"flickering at seams over that of the same motion elsewhere, {name}"] = seams
    if len(results) == 2:
        first, second = (occupancy(result) for result in results.values())
        found["IoU of the two structures"] = float(
            ((first & second).sum((1, 2, 3)) / (first | second).sum((1, 2, 3))).mean()
        )
    return found


def occupancy(result: Generation) -> torch.Tensor:
    """bool [T, R, R, R]."""
    grid = torch.zeros(len(result.voxels), *[result.resolution] * 3, dtype=torch.bool)
    for frame, voxels in enumerate(result.voxels):
        x, y, z = voxels.long().T
        grid[frame, x, y, z] = True
    return grid


def input_iou(result: Generation) -> float:
    assert result.view_frame is not None
    alpha = torch.from_numpy(crop_clip_rgba(result.rgba, 128)[..., 3].copy()).float() / 255
    seen = silhouette(occupancy(result).float(), result.view_frame.camera(), 64)
    return silhouette_iou(seen, shrink(alpha, 64))


def flicker(gaussians: GaussianSequence, result: Generation, size: int) -> np.ndarray:
    """Mean absolute difference of adjacent frames from four sides, [T - 1], on the scale 0-255."""
    assert result.view_frame is not None
    views = render_views(gaussians, (0, 90, 180, 270), 0.0, size, result.view_frame.orbit())
    pictures = np.stack(list(views)).astype(float)
    return np.abs(np.diff(pictures, axis=0)).mean((1, 2, 3, 4))


def seam_ratio(differences: np.ndarray, frames: int, window: int) -> float:
    """Differences [T - 1] where a window begins or ends, over those between the same two frames of the input
    elsewhere: the mean of the ratios."""
    shown = there_and_back(frames)
    motion = np.minimum(shown[:-1], shown[1:])  # 0: between the first and second frame, in either direction
    windows = time_windows(frames, window)
    edges = {window.start for window in windows} | {window.end for window in windows}
    seams = sorted(edges - {0, frames})
    inside = np.ones(frames - 1, bool)
    inside[[edge - 1 for edge in seams]] = False
    ratios = [
        differences[edge - 1] / differences[inside & (motion == motion[edge - 1])].mean()
        for edge in seams
        if (inside & (motion == motion[edge - 1])).any()
    ]
    return float(np.mean(ratios))
