"""Several methods, the tables and a figure from one command: `python -m scripts.eval.suite SUITE [key=value ...]`.

SUITE is a name in `configs/eval/suites/` or a path; options are those of `scripts.eval.run` and hold for all methods.
Everything goes into `out=`; started again, only what is missing is made.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from PIL import Image

from scripts.eval.figures import draw
from scripts.eval.options import PROTOCOLS, Command, parse
from scripts.eval.run import evaluate, exit_status
from scripts.eval.tables import build_tables, write_tables

FIGURE_OBJECTS, FIGURE_SIZE = 4, 128


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 where all results could be made, else 1."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given:
        print(__doc__, file=sys.stderr)
        return 2
    return exit_status(lambda: run_suite(given[0], given[1:]))


def run_suite(name: str, options: list[str]) -> list[str]:
    """Evaluate every method of a suite, then write tables and figure; returns what could not be made."""
    suite = read_suite(name)
    protocol = f"protocol={suite['protocol']}"
    failed: list[str] = []
    for entry in suite["methods"]:
        failed += evaluate(parse([protocol, *(f"{key}={value}" for key, value in entry.items()), *options]))
    command = parse([protocol, *options])
    out = Path(command.options.out)
    changes = [option.removeprefix("protocol.") for option in options if option.startswith("protocol.")]
    write_tables(build_tables(out, changes=changes), out)
    if suite.get("figure") and not failed:
        write_figure(command, suite["figure"], out / "figure.png")
    return failed


def write_figure(command: Command, methods: list[str], path: Path) -> None:
    """The grid of the first objects."""
    grid = draw(command, methods, None, command.options.seeds[0], FIGURE_SIZE)
    Image.fromarray(grid).save(path)
    print(path)


def read_suite(name: str) -> dict[str, Any]:
    """The content of a suite.

    Raises:
        ValueError: there is none of that name, or it lacks protocol or methods.
    """
    from omegaconf import OmegaConf

    path = Path(name) if name.endswith(".yaml") else PROTOCOLS / "suites" / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in (PROTOCOLS / "suites").glob("*.yaml")))
        raise ValueError(f"There is no suite {name!r}; there is {known}, or pass a .yaml file.")
    content: Any = OmegaConf.to_container(OmegaConf.load(path))
    if not {"protocol", "methods"} <= set(content):
        raise ValueError(f"{path} must name a protocol and a list of methods.")
    return content


if __name__ == "__main__":
    sys.exit(main())
