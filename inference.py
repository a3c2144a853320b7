"""Video in, a 3D Gaussian set for every frame out: `python inference.py INPUT --out DIR`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ss4d.backend import Backend, use

DEFAULT_MODEL = Path(__file__).parent / "checkpoints" / "ss4d-tiny"


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("input", type=Path, help="mp4, mov, webm or gif, or a folder of images")
    parser.add_argument("--model", default=str(DEFAULT_MODEL), help="checkpoint folder or Hub id (lizb6626/SS4D)")
    parser.add_argument("--out", type=Path, default=Path("outputs"), help="folder to write; replaced if it exists")
    parser.add_argument("--num-frames", type=int, help="frames to take, evenly over the clip (default: all)")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--steps", type=int, help="sampling steps of both flows (default: the checkpoint's)")
    parser.add_argument("--guidance", type=float, help="guidance strength of both flows (default: the checkpoint's)")
    parser.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")
    parser.add_argument("--mask", type=Path, help="folder of foreground masks, one image per frame")
    parser.add_argument("--size", type=int, default=256, help="height of the written videos in pixels")
    parser.add_argument(
        "--refine",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="align the result with the input's pixels",
    )
    parts = "attention=torch|sdpa|varlen|flash|xformers, convolution=ours|spconv, rasterizer=torch|numba|gsplat|inria"
    parser.add_argument("--backend", nargs="+", action="extend", default=[], metavar="PART=NAME", help=parts)
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
    """Run the pipeline and save the result to `options.out`."""
    if options.num_frames is not None and options.num_frames < 1:
        raise ValueError(f"--num-frames {options.num_frames}: ask for at least one frame")
    backend = Backend.parse(options.backend)

    from ss4d import SS4DPipeline, load_video  # after the options, which need no torch
    from ss4d.result import check_destination

    check_destination(options.out)
    clip = load_video(options.input, options.num_frames, options.mask)
    pipeline = SS4DPipeline.from_pretrained(options.model, options.device)
    use(backend, pipeline.device)
    result = pipeline.run(clip, options.seed, options.steps, options.guidance, options.refine, progress=True)
    about = {"input": str(options.input), "model": str(options.model)}
    result.save(options.out, options.size, about=about, progress=True)
    total = sum(result.gaussians.num_gaussians)
    print(f"{len(result.gaussians)} frames, {total:,} Gaussians -> {options.out}")


if __name__ == "__main__":
    sys.exit(main())
