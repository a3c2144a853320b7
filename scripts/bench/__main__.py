"""Benchmarks of docs/benchmarks.md: `python -m scripts.bench COMMAND [options]`.

rasterizer   forward and backward, on a sphere of Gaussians as a decoder makes them
convolution  a submanifold 3x3x3 convolution against a dense matrix product of the same FLOPs
dino         time and memory of DINOv2 ViT-L/14 on the views of a frame, random weights, on the CPU
length       generation of clips of several lengths in windows of time: CPU seconds, peak memory, seams
full         a run at the paper's size with random weights: seconds and peak memory by stage
released     one forward of each large model against one of the released code, from a checkout of it
quality      of sampling against CPU seconds: solvers and steps on held-out objects, as table and plot
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

MODULES = {"dino": "dino_features", "full": "full_size"}  # others are called as their command


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="benchmark", required=True, metavar="COMMAND")

    add = commands.add_parser("rasterizer").add_argument
    add("--gaussians", type=int, default=32000)
    add("--size", type=int, default=256, help="pixels, square")
    add("--scale", type=float, default=0.005, help="typical standard deviation, world units")
    add("--repeats", type=int, default=20)
    add("--backends", nargs="+", default=["numba"], help="numba, torch, gsplat, inria")
    add("--device", default="cpu")

    add = commands.add_parser("convolution").add_argument
    add("--radius", type=float, default=41.0, help="of the shell, voxels")
    add("--channels", type=int, default=128)
    add("--threads", type=int, help="of torch")
    add("--repeats", type=int, default=9)
    add("--spconv", action="store_true", help="compare with spconv's CPU build (forward only, one thread)")

    add = commands.add_parser("dino").add_argument
    add("--views", type=int, default=12)
    add("--batch", type=int, default=12, help="views that go through the encoder at once")
    add("--threads", type=int, help="of torch")

    add = commands.add_parser("length").add_argument
    add("--frames", type=int, nargs="+", default=[32, 96])
    add("--window", type=int, default=16, help="frames that a flow sees at once")
    add("--steps", type=int, help="of both flows (default: the checkpoint's)")
    add("--size", type=int, default=64, help="of the pictures, pixels")
    add("--threads", type=int, default=1)
    add("--single", action="store_true", help="the first length in this very process, as JSON")
    add("--quality", action="store_true", help="the first length in windows against at once")

    add = commands.add_parser("full").add_argument
    add("--frames", type=int, default=2)
    add("--memory", default="4GB", help="budget of the run, as inference.py takes it")
    add("--steps", type=int, default=1, help="of both flows")
    add("--precision", choices=("fp32", "bf16", "fp16"), help="of the models (default: as inference.py)")
    add("--folder", help="where the checkpoint of random weights is kept (3.3 GB; default: nowhere)")
    add("--device", default="cpu")
    add("--threads", type=int, help="of torch")

    add = commands.add_parser("released").add_argument
    add("--checkout", type=Path, required=True, help="root of a clone of github.com/Lizb6626/SS4D")
    add("--size", default="mid", help="of the models, as in scripts/bench/sizes.py")
    stages = ["structure flow", "sparse flow", "Gaussian decoder"]
    add("--stages", nargs="+", choices=stages, default=stages)
    add("--repeats", type=int, default=7)
    add("--out", type=Path, help="write OUT.json and OUT.md")

    add = commands.add_parser("quality").add_argument
    add("--model", default="checkpoints/ss4d-tiny", help="checkpoint folder")
    add("--precision", choices=("fp32", "bf16", "fp16"), help="of the models (default: as inference.py)")
    add("--data", type=Path, required=True, help="root of a prepared set with latents of the checkpoint's encoders")
    add("--objects", type=int, default=12, help="held-out clips")
    add("--frames", type=int, default=8, help="of a clip, every other one")
    add("--stages", nargs="+", choices=("structure", "latents"), default=["structure", "latents"])
    add("--solvers", nargs="+", default=["euler", "heun", "multistep"])
    add("--steps", type=int, nargs="+", help="by default those of the plot")
    add("--threads", type=int, default=1)
    add("--out", type=Path, default=Path("quality"), help="QUALITY.json, .md and .png; what the first has is kept")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = parse_arguments(argv)
    name = MODULES.get(options.benchmark, options.benchmark)
    import_module(f"scripts.bench.{name}").run(options)  # loads torch, which --help does not need
    return 0


if __name__ == "__main__":
    sys.exit(main())
