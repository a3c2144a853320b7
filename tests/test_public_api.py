"""The examples in the docstrings of what users call, and the README's, run as they stand."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENTRIES = [
    ("ss4d", None),
    ("ss4d", "load_video"),
    ("ss4d.pipeline", "SS4DPipeline"),
    ("ss4d.result", "Generation"),
    ("ss4d.backend", None),
    ("ss4d.gaussians.ply", "read_ply"),
    ("ss4d.gaussians.ply", "write_ply"),
    ("ss4d.gaussians.rasterize", "rasterize"),
]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory that looks like the repository's root, to write into."""
    for name in ("assets", "checkpoints"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "outputs").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("module", "name"), ENTRIES)
def test_the_example_of_an_entry_runs(module: str, name: str | None, checkout: Path):
    home = importlib.import_module(module)
    entry = home if name is None else getattr(home, name)
    examples = doctest.DocTestParser().get_doctest(entry.__doc__ or "", {}, name or module, None, None)
    assert examples.examples, "there is no example"
    assert doctest.DocTestRunner().run(examples).failed == 0


def test_the_readme_snippet_runs_as_pasted(checkout: Path):
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    assert any("load_video" in snippet for snippet in snippets)
    for snippet in snippets:
        exec(compile(snippet, "README.md", "exec"), {})
