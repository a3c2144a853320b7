"""Several methods, the tables and a figure from one command (`configs/eval/suites/`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ss4d.config import load_options, read_yaml
from ss4d.evaluation import evaluate
from ss4d.evaluation.figures import draw, save_picture
from ss4d.evaluation.options import METHODS_WITH, FiguresOptions, RunOptions, SuiteOptions
from ss4d.evaluation.protocol import PROTOCOLS, names_in
from ss4d.evaluation.table_formats import write_tables
from ss4d.evaluation.tables import build_tables
from ss4d.evaluation.typed import from_arguments


@dataclass
class Suite:
    """What a file in `configs/eval/suites` holds."""

    protocol: str
    methods: list[dict[str, Any]]  # options of `run` that differ from one method to the next
    figure: list[str] = field(default_factory=list)  # labels of the methods in the figure; empty: no figure


def run(options: SuiteOptions) -> list[str]:
    """Evaluate every method of a suite, then write tables and figure; returns what could not be made."""
    suite = read_suite(options.suite)
    runs = method_options(suite, options.arguments)
    check_arguments(suite, options.arguments)
    failed = [sentence for run_options in runs for sentence in evaluate.run(run_options)]
    given = from_arguments(RunOptions, [f"protocol={suite.protocol}", *options.arguments])
    out = Path(given.out)
    write_tables(build_tables(out, changes=given.changes), out)
    if suite.figure and not failed:
        figure = FiguresOptions(
            protocol=given.protocol,
            changes=given.changes,
            data=given.data,
            results=given.out,
            methods=suite.figure,
            seed=given.seeds[0],
        )
        save_picture(draw(figure), out / "figure.png")
    return failed


def method_options(suite: Suite, arguments: Sequence[str]) -> list[RunOptions]:
    """The options of `run` for every method of a suite, which takes those of `arguments` that it reads."""
    return [
        from_arguments(
            RunOptions,
            [
                f"protocol={suite.protocol}",
                *(f"{key}={value}" for key, value in entry.items()),
                *arguments_of(entry.get("method", RunOptions.method), arguments),
            ],
        )
        for entry in suite.methods
    ]


def arguments_of(method: str, arguments: Sequence[str]) -> list[str]:
    """Those that a method reads, of arguments that are given to all methods of a suite."""
    return [text for text in arguments if method in METHODS_WITH.get(text.partition("=")[0], (method,))]


def check_arguments(suite: Suite, arguments: Sequence[str]) -> None:
    """ValueError for an argument that no method of the suite reads, or that cannot be the same for all of them."""
    methods = [entry.get("method", RunOptions.method) for entry in suite.methods]
    for text in arguments:
        if text.partition("=")[0] == "shard":
            raise ValueError(f"{text}: a suite ends with tables of all objects. Share `run` out, then call the suite.")
        if text.partition("=")[0] in ("method", "label", "inputs"):
            raise ValueError(f"{text} cannot be given to a suite, whose methods differ in it: use `run`.")
        if not any(text in arguments_of(method, [text]) for method in methods):
            raise ValueError(f"{text}: no method of the suite reads it.")


def read_suite(name: str) -> Suite:
    """The content of a suite.

    Raises:
        ValueError: there is none of that name, or it lacks protocol or methods.
    """
    path = Path(name) if name.endswith(".yaml") else PROTOCOLS / "suites" / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(names_in("suites"))
        raise ValueError(f"There is no suite {name!r}; there are {known}, or pass a .yaml file.")
    return load_options(Suite, read_yaml(path), origin=str(path))
