"""Options from layers: what does not fit is refused in one sentence, unknown keys with the nearest valid one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from ss4d.config import load_options, option, read_yaml


@dataclass(frozen=True)
class Lid:
    weight: float = option(1.0, above=0)
    maker: str | None = None


@dataclass(frozen=True)
class Kettle:
    litres: float = option(at_least=0.5, at_most=10)
    colour: Literal["red", "blue"] = "red"
    marks: Sequence[int] = option([], at_least=1)
    label: str = ""
    whistles: bool = True
    size: tuple[float, float] = (0.2, 0.4)
    prices: Mapping[str, float] = option({"plain": 1.0})
    lid: Lid = field(default_factory=lambda: Lid(weight=2.0))
    spare: Lid | None = None
    turns: int | None = option(None, was="spins", at_least=1)

    def __post_init__(self) -> None:
        if self.label == "none":
            raise ValueError(f"kettle.label = {self.label} is no label")


def test_layers_are_laid_over_each_other() -> None:
    kettle = load_options(
        Kettle,
        {"litres": 2, "marks": [1, 2], "lid": {"maker": "A"}, "prices": {"gold": "1e3"}},
        ["marks=[3]", "lid.maker=null", "prices.gold=9", "spare.weight=4", "turns=2"],
    )
    assert kettle == Kettle(
        2.0, "red", [3], prices={"plain": 1.0, "gold": 9.0}, lid=Lid(2.0, None), spare=Lid(4.0), turns=2
    )
    assert isinstance(kettle.litres, float)
    assert load_options(Kettle, {"litres": 1}).prices is not load_options(Kettle, {"litres": 1}).prices


@pytest.mark.parametrize("label", ["a b", "a=b", "2024", "null", "x: y", "[1", "# a", "1e3", "ü", ""])
def test_text_needs_no_quotes(label: str) -> None:
    assert load_options(Kettle, {"litres": 1}, [f"label={label}"]).label == label
    assert load_options(Kettle, {"litres": 1}, [f"label='{label}'"]).label == label


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("litre=1", "unknown key kettle.litre: did you mean kettle.litres?"),
        ("weight=1", "unknown key kettle.weight: did you mean kettle.lid.weight?"),
        ("lid.x=1", "unknown key kettle.lid.x: kettle.lid has weight, maker"),
        ("spins=1", "kettle.spins is now called kettle.turns"),
        ("litres=few", "kettle.litres = few must be a number"),
        ("litres=true", "kettle.litres = true must be a number"),
        ("litres=.nan", "kettle.litres = nan must be a finite number"),
        ("litres=11", "kettle.litres = 11.0 must be between 0.5 and 10"),
        ("lid.weight=0", "kettle.lid.weight = 0.0 must be above 0"),
        ("turns=1.5", "kettle.turns = 1.5 must be a whole number, or null"),
        ("turns=0", "kettle.turns = 0 must be at least 1, or null"),
        ("marks=4", "kettle.marks = 4 must be a list, such as [a, b]"),
        ("marks=[1,x]", "kettle.marks[1] = x must be a whole number"),
        ("marks=[1,0]", "kettle.marks[1] = 0 must be at least 1"),
        ("size=[1]", "kettle.size = [1] must be a list of 2"),
        ("colour=green", "kettle.colour = green must be one of red, blue"),
        ("whistles=maybe", "kettle.whistles = maybe must be true or false"),
        ("lid=3", "kettle.lid = 3 must be a mapping of options"),
        ("prices=3", "kettle.prices = 3 must be a mapping, such as {name: value}"),
        ("prices.a=b", "kettle.prices.a = b must be a number"),
        ("label=none", "kettle.label = none is no label"),
        ("litres", "'litres' is not of the form key=value, such as kettle.turns=...: put no spaces around"),
        ("=3", "'=3' is not of the form key=value"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(override: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        load_options(Kettle, {"litres": 1}, [override], section="kettle")
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"litre": 1}, "kettle.yaml: unknown key litre: did you mean litres?"),
        ({"litres": 1, "label": 7}, "kettle.yaml: label = 7 must be text (put it in quotes)"),
        ({"litres": 1, 7: 1}, "kettle.yaml: unknown key 7: there are colour, "),
        ({"litres": None}, "kettle.yaml: litres = null must be a number"),
        ({"colour": "blue"}, "litres is missing: give it a value"),
    ],
)
def test_a_mapping_that_does_not_fit_is_refused_with_its_origin(values: dict[Any, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        load_options(Kettle, values, origin="kettle.yaml")
    assert str(error.value).startswith(message)


def test_yaml_files(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("# nothing\n")
    assert read_yaml(path) == {}
    path.write_text("litres: 2\n")
    assert read_yaml(path) == {"litres": 2}
    for content in ("- 1", "litres: ["):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"a\.yaml (must map keys to values|cannot be read as YAML: )"):
            read_yaml(path)
    with pytest.raises(ValueError, match=r"b\.yaml cannot be read as YAML: "):
        read_yaml(tmp_path / "b.yaml")


def test_importing_it_is_cheap() -> None:
    """The models import it, and generating needs neither."""
    program = "import sys, ss4d.config; sys.exit(not {'hydra', 'omegaconf', 'torch', 'yaml'}.isdisjoint(sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
