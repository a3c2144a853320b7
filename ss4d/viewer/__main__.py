"""Write the player of a result, or serve it live: `python -m ss4d.viewer [--live] RESULT`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ss4d.failures import run_command


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ss4d.viewer", description=__doc__)
    parser.add_argument("result", type=Path, help="folder that inference.py wrote")
    parser.add_argument("--out", type=Path, help="HTML file to write (default: player.html in the result's folder)")
    live = parser.add_argument_group("live")
    live.add_argument("--live", action="store_true", help="serve the result by viser instead of writing a file")
    live.add_argument("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0: for other machines too")
    live.add_argument("--port", type=int, default=8080)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = parse_arguments(argv)
    return run_command(lambda: (show_live if options.live else write)(options), sys.argv[1:] if argv is None else argv)


def write(options: argparse.Namespace) -> None:
    from ss4d.viewer.page import write_player  # they load torch, which --help does not need
    from ss4d.viewer.result import read_result

    out = options.out or options.result / "player.html"
    result = read_result(options.result)
    write_player(
        out,
        result.gaussians,
        resolution=result.resolution,
        images=result.images,
        fps=result.fps,
        orbit=result.orbit,
        title=result.title,
    )
    print(f"{len(result.gaussians)} frames, {out.stat().st_size / 1e6:.1f} MB -> {out}: open it in a browser")


def show_live(options: argparse.Namespace) -> None:
    from ss4d.viewer.result import read_result

    try:
        from ss4d.viewer.live import serve_live
    except ModuleNotFoundError as error:
        raise ValueError(f"--live needs the package {error.name}: pip install -e '.[live]'") from None
    serve_live(read_result(options.result), options.host, options.port)


if __name__ == "__main__":
    sys.exit(main())
