"""A run at the paper's size with random weights: seconds and peak memory by stage.

    python -m scripts.bench full --frames 2 --memory 4GB

Random weights say nothing of the structure (their voxels are scattered, which costs far more than a surface), so each
frame goes on with a sphere of as many voxels as an object of the training set has on average.
"""

from __future__ import annotations

import tempfile
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
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
from ss4d.models.folder import PipelineFolder, write_pipeline
from ss4d.models.names import NAMES
from ss4d.models.registry import create_model
from ss4d.plan import Plan

ROOT = Path(__file__).parents[2]


class Sphere(SS4DPipeline):
    """The pipeline with a sphere of a fixed number of voxels in every frame, after the work for its own structure."""

    voxels = 0

    def _decode_structure(self, z: Tensor, plan: Plan) -> Tensor:
        occupancy = super()._decode_structure(z, plan)
        return sphere(occupancy.shape[-1], self.voxels).to(occupancy.device).expand_as(occupancy)


def sphere(resolution: int, voxels: int) -> Tensor:
    """Bool [R, R, R]: the voxels nearest to a sphere whose radius is three eighths of the cube's side."""
    axis = torch.arange(resolution) - (resolution - 1) / 2
    distance = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0)
    grid = torch.zeros(resolution**3, dtype=torch.bool)
    grid[(distance - 3 / 8 * resolution).abs().flatten().topk(voxels, largest=False).indices] = True
    return grid.view(distance.shape)


def run(options: Namespace) -> None:
    if options.threads:
        torch.set_num_threads(options.threads)
    size = SIZES["full"]()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.folder or temporary)
        if not (folder / "pipeline.json").exists():
            in_another_process(write_checkpoint, folder, size)  # or its memory would count
        Sphere.voxels = size.voxels
        chosen = {"memory": options.memory, "precision": options.precision}
        pipeline = Sphere.from_pretrained(folder, options.device, **chosen)
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
    """A checkpoint folder of random weights in half precision, with the samplers of ss4d-tiny; one model in memory at a
    time."""
    names = {stage.replace(" ", "_").lower(): model for stage, model in size.models.items()}
    for ours, (name, arguments) in names.items():
        stem = folder / "ckpts" / NAMES[ours].key
        save_model(create_model(name, **arguments), stem, name, arguments, torch.float16)
    tiny = PipelineFolder.open(ROOT / "checkpoints/ss4d-tiny")
    structure, latents = tiny.sampler("sparse_structure_sampler"), tiny.sampler("slat_sampler")
    structure = replace(structure, start=1.0)  # there is no estimator of this size
    mean, std = tiny.latent_statistics()
    write_pipeline(folder, names, structure, latents, {"mean": mean, "std": std})
