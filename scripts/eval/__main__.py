"""Evaluation: `python -m scripts.eval COMMAND ...`; `python -m scripts.eval COMMAND --help` lists its options."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from ss4d.evaluation import options
from ss4d.evaluation.typed import describe, from_arguments


@dataclass(frozen=True)
class Command:
    """What a command does, the dataclass of its options, and the function that takes them."""

    text: str
    options: type[Any]
    function: str  # module of ss4d.evaluation : function, imported when it is run


COMMANDS = {
    "run": Command("Evaluate a method by a protocol.", options.RunOptions, "evaluate:run"),
    "suite": Command("Evaluate several methods, then write tables and a figure.", options.SuiteOptions, "suite:run"),
    "ablate": Command("Train and evaluate the variants of an ablation.", options.AblateOptions, "ablations.ablate:run"),
    "tables": Command("Write the paper's tables, ours beside the published.", options.TablesOptions, "tables:run"),
    "figures": Command("Draw inputs, methods and targets in a grid.", options.FiguresOptions, "figures:run"),
    "assumptions": Command(
        "Score a method under all choices papers leave open.", options.RunOptions, "assumptions:run"
    ),
    "timing": Command("Time the stages of the pipeline, cold and warm (Table 4).", options.TimingOptions, "timing:run"),
    "study": Command("Make a user study (Table 3), or average its ratings.", options.StudyOptions, "user_study:run"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0: all was made; 1: an error, or a result that could not be made; 2: no such command."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(__doc__, *(f"  {name:<12}{command.text}" for name, command in COMMANDS.items()), sep="\n")
        return 0 if given else 2
    if given[0] not in COMMANDS:
        print(f"error: there is no command {given[0]!r}; there are {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    command = COMMANDS[given[0]]
    if {"-h", "--help"} & set(given[1:]):
        print(f"{command.text}\n\nusage: python -m scripts.eval {given[0]} {describe(command.options)}")
        return 0
    try:
        parsed = from_arguments(command.options, given[1:])
        module, function = command.function.split(":")
        failures = getattr(import_module(f"ss4d.evaluation.{module}"), function)(parsed)
    except (ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # a folder that cannot be written, a disk that is full
        print(f"error: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
        return 1
    for sentence in failures:
        print(f"failed: {sentence}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
