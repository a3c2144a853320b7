"""Video in, a 3D Gaussian set for every frame out: `python inference.py INPUT --out DIR`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import ss4d
from ss4d.gaussians.ply import write_ply
from ss4d.pipeline import Generation, SS4DPipeline, Stage, measured, override
from ss4d.video import find_foreground, read_clip, write_video
from ss4d.visualize import compare_video, render_orbit, render_voxels

DEFAULT_MODEL = Path(__file__).parent / "checkpoints" / "ss4d-tiny"
DEFAULT_FPS = 12.0  # for images, which carry no frame rate
REPORT = "result.json"


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("input", type=Path, help="mp4, mov, webm or gif, or a folder of images")
    parser.add_argument("--model", default=str(DEFAULT_MODEL), help="checkpoint folder or Hub id (lizb6626/SS4D)")
    parser.add_argument("--out", type=Path, default=Path("outputs"), help="folder to write; replaced if it exists")
    parser.add_argument("--num-frames", type=int, help="frames to take, evenly over the clip (default: all)")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--steps", type=int, help="sampling steps of both flows (default: the checkpoint's)")
    parser.add_argument("--guidance", type=float, help="guidance strength of both flows (default: the checkpoint's)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--mask", type=Path, help="folder of foreground masks, one image a frame")
    parser.add_argument("--size", type=int, default=256, help="height of the written videos in pixels")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = parse_arguments(argv)
    try:
        generate(options)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def generate(options: argparse.Namespace) -> None:
    """Run the pipeline and write everything into `options.out`, which appears whole or not at all."""
    started = time.perf_counter()
    check_options(options)
    clip = read_clip(options.input, options.num_frames)
    rgba = find_foreground(clip, options.mask)
    pipeline = SS4DPipeline.from_pretrained(options.model, device=options.device)
    stages: list[Stage] = []
    result = pipeline.run(
        rgba,
        seed=options.seed,
        structure=override(pipeline.structure, options.steps, options.guidance),
        latents=override(pipeline.latents, options.steps, options.guidance),
        progress=True,
    )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.out.parent, prefix=f".{options.out.name}-") as folder:
        unfinished = Path(folder) / "result"
        unfinished.mkdir()
        with measured("writing", stages, pipeline.device):
            write_assets(result, rgba, unfinished, clip.fps or DEFAULT_FPS, options.size)
        seconds = time.perf_counter() - started
        write_report(result, [*result.stages, *stages], unfinished, options, seconds)
        replace_folder(unfinished, options.out)
    total = sum(result.gaussians.num_gaussians)
    print(f"{len(result.gaussians)} frames, {total:,} Gaussians -> {options.out} in {seconds:.1f} s")


def check_options(options: argparse.Namespace) -> None:
    """Raise a ValueError for options that cannot work, before anything is loaded."""
    if options.num_frames is not None and options.num_frames < 1:
        raise ValueError(f"--num-frames {options.num_frames}: ask for at least one frame")
    if options.out.is_file():
        raise ValueError(f"--out {options.out} is a file: name a folder")
    if options.out.is_dir() and any(options.out.iterdir()) and not (options.out / REPORT).is_file():
        raise ValueError(f"--out {options.out} holds something else than an earlier result: name another folder")
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device {options.device}: this machine has no CUDA device; use --device cpu")


def write_assets(result: Generation, rgba: np.ndarray, folder: Path, fps: float, size: int) -> None:
    """PLY files of all frames and the three videos."""
    (folder / "frames").mkdir()
    for index, gaussians in enumerate(tqdm(result.gaussians, desc="PLY files", unit="frame")):
        write_ply(gaussians, folder / "frames" / f"{index:05d}.ply")
    videos = tqdm(
        {
            "orbit": lambda: render_orbit(result.gaussians, size),
            "compare": lambda: compare_video(rgba, result.gaussians, size=size),
            "voxels": lambda: render_voxels(result.voxels, result.resolution, size),
        }.items(),
        desc="videos",
        unit="video",
    )
    for name, render in videos:
        write_video(folder / f"{name}.mp4", render(), fps)


def write_report(
    result: Generation, stages: list[Stage], folder: Path, options: argparse.Namespace, seconds: float
) -> None:
    """result.json: how the result came about and what it cost."""
    report = {
        "input": str(options.input),
        "model": str(options.model),
        "device": options.device,
        "seed": result.seed,
        "num_frames": len(result.gaussians),
        "structure_sampler": dataclasses.asdict(result.structure),
        "latent_sampler": dataclasses.asdict(result.latents),
        "resolution": result.resolution,
        "voxels": [len(voxels) for voxels in result.voxels],
        "gaussians": result.gaussians.num_gaussians,
        "stages": [dataclasses.asdict(stage) for stage in stages],
        "seconds": seconds,
        "versions": {"ss4d": ss4d.__version__, "torch": torch.__version__},
    }
    (folder / REPORT).write_text(json.dumps(report, indent=2) + "\n")


def replace_folder(new: Path, target: Path) -> None:
    """Put `new` in the place of `target`."""
    if target.exists():
        shutil.move(target, new.with_name("old"))
    os.replace(new, target)


if __name__ == "__main__":
    sys.exit(main())
