"""Export a result to a format that other programs open: `python -m ss4d.export RESULT --to FORMAT`."""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ss4d.export.formats import FORMATS, Format
from ss4d.failures import run_command

if TYPE_CHECKING:
    from ss4d.gaussians import Gaussians
    from ss4d.viewer.result import Result


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ss4d.export",
        description=__doc__,
        epilog=f"formats:\n{describe_formats()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("result", type=Path, nargs="?", help="folder that inference.py wrote")
    parser.add_argument("--to", choices=list(FORMATS), metavar="FORMAT", help="one of the formats below")
    parser.add_argument("--out", type=Path, help="file or folder to write (default: in RESULT/exports)")
    parser.add_argument("--formats", action="store_true", help="list the formats and leave")
    mesh = parser.add_argument_group("mesh")
    mesh.add_argument("--faces", type=int, help="triangles of a frame (default: 20000)")
    mesh.add_argument("--grid", type=int, help="cells along one side of the density's grid (default: 160)")
    video = parser.add_argument_group("orbit, webm, prores")
    video.add_argument("--size", help="side of the picture, or WIDTHxHEIGHT, pixels (default: 512)")
    view = "AZIMUTH,ELEVATION[,RADIUS]"
    path = "key views that the camera moves between; one for a camera at rest (orbit: 0,15 360,15; others: 0,0)"
    video.add_argument("--path", nargs="+", metavar=view, help=path)
    video.add_argument("--frames", type=int, help="of the video (orbit: 48 or more; others: the clip's)")
    parser.add_argument("--fps", type=float, help="frames a second (default: the input's)")
    options = parser.parse_args(negative_views_as_values(sys.argv[1:] if argv is None else argv))
    if not options.formats:
        if options.result is None or options.to is None:
            parser.error("name a result and a format: python -m ss4d.export RESULT --to FORMAT")
        check_options(parser, options)
    return options


def negative_views_as_values(arguments: list[str]) -> list[str]:
    """A view such as -30,15 begins like an option; with a space before it, argparse takes it for a value."""
    return [f" {word}" if re.fullmatch(r"-[\d.]+,.*", word) else word for word in arguments]


def check_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """An option that the format does not take is an error, not ignored."""
    known = {name for each in FORMATS.values() for name in each.options}
    for name in sorted(known - set(FORMATS[options.to].options)):
        if getattr(options, name) is not None:
            takers = ", ".join(each.name for each in FORMATS.values() if name in each.options)
            parser.error(f"--{name} is for {takers}, not for {options.to}: leave it out")


def describe_formats() -> str:
    """A line for each."""
    return "\n".join(f"  {each.name:8} {each.summary}" for each in FORMATS.values())


def main(argv: list[str] | None = None) -> int:
    options = parse_arguments(argv)
    if options.formats:
        print(describe_formats())
        return 0
    return run_command(lambda: convert(options), sys.argv[1:] if argv is None else argv)


def convert(options: argparse.Namespace) -> None:
    """Read the result, and write it in the format asked for."""
    chosen = FORMATS[options.to]
    chosen.require()
    from ss4d.viewer.result import read_result  # loads torch, which --help does not need

    out = options.out or options.result / "exports" / chosen.output
    if Path(chosen.output).suffix and (out.is_dir() or not out.suffix):  # a folder for a format of one file
        out = out / chosen.output
    result = read_result(options.result)
    out.parent.mkdir(parents=True, exist_ok=True)
    export(result, chosen, out, {name: getattr(options, name) for name in chosen.options})
    files = sorted(out.iterdir()) if out.is_dir() else [out]
    print(f"{len(result.gaussians)} frames, {sum(f.stat().st_size for f in files) / 1e6:.1f} MB -> {out}")


def export(result: Result, chosen: Format, out: Path, options: dict) -> None:
    """Write a result to the file or folder `out`; options that are None take their default."""
    given = {name: value for name, value in options.items() if value is not None}
    for name in ("fps", "frames", "faces", "grid"):
        if name in given and not (given[name] > 0 and math.isfinite(given[name])):
            raise ValueError(f"--{name} must be positive, but it is {given[name]}.")
    fps = given.pop("fps", result.fps)
    if chosen.name == "mesh":
        from ss4d.export.mesh import write_mesh

        write_mesh(result.gaussians, out, fps, **given)
    elif chosen.name == "usd":
        from ss4d.export.usd import write_usd

        write_usd(result.gaussians, out, fps)
    elif chosen.name in ("orbit", "webm", "prores"):
        from ss4d.export.path import parse_size, parse_view
        from ss4d.export.video import write_alpha, write_orbit

        if "size" in given:
            given["size"] = parse_size(given["size"])
        if "path" in given:
            given["views"] = [parse_view(text, result.orbit) for text in given.pop("path")]
        write = write_orbit if chosen.name == "orbit" else write_alpha
        write(result.gaussians, out, fps, orbit=result.orbit, **given)
    elif chosen.name == "spz":
        from ss4d.export.spz import write_spz

        write_each_frame(result, out, ".spz", write_spz)
    elif chosen.name == "gltf":
        from ss4d.export.gltf import write_gltf

        write_each_frame(result, out, ".glb", write_gltf)


def write_each_frame(result: Result, folder: Path, suffix: str, write: Callable[[Gaussians, Path], None]) -> None:
    """One file a frame, `frame_00000` and so on; files of a longer clip that was there before go."""
    visible = [file for file in folder.glob("*") if not file.name.startswith(".")]
    foreign = sorted(file.name for file in visible if not re.fullmatch(rf"frame_\d+\{suffix}", file.name))
    if foreign:
        raise ValueError(f"{folder} holds something else than frames ({foreign[0]}): name another folder with --out")
    folder.mkdir(exist_ok=True)
    names = [folder / f"frame_{index:05d}{suffix}" for index in range(len(result.gaussians))]
    for gaussians, path in zip(result.gaussians, names, strict=True):
        write(gaussians, path)
    left = folder.glob(f".frame_*{suffix}.*.tmp")  # of an export that was killed
    for file in {*visible, *left} - set(names):
        file.unlink()


if __name__ == "__main__":
    sys.exit(main())
