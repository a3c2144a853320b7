"""A run at the paper's size with random weights: seconds and peak memory by stage.

    python -m scripts.bench full --frames 2 --memory 4GB

Random weights say nothing of the structure, so each frame keeps the voxels that its decoder is surest of, as many as an
object of the training set has on average.
"""

from __future__ import annotations

import json
import tempfile
from argparse import Namespace
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scripts.bench.length import there_and_back
from scripts.bench.sizes import SIZES, Size
from ss4d import SS4DPipeline, load_video
from ss4d.memory import peak_main_memory
from ss4d.models.checkpoint import save_model
from ss4d.models.folder import NAMES
from ss4d.models.registry import create_model
from ss4d.plan import Plan

ROOT = Path(__file__).parents[2]


class MostLikelyVoxels(SS4DPipeline):
    """The pipeline with a fixed number of voxels a frame."""

    voxels = 0

    def _decode_structure(self, z: Tensor, plan: Plan) -> Tensor:
        with self.models.use("structure_decoder") as decoder:
            logits = torch.cat([decoder(part) for part in z.split(plan.frames_at_once, dim=1)], dim=1)[0, :, 0]
        occupied = torch.zeros_like(logits, dtype=torch.bool).flatten(1)
        occupied.scatter_(1, logits.flatten(1).topk(self.voxels).indices, True)
        return occupied.view_as(logits)


def run(options: Namespace) -> None:
    if options.threads:
        torch.set_num_threads(options.threads)
    size = SIZES["full"]()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.folder or temporary)
        if not (folder / "pipeline.json").exists():
            in_another_process(write_checkpoint, folder, size)  # or its memory would count
        MostLikelyVoxels.voxels = size.voxels
        pipeline = MostLikelyVoxels.from_pretrained(folder, options.device, memory=options.memory)
        clip = load_video(ROOT / "assets/demo.mp4").frames[there_and_back(options.frames)]
        print(pipeline.plan(clip, size.voxels), flush=True)
        result = pipeline.run(clip, steps=options.steps, progress=True)
    print("| stage | wall s | peak by its end, MB |\n|---|---:|---:|")
    for stage in result.stages:
        print(f"| {stage.name} | {stage.seconds:.1f} | {stage.peak_memory_mb:.0f} |")
    print(f"\n{sum(len(frame.xyz) for frame in result.gaussians)} Gaussians; peak {peak_main_memory() / 1e9:.2f} GB")


def in_another_process(function: Callable[..., None], *arguments: Any) -> None:
    process = get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(process.exitcode)


def write_checkpoint(folder: Path, size: Size) -> None:
    """A checkpoint folder of random weights in half precision; one model in memory at a time."""
    models = {}
    for stage, (name, arguments) in size.models.items():
        key = NAMES[stage.replace(" ", "_").lower()].key
        save_model(create_model(name, **arguments), folder / "ckpts" / key, name, arguments, torch.float16)
        models[key] = f"ckpts/{key}"
    content = json.loads((ROOT / "checkpoints/ss4d-tiny/pipeline.json").read_text())
    content["args"] = {key: value for key, value in content["args"].items() if key not in ("frame", "trained_frames")}
    content["args"]["models"] = models
    (folder / "pipeline.json").write_text(json.dumps(content, indent=4))
