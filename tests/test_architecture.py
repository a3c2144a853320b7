"""Imports go down the floors of docs/architecture.md, and never in a circle."""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = "docs/architecture.md"


def read_floors(text: str) -> dict[str, int]:
    """The floor of each folder and file of the picture; 0 is the top."""
    picture = re.search(r"^```floors\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert picture is not None, f"{PAGE} has no block ```floors"
    floors: dict[str, int] = {}
    floor = -1
    for line in picture[1].splitlines():
        floor += not line.startswith(" ")
        floors.update((part, floor) for part in line.split() if part.endswith(("/", ".py")))
    return floors


def part_of(path: str, floors: Mapping[str, int]) -> str | None:
    """The part of the picture that a file belongs to."""
    return next((part for part in floors if path == part or (part.endswith("/") and path.startswith(part))), None)


def find_modules(root: Path) -> dict[str, Path]:
    """Every module of the tree by its dotted name."""
    folders = (root / "ss4d", root / "scripts", root / "dataset_toolkits")
    files = [*root.glob("*.py"), *(file for folder in folders for file in folder.rglob("*.py"))]
    modules = {}
    for file in files:
        parts = file.relative_to(root).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return modules


@cache  # the copied trees below are almost the same text
def import_statements(text: str) -> list[ast.Import | ast.ImportFrom]:
    return [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]


def imports_of(name: str, file: Path, modules: Mapping[str, Path]) -> set[str]:
    """Modules of the tree that a module names in an import statement, wherever it stands."""
    package = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
    found: set[str] = set()
    for node in import_statements(file.read_text(encoding="utf-8")):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        else:
            origin = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*origin, *filter(None, [node.module])])
            found.update(f"{base}.{alias.name}" if f"{base}.{alias.name}" in modules else base for alias in node.names)
    return {target for target in found if target in modules and target != name}


def circles(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """One circle "a -> b -> a" for each edge back that a walk in depth finds."""
    found: list[str] = []
    done: set[str] = set()
    path: list[str] = []

    def walk(node: str) -> None:
        if node in path:
            found.append(" -> ".join([*path[path.index(node) :], node]))
        elif node not in done:
            path.append(node)
            for target in sorted(graph[node]):
                walk(target)
            done.add(path.pop())

    for start in sorted(graph):
        walk(start)
    return found


def faults(root: Path) -> list[str]:
    """What is wrong with the architecture of a tree, a sentence each."""
    floors = read_floors((root / PAGE).read_text(encoding="utf-8"))
    missing = [f"{part} of {PAGE} does not exist" for part in floors if not (root / part).exists()]
    modules = find_modules(root)
    graph = {name: imports_of(name, file, modules) for name, file in modules.items()}
    # A package's empty or lazy __init__ imports nothing by itself; only what its statements name counts.
    parts = {name: part_of(file.relative_to(root).as_posix(), floors) for name, file in modules.items()}
    unknown = [
        f"{modules[name].relative_to(root)} is not in the picture of {PAGE}"
        for name, part in parts.items()
        if part is None and modules[name].stat().st_size > 200  # a package's docstring alone
    ]
    upward = []
    folders: dict[str, set[str]] = {part: set() for part in floors}
    for name, targets in graph.items():
        for target in targets:
            here, there = parts[name], parts[target]
            if here is None or there is None or here == there:
                continue
            folders[here].add(there)
            if floors[there] < floors[here]:
                upward.append(f"{name} imports {target} from a floor above")
    round_trips = [f"circle of modules: {circle}" for circle in circles(graph)]
    round_trips += [f"circle of folders: {circle}" for circle in circles(folders)]
    return sorted(missing + unknown + upward + round_trips)


def test_imports_go_down_the_floors_and_in_no_circle() -> None:
    assert faults(ROOT) == []


@pytest.fixture
def copied_tree(tmp_path: Path) -> Path:
    for name in ("ss4d", "scripts", "dataset_toolkits", PAGE, "train.py", "inference.py", "app.py"):
        source, target = ROOT / name, tmp_path / name
        target.parent.mkdir(exist_ok=True, parents=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.json", "*.html"))
        else:
            shutil.copy(source, target)
    return tmp_path


@pytest.mark.parametrize(
    ("file", "line", "fault"),
    [
        ("ss4d/sparse/packing.py", "import ss4d.models.compnet", "ss4d.sparse.packing imports ss4d.models.compnet"),
        (
            "ss4d/models/base.py",
            "from ss4d import pipeline",
            "ss4d.models.base imports ss4d.pipeline from a floor above",
        ),
        ("ss4d/evaluation/suite.py", "def late():\n    import train", "ss4d.evaluation.suite imports train"),
        ("ss4d/segments.py", "from .sparse.tensor import Geometry", "ss4d.segments -> ss4d.sparse.tensor"),
        ("ss4d/training/cost.py", "import ss4d.evaluation.suite", "ss4d/evaluation/ -> ss4d/training/"),
    ],
)
def test_it_finds_an_upward_import_and_a_circle(copied_tree: Path, file: str, line: str, fault: str) -> None:
    with (copied_tree / file).open("a") as module:
        module.write(f"\n\n{line}\n")
    assert any(fault in found for found in faults(copied_tree))


def test_it_finds_a_folder_that_is_not_in_the_picture(copied_tree: Path) -> None:
    (copied_tree / "ss4d" / "attic.py").write_text("VALUE = 1\n" * 30)
    assert faults(copied_tree) == [f"ss4d/attic.py is not in the picture of {PAGE}"]
