"""README and docs: every command is accepted by its own parser, every option, path and link exists."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml
from documented_commands import check, check_option, option_names
from markdown_page import FENCE, anchors, blank, blocks, code_marks, commands, links

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in ROOT.glob("docs/*.md"))]
LANGUAGES = ("sh", "python", "yaml", "text", "floors", "bibtex")
PROGRAMS = ("python ", "./setup.sh ", "torchrun ", "sbatch ", "pip ", "npm ")
SUFFIXES = ("py", "md", "yaml", "sh", "ts", "toml", "css")  # of files that the repository has, not a run
MADE = {"config.yaml", "tables.md", "checkpoints/step_*", "index.json"}  # by a command
MADE_FOLDERS = ("outputs/", "runs/", "data/tiny", "*/")
FOREIGN = {"eps2d", "rasterize_mode"}  # options of other packages
MAX_LINE = 120


def faults(page: str, name: str = "docs/page.md") -> list[str]:
    """What is wrong with a page, a sentence each, with its line."""
    found = []
    for line, check_part in parts(page, name):
        try:
            check_part()
        except ValueError as error:
            found.append(f"{name}:{line}: {error}")
    return found


def parts(page: str, name: str) -> Iterator:
    """Everything that is checked: its line, and a function that raises a ValueError."""
    for block in blocks(page):
        yield block.line, lambda block=block: check_block(block.language, block.text)
        if block.language == "sh":
            for command in commands(block):
                yield command.line, lambda command=command: check(command.text)
        if block.language in ("text", "floors"):
            for path in re.findall(r"(?<![\w/<>])[\w/]+\.py\b|(?<![\w/<>])(?:ss4d|tests)/[\w/]+", block.text):
                yield block.line, lambda path=path: check_path(path)
    for mark in code_marks(page):
        yield mark.line, lambda mark=mark: check_mark(mark.text)
    for link in links(page):
        yield link.line, lambda link=link: check_link(link.text, page, name)
    for number, line in enumerate(blank(page, FENCE).splitlines(), 1):
        if len(line) > MAX_LINE and not line.startswith("|"):
            yield number, lambda line=line: too_long(line)
        if line.startswith("    ") and line.strip() and not re.match(r" *([-*]|\d+\.) ", line):
            yield number, lambda: unfenced()
    yield 1, lambda: check_fences(page)


def check_block(language: str, text: str) -> None:
    if language not in LANGUAGES:
        raise ValueError(f"a block of code says what it is, one of {', '.join(LANGUAGES)}")
    if language == "python":
        try:
            ast.parse(text)
        except SyntaxError as error:
            raise ValueError(f"python: {error}") from error
    if language == "yaml":
        yaml.safe_load(text)


def check_fences(page: str) -> None:
    if "```" in blank(page, FENCE):
        raise ValueError("a block of code does not end, or is indented otherwise than its end")


def too_long(line: str) -> None:
    raise ValueError(f"{len(line)} characters in a line, more than {MAX_LINE}")


def unfenced() -> None:
    raise ValueError("a block of code is indented: put it between ```")


def check_mark(text: str) -> None:
    """A code mark: a command, options, a path, or a name of the package; or anything else."""
    if "..." in text or "…" in text or "<" in text:
        return  # a pattern, not a text to type
    if text.startswith(PROGRAMS):
        check(text)
    elif re.fullmatch(r"ss4d(\.\w+)+", text):
        check_name(text)
    elif is_path(text):
        check_path(text)
    else:
        for word in text.split():
            if is_option(word):
                check_option(word)


def is_option(word: str) -> bool:
    """A key of options, with or without a value; `KEY` and `key` stand for any."""
    key, equals, _ = word.partition("=")
    known = key.partition(".")[0] in option_names() or (equals and re.fullmatch(r"\+?[a-z_.]+=[^=]*", word))
    plain = re.fullmatch(r"\+?[a-z_]+(\.[a-z_\d*]+)*", key)
    return bool(known and plain) and not is_path(word) and key.lstrip("+") not in (*FOREIGN, "key")


def is_path(text: str) -> bool:
    first, slash, _ = text.partition("/")
    known = slash and first and ((ROOT / first).is_dir() or (ROOT / "ss4d" / first).is_dir())
    return bool(known or text.rpartition(".")[2] in SUFFIXES) and not re.search(r"[ =]", text)


def check_path(text: str) -> None:
    """Paths start at the root, at ss4d/ or at docs/; a file's name alone is enough. NAME and {a,b} stand for any."""
    path = re.sub(r"\{[^}]*\}|\b[A-Z]+\b", "*", text)
    if text in MADE or path.startswith(MADE_FOLDERS) or path in file_names():
        return
    if not any(next(base.glob(path), None) for base in (ROOT, ROOT / "ss4d", ROOT / "docs")):
        raise ValueError(f"there is no file or folder {text}")


@cache
def file_names() -> set[str]:
    folders = ("ss4d", "scripts", "dataset_toolkits", "configs", "docs", "viewer/src")
    return {path.name for folder in folders for path in (ROOT / folder).rglob("*")} | {
        path.name for path in ROOT.iterdir()
    }


def check_name(text: str) -> None:
    """A module, or what one has."""
    words = text.split(".")
    for count in range(len(words), 0, -1):
        try:
            home = importlib.import_module(".".join(words[:count]))
        except ModuleNotFoundError:
            continue
        if count == len(words) or hasattr(home, words[count]):
            return
        break
    raise ValueError(f"there is no {text}")


def check_link(target: str, page: str, name: str) -> None:
    if target.startswith(("https://", "http://")):
        return
    path, _, anchor = target.partition("#")
    linked = (ROOT / name).parent / path
    if path and not linked.exists():
        raise ValueError(f"there is no file {path}")
    if anchor and anchor not in anchors(linked.read_text(encoding="utf-8") if path else page):
        raise ValueError(f"{path or 'this page'} has no heading #{anchor}")


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("name", PAGES)
def test_page(name: str) -> None:
    assert faults((ROOT / name).read_text(encoding="utf-8"), name) == []


@pytest.mark.parametrize(
    ("page", "fault"),
    [
        ("```sh\npython inference.py CLIP --outt DIR\n```", "unrecognized arguments: --outt"),
        ("```sh\npython inference.py CLIP --backend attention=flsh\n```", "attention"),
        ("```sh\npython inferense.py CLIP\n```", "unknown program python inferense.py"),
        (
            "```sh\npython train.py experiment=structure_flow/tiny \\\n    train.stepps=5\n```",
            "unknown key train.stepps",
        ),
        ("```sh\npython train.py experiment=flow/tiny\n```", "unknown experiment flow/tiny"),
        ("```sh\npython train.py experiment=structure_flow/tiny objective.kl=1\n```", "objective.kl"),
        ("```sh\ntorchrun --nproc-per-node 8 train.py experiment=sparse_vae/paper gpu=8\n```", "unknown key gpu"),
        ("```sh\ntorchrun --procs 8 train.py\n```", "--procs"),
        ("```sh\npython -m scripts.eval suite ss4d\n```", "There is no suite 'ss4d'"),
        ("```sh\npython -m scripts.eval run protocol=davis protocol.sise=5\n```", "sise"),
        ("```sh\npython -m scripts.eval run protocol=davis method=us\n```", "there is no method us"),
        ("```sh\npython -m scripts.eval ablate masking train.stepps=5\n```", "unknown key train.stepps"),
        ("```sh\npython -m scripts.eval tables --out x\n```", "'--out' is not of the form key=value"),
        ("```sh\npython -m dataset_toolkits rendr --root R\n```", "invalid choice: 'rendr'"),
        ("```sh\npython -m dataset_toolkits render --root R render.sise=5\n```", "unknown key render.sise"),
        ("```sh\npython -m dataset_toolkits all --root R --config configs/data/tiney.yaml\n```", "tiney.yaml"),
        ("```sh\npython scripts/export.py runs/tiny\n```", "required: out"),
        ("```sh\npython -m ss4d.export RESULT --to stl\n```", "invalid choice: 'stl'"),
        ("```sh\ncd viewer && npm run bild\n```", "has no script bild"),
        ("```sh\n./setup.sh demo && ./setup.sh blendr\n```", "there is no command blendr"),
        ("```sh\npip install -e '.[cuda,fast]'\n```", "no extra fast"),
        ("```sh\nmake all\n```", "unknown program make"),
        ("```python\nimport ss4d.\n```", "python: "),
        ("```\npython train.py\n```", "says what it is"),
        ("Text\n\n    python train.py\n", "is indented"),
        ("`python -m ss4d.viewer outputs/demo --output x`", "unrecognized arguments: --output"),
        ("see `ss4d/model/base.py`", "there is no file or folder ss4d/model/base.py"),
        ("see `models/basis.py`", "there is no file or folder models/basis.py"),
        ("see `configs/train.yml/`", "there is no file or folder configs/train.yml/"),
        ("```text\nnoise -> latents    models/structure_flaw.py\n```", "models/structure_flaw.py"),
        ("the option `data.quarter_turn`", "there is no option data.quarter_turn"),
        ("with `protocol.sise=64`", "there is no option protocol.sise"),
        ("with `methods_=[a]`", "there is no option methods_"),
        ("`ss4d.gaussians.rasterise`", "there is no ss4d.gaussians.rasterise"),
        ("[data](../docs/daten.md)", "there is no file ../docs/daten.md"),
        ("[data](data.md#frame)", "data.md has no heading #frame"),
        ("# Heading one\n\n[here](#heading-two)", "this page has no heading #heading-two"),
        ("word " * 30, "150 characters in a line"),
    ],
)
def test_it_finds_a_fault(page: str, fault: str) -> None:
    found = faults(page)
    assert len(found) == 1 and fault in found[0], found


def test_what_is_right_passes() -> None:
    page = (
        "# One page: `code` and 2\n\n[top](#one-page-code-and-2) of [data](data.md#where-assets-come-from)\n\n"
        "- `ss4d/nn/`, `configs/experiment/*/paper.yaml`, `render.size=512 render.views=8`, `log.csv`\n\n"
        "```sh\npython train.py -m experiment=structure_flow/tiny seed=0,1 phases.single.train.steps=5  # twice\n```\n"
    )
    assert faults(page) == []
