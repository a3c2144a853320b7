"""The door of evaluation: what it says, how fast, and how it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.eval.__main__ import main
from ss4d.evaluation.options import METHODS, RunOptions
from ss4d.evaluation.typed import from_arguments

ROOT = Path(__file__).parents[2]


def test_help_names_every_method_that_can_be_created():
    from ss4d.evaluation.methods.create import METHODS as CREATED

    assert set(METHODS.replace(" or ", ", ").split(", ")) == set(CREATED)


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["sweet"], 2, "there is no command 'sweet'; there are run, suite"),
        (["suite"], 1, "suite is missing: give it a value"),
        (["tables", "result=x"], 1, "there is no option result; did you mean results?"),
        (["tables", "--results", "x"], 1, "'--results' is not of the form key=value, such as results=..."),
        (["timing", "clip.mp4", "again.mp4"], 1, "'again.mp4' is not of the form key=value"),
        (["timing", "clip.mp4", "repeats=many"], 1, "repeats = many must be a whole number"),
        (["run", "protocol=davis", "seeds=[0"], 1, "seeds = [0 must be a list"),
    ],
)
def test_a_wrong_command_line_gets_one_sentence(
    arguments: list[str], status: int, says: str, capsys: pytest.CaptureFixture[str]
):
    assert main(arguments) == status
    message = capsys.readouterr().err
    assert says in message and message.count("\n") == 1


def test_values_have_the_declared_types():
    options = from_arguments(RunOptions, ["protocol=davis", "protocol.size=8", "guidance=2", "label=7", "seeds=[1,2]"])
    assert (options.changes, options.guidance, options.label, options.seeds) == (["size=8"], 2.0, "7", [1, 2])
    assert isinstance(options.guidance, float) and options.method == "ours"
