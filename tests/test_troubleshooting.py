"""docs/troubleshooting.md has every message that a user of training and evaluation can meet, and none that is gone."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
# What training and evaluation say, and what they are told by the modules that they read their input with.
SAYING = [
    *("ss4d/training", "ss4d/evaluation", "ss4d/data", "ss4d/metrics", "train.py", "scripts/eval"),
    *("ss4d/config.py", "ss4d/shard.py", "ss4d/models/checkpoint.py", "ss4d/models/folder.py"),
]
SECTIONS = ("Prepared sets", "Training", "Evaluation", "Models")
HOLE = "\0"  # a value in a message
LEAST = 7  # characters that an entry has beside its holes; a message with fewer letters is composed of others
# What no input leads to: mistakes of a caller in Python.
INTERNAL = (
    *("a batch cannot hold a", "no mapping", "has no attribute", "options of the type", "foreground must be bool"),
    *("share = ", "Flickering compares adjacent", "Features must be", "An interval takes", "LPIPS is defined over"),
    *("The prediction has", "A frame has no point", "The grids are", "The warping error compares"),
)


def text_of(node: ast.expr) -> str:
    """A string expression with a hole for each value."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(map(text_of, node.values))
    return HOLE


def parsed(paths: list[str]) -> Iterator[tuple[str, ast.AST]]:
    for path in paths:
        for file in [ROOT / path] if path.endswith(".py") else sorted((ROOT / path).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text())):
                yield f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}", node


def messages() -> Iterator[tuple[str, str]]:
    """Where an error is raised, a warning given or the program ended, and what is said."""
    for place, node in parsed(SAYING):
        call = node.exc if isinstance(node, ast.Raise) else node
        if not isinstance(call, ast.Call) or not call.args:
            continue
        name = ast.unparse(call.func)
        if (isinstance(node, ast.Raise) and name[0] != "_") or name in ("warnings.warn", "sys.exit"):
            text = text_of(call.args[0])
            if sum(map(str.isalpha, text.removeprefix("train.py: "))) >= LEAST:
                yield place, text


@cache
def entries() -> tuple[str, ...]:
    """The messages of the page, with `...` or a capital letter for a value."""
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    rows = [
        line.split(" | ")[0]
        for section in sections
        if section.startswith(SECTIONS)
        for line in section.splitlines()
        if line.startswith("| `")
    ]
    found = [entry for row in rows for entry in re.findall(r"`([^`]+)`", row)]
    return tuple(entry.removeprefix("note: ") for entry in found)


@cache
def pieces(entry: str) -> list[str]:
    """What stands between the holes of an entry."""
    return [piece.strip() for piece in re.split(r"\.\.\.|\b[A-Z]\b", entry) if piece.strip(" .")]


def fits(entry: str, message: str) -> bool:
    """Whether the pieces of an entry stand in a message in their order, none over a hole."""
    found, end = pieces(entry), 0
    for piece in found:
        start = message.find(piece, end)
        if start < 0:
            return False
        end = start + len(piece)
    return sum(map(len, found)) >= LEAST


def test_every_message_has_an_entry():
    missing = [
        f"{place}: {message.replace(HOLE, '...')}"
        for place, message in messages()
        if not any(fits(entry, message) for entry in entries()) and not any(part in message for part in INTERNAL)
    ]
    assert not missing, "\n".join(missing)


def test_every_entry_is_a_message():
    everything = [text_of(node) for _, node in parsed(["ss4d", "train.py", "scripts"]) if isinstance(node, ast.expr)]
    said = [text for text in dict.fromkeys(everything) if text != HOLE]
    gone = [entry for entry in entries() if not any(fits(entry, text) for text in said)]
    assert not gone, "\n".join(gone)


@pytest.mark.parametrize(
    ("entry", "message", "does"),
    [
        ("... must be a list", f"{HOLE} = {HOLE} must be a list, such as [a, b]", True),
        ("step N: the loss is lost", f"step {HOLE}: the loss is lost", True),
        ("steps=3 is an option", f"{HOLE}={HOLE} is an option", False),
        ("... of ...", f"{HOLE} of {HOLE}", False),  # says nothing
        ("... before ... after ...", "first after, then before", False),
    ],
)
def test_what_fits(entry: str, message: str, does: bool):
    assert fits(entry, message) == does
