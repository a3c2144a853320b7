from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from dataset_toolkits.__main__ import main
from dataset_toolkits.engine.records import write_table
from dataset_toolkits.report.sources import markdown
from ss4d.data.format import Row

KENNEY = {"licence": "CC0-1.0", "author": "Kenney"}


def asset(asset_id: str, sha256: str | None, **columns: str | None) -> Row:
    row = {"asset_id": asset_id, "sha256": sha256, "licence": None, "author": None, "source": None, "status": "done"}
    return row | columns


def table(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]


def test_assets_are_grouped_by_pack_licence_and_author(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        asset("kenney_cars/Taxi", "bb", source="github KenneyNL/Starter-Kit-Racing models/taxi.glb", **KENNEY),
        asset("kenney_cars/Bus", "aa", source="github KenneyNL/Starter-Kit-Racing models/bus.glb", **KENNEY),
        asset("kenney_cars/Van", "cc", source="github https://github.com/a/b/blob/c/van.glb", licence="MIT"),
        asset("fox", "dd", author="A|B", source="https://example.org/fox"),
        asset("refused/Robot", "ee", status="refused"),
        asset("missing/Robot", None, status="failed"),
    ]
    write_table(tmp_path, "collect", rows)
    assert main(["sources", "--root", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert text == markdown(tmp_path)
    assert text.startswith("4 objects of 2 packs.")

    def digest(*hashes: str) -> str:
        content = "".join(f"{name}\n" for name in hashes)
        return f"`{hashlib.sha256(content.encode()).hexdigest()}`"

    assert table(text)[2:] == [
        ["fox", "not given", r"A\|B", "1", "https://example.org/fox", digest("dd")],
        ["kenney_cars", "CC0-1.0", "Kenney", "2", "github KenneyNL/Starter-Kit-Racing", digest("aa", "bb")],
        ["kenney_cars", "MIT", "not given", "1", "github a/b", digest("cc")],
        ["all", "", "", "4", "", digest("aa", "bb", "cc", "dd")],
    ]
    assert not (tmp_path / "config.yaml").exists()  # it only reads


def test_the_order_of_assets_does_not_matter(tmp_path: Path) -> None:
    rows = [asset("a/1", "11"), asset("a/2", "22"), asset("b/1", "33")]
    texts = []
    for number, order in enumerate((rows, rows[::-1])):
        write_table(tmp_path / str(number), "collect", order)
        texts.append(markdown(tmp_path / str(number)))
    assert texts[0] == texts[1]


def test_a_set_that_is_not_collected_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sources", "--root", str(tmp_path)]) == 2
    assert "run `python -m dataset_toolkits collect" in capsys.readouterr().err
