"""Video in, a 3D Gaussian set for every frame out: `python inference.py INPUT --out DIR`."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ss4d.backend import Backend, use
from ss4d.failures import note, notes, out_of_memory, run_command
from ss4d.memory import in_gigabytes, parse_bytes
from ss4d.quality import QUALITIES, find_quality

if TYPE_CHECKING:
    from ss4d.kept_stages import KeptStages

# Before torch is loaded: its threads wait for each other some microseconds awake, since waking costs more, then asleep.
# Otherwise they would spin on cores that others use.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
DEFAULT_MODEL = Path(__file__).parent / "checkpoints" / "ss4d-tiny"
MATTING_MODEL = "birefnet-general-lite"


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("input", type=Path, help="video (mp4, mov, webm, gif ...), picture, or folder of pictures")
    add("--model", default=str(DEFAULT_MODEL), help="checkpoint folder or Hub id (lizb6626/SS4D); default: %(default)s")
    add(
        "--out",
        type=Path,
        default=Path("outputs"),
        help="folder to write; an earlier result in it is replaced; default: %(default)s",
    )
    add("--num-frames", type=int, help="frames to take, evenly in time; default: all")
    add("--start", type=float, help="seconds; leave out what comes before")
    add("--end", type=float, help="seconds; leave out what comes after")
    add("--fps", type=float, help="frames a second to take; default: all")
    add("--mask", type=Path, help="folder or video of masks, one for each frame (SAM 2 and DAVIS folders too)")
    add(
        "--matting-model",
        default=MATTING_MODEL,
        help="of rembg, for backgrounds of more than one colour; default: %(default)s",
    )
    add("--seed", type=int, default=42, help="of the noise that sampling starts from; default: %(default)s")
    add(
        "--quality",
        choices=QUALITIES,
        default="balanced",
        help="fast: half of the steps; best: with --refine; default: %(default)s",
    )
    add("--steps", type=int, help="sampling steps of both flows; default: the checkpoint's, or as --quality says")
    add("--guidance", type=float, help="guidance strength of both flows; default: the checkpoint's")
    add("--memory", metavar="8GB", help="what a run may take; models are then loaded one at a time")
    add("--window", type=int, help="frames that a flow sees at once, longer clips being blended; default: as trained")
    add("--refine", action=argparse.BooleanOptionalAction, help="align with the input's pixels; default: as --quality")
    add("--device", help="cpu or cuda; default: cuda where there is one")
    add("--precision", choices=("fp32", "bf16", "fp16"), help="default: fp32 on a CPU, the checkpoint's on CUDA")
    add("--size", type=int, default=256, help="height of the written videos in pixels; default: %(default)s")
    add(
        "--ply",
        choices=("compact", "reference"),
        default="compact",
        help="columns: 17, or 62 with zeros; default: %(default)s",
    )
    parts = "attention=torch|sdpa|varlen|flash|xformers, convolution=ours|spconv, rasterizer=torch|numba|gsplat|inria"
    add("--backend", nargs="+", action="extend", default=[], metavar="PART=NAME", help=parts)
    add("--debug", action="store_true", help="show the traceback of a failure")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None, only_there: bool = False) -> int:
    """The command; `only_there` as for `ResultFolder`."""
    options = parse_arguments(argv)
    arguments = sys.argv[1:] if argv is None else argv
    return run_command(lambda: generate(options, only_there), arguments, options.debug)


def generate(options: argparse.Namespace, only_there: bool = False) -> None:
    """Run the pipeline and save the result to `options.out`."""
    check(options)
    backend = Backend.parse(options.backend)

    from ss4d import SS4DPipeline  # after the options, which need no torch
    from ss4d.kept_stages import KeptStages
    from ss4d.result_folder import ResultFolder
    from ss4d.video import find_foreground, foreground_warnings, read_clip, stored, write_preview

    folder = ResultFolder.open(options.out, only_there)
    with notes():
        clip = read_clip(options.input, options.num_frames, options.start, options.end, options.fps)
        rgba = find_foreground(clip, options.mask, options.matting_model)
    for warning in foreground_warnings(rgba, clip):
        note(warning)
    loading = {"memory": options.memory, "window": options.window, "precision": options.precision}
    pipeline = SS4DPipeline.from_pretrained(options.model, options.device, **loading)
    use(backend, pipeline.device)
    refine = find_quality(options.quality).refine if options.refine is None else options.refine
    plan = pipeline.plan(rgba, refine=refine, on_disk=True)
    if options.memory:
        print(plan)
    write_preview(preview := folder.preview, clip, rgba)
    if preview.name != "preview.png":
        note(f"{preview} shows what the models will see; the earlier result keeps its own until the end")
    picture = preview.read_bytes()  # another run on the same folder may replace the file
    with notes():
        kept = KeptStages(folder.kept)
    with going_on_later(kept, plan.least), notes():
        seen = dataclasses.replace(clip, frames=rgba, segmented=True)
        if kept.folder is not None:
            seen = stored(seen, kept.folder / "clip.npy")
        del clip, rgba  # the memory of the frames
        chosen = {"seed": options.seed, "steps": options.steps, "guidance": options.guidance, "refine": refine}
        result = pipeline.run(seen, **chosen, progress=True, keep=kept, quality=options.quality)

        def save(place: Path) -> None:
            about = {"input": str(options.input), "model": str(options.model)}
            result.write(place, options.size, ply=options.ply, about=about, progress=True)
            (place / "preview.png").write_bytes(picture)

        place = folder.write(save)
        total = sum(result.gaussians.num_gaussians)
    kept.remove()
    print(f"{len(result.gaussians)} frames, {total:,} Gaussians -> {place}")


@contextmanager
def going_on_later(kept: KeptStages, least_memory: float) -> Iterator[None]:
    """Say what to do where memory ran out or the user interrupted: the finished stages of this run stay in `kept`."""
    try:
        yield
    except BaseException as error:
        if not kept.holds_any():
            kept.remove()
        stages = " and ".join(kept.stages)
        verb = "is" if len(kept.stages) == 1 else "are"
        resume = f"; {stages} {verb} kept: the same command goes on from there" if stages else ""
        if isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(f"interrupted; an earlier result is as it was{resume}") from None
        if out_of_memory(error):
            raise ValueError(
                f"the memory is not enough: set --memory to what is free ({in_gigabytes(least_memory)} or more), or "
                f"take fewer frames (--num-frames){resume}"
            ) from error
        raise


def check(options: argparse.Namespace) -> None:
    """ValueError for numbers that would fail after minutes of work."""
    if options.num_frames is not None and options.num_frames < 1:
        raise ValueError(f"--num-frames {options.num_frames}: ask for at least one frame")
    if options.steps is not None and options.steps < 1:
        raise ValueError(f"--steps {options.steps}: sampling needs at least one step")
    if not 16 <= options.size <= 4096:
        raise ValueError(f"--size {options.size}: the height of the videos is 16 to 4096 pixels")
    if options.window is not None and options.window < 4:
        raise ValueError(f"--window {options.window}: windows overlap, so take 4 frames or more")
    if options.memory is not None:
        parse_bytes(options.memory)
    if options.guidance is not None and not math.isfinite(options.guidance):
        raise ValueError(f"--guidance {options.guidance}: pass a number")
    if not -(2**63) <= options.seed < 2**63:
        raise ValueError(f"--seed {options.seed}: seeds have 64 bits")


if __name__ == "__main__":
    sys.exit(main())
