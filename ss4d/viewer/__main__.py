"""Write the player of a result: `python -m ss4d.viewer RESULT`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ss4d.viewer", description=__doc__)
    parser.add_argument("result", type=Path, help="folder that inference.py wrote")
    parser.add_argument("--out", type=Path, help="HTML file to write (default: player.html in the result's folder)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = parse_arguments(argv)
    from ss4d.viewer.page import write_player  # they load torch, which --help does not need
    from ss4d.viewer.result import read_result

    out = options.out or options.result / "player.html"
    try:
        result = read_result(options.result)
        write_player(
            out,
            result.gaussians,
            resolution=result.resolution,
            images=result.images,
            fps=result.fps,
            title=result.title,
        )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{len(result.gaussians)} frames, {out.stat().st_size / 1e6:.1f} MB -> {out}: open it in a browser")
    return 0


if __name__ == "__main__":
    sys.exit(main())
