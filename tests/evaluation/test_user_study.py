"""The user study: a page in a real browser, and the average of what it saves."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import chromium, opened_page
from eval_sets import write_consistent4d, write_scored
from PIL import Image

from scripts.eval.__main__ import main
from ss4d.evaluation.protocol import load_protocol
from ss4d.evaluation.user_study import interval, rate
from ss4d.metrics.agreement import krippendorff_alpha

CHANGES = ["objects=[guppie]", "size=32", "views.azimuths=[0,90]"]
SMALL = ["protocol=consistent4d", *(f"protocol.{change}" for change in CHANGES)]
METHODS = ["SS4D", "DG4D", "L4GM"]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study of three pairs."""
    data = write_consistent4d(tmp_path / "data")
    for method in METHODS:
        write_scored(tmp_path / "out", load_protocol("consistent4d", CHANGES), method, {"guppie": [10.0]})
    arguments = ["build", str(tmp_path / "study"), *SMALL, f"data={data}", f"results={tmp_path / 'out'}"]
    assert main(["study", *arguments, f"methods=[{','.join(METHODS)}]"]) == 0
    return tmp_path / "study"


def answers(study: Path, participant: str, rating: dict[str, int]) -> dict[str, Any]:
    """A file of answers that gives every method its rating."""
    key = json.loads((study / "key.json").read_text())
    given = [
        {"item": item, **dict.fromkeys(("geometry", "texture", "motion"), rating[what["method"]])}
        for item, what in key["items"].items()
    ]
    return {"study": key["id"], "participant": participant, "answers": given}


SHOWN = "document.getElementById('position').textContent === 'Object {} of 3'"
PAINTED = "performance.getEntriesByType('paint').length > 0"  # Chromium drops keys that come before


def wait_until_stored(profile: Path, text: bytes, seconds: float = 120) -> None:
    """Until the browser has written `text` to its local storage on disk, which it does some seconds after the page."""
    end = time.monotonic() + seconds
    while not any(
        text in path.read_bytes() for path in (profile / "Default" / "Local Storage").rglob("*") if path.is_file()
    ):
        assert time.monotonic() < end, f"{text!r} was not stored"
        time.sleep(0.1)


def test_three_pairs_are_rated_in_a_browser_by_keyboard_alone(study: Path, tmp_path: Path):
    binary = chromium()
    if binary is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    key = json.loads((study / "key.json").read_text())["items"]
    expected = {}
    with opened_page(binary, tmp_path / "profile") as page:
        page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(study / "answers"))
        page.open(study / "page" / "index.html")
        page.wait("document.getElementById('result').readyState >= 2")  # the video plays from disk
        page.screenshot(tmp_path / "study.png")
        for number in range(3):
            page.wait(f"{SHOWN.format(number + 1)} && {PAINTED}")
            item = page.evaluate("document.getElementById('result').src").split("/")[-1].removesuffix(".mp4")
            page.press("Enter")  # nothing happens before all questions are answered
            assert page.evaluate("document.getElementById('next').disabled")
            page.press(str(number + 1))
            page.press("5")
            page.press("4")
            page.press("ArrowRight")  # the focus is on the last answer; arrows move it, as in any form
            expected[item] = {"geometry": number + 1, "texture": 5, "motion": 5}
            assert page.evaluate("!document.getElementById('next').disabled")
            page.press("Enter")
            if number == 0:  # a page that is closed and opened again goes on where it was
                page.wait(SHOWN.format(2))
                wait_until_stored(tmp_path / "profile", b'"position":1')
                page.open(study / "page" / "index.html")
        page.wait("!document.getElementById('end').hidden")
        page.press("Tab")
        page.press("Enter")  # the link that saves
        end = time.monotonic() + 30
        while not (saved := list((study / "answers").glob("*.json"))) and time.monotonic() < end:
            time.sleep(0.1)
    content = json.loads(saved[0].read_text())
    assert {answer.pop("item"): answer for answer in content["answers"]} == expected
    ratings = rate(study).methods
    assert set(ratings) == set(METHODS)
    for item, given in expected.items():
        assert {name: rating.mean for name, rating in ratings[key[item]["method"]].items()} == given
    picture = np.asarray(Image.open(tmp_path / "study.png").convert("RGB"))
    assert picture.shape[0] > 600 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 50


def test_the_page_tells_nothing_of_the_methods(study: Path):
    page = (study / "page" / "index.html").read_text()
    names = [path.name for path in (study / "page").rglob("*")]
    assert not any(method in text for method in METHODS for text in (page, *names))
    assert len(json.loads((study / "key.json").read_text())["items"]) == 3


def test_intervals_are_over_raters_and_items():
    sheets = {
        "a": [{"item": "x", "motion": 5}, {"item": "y", "motion": 3}],
        "b": [{"item": "x", "motion": 4}, {"item": "y", "motion": 2}],
    }
    found = interval(sheets, "motion")
    # Student's t of 4 and 3, and of 4.5 and 2.5: 6.353 and 12.706
    assert (found.mean, found.high - found.mean) == pytest.approx((3.5, (6.353**2 + 12.706**2) ** 0.5), abs=1e-2)
    alone = interval({"a": sheets["a"]}, "motion")
    assert alone.mean == 4 and math.isnan(alone.low) and math.isnan(alone.high)


def test_answers_become_averages(study: Path, capsys: pytest.CaptureFixture[str]):
    for name, ours in (("a", 5), ("b", 4)):
        content = answers(study, name, {"SS4D": ours, "DG4D": 2, "L4GM": 3})
        (study / "answers" / f"{name}.json").write_text(json.dumps(content))
    ratings = rate(study).methods
    assert (ratings["SS4D"]["texture"].mean, ratings["DG4D"]["motion"].mean) == (4.5, 2)
    assert main(["study", "aggregate", str(study)]) == 0
    assert "SS4D: geometry 4.500, texture 4.500, " in capsys.readouterr().out  # one item: no interval over items


def test_answers_that_do_not_fit_are_refused(study: Path):
    with pytest.raises(ValueError, match="answers is empty"):
        rate(study)
    good = answers(study, "a", dict.fromkeys(METHODS, 3))
    path = study / "answers" / "a.json"
    for change, message in (
        ({"study": "other"}, "answers to another study"),
        ({"participant": None}, "a.json is no file of answers"),
        ({"answers": None}, "a.json is no file of answers"),
        ({"answers": [3]}, "has answers that are none"),
        ({"answers": [{"item": "x"}]}, "rates 'x', which is no item"),
        ({"answers": [{**good["answers"][0], "motion": 6}]}, r"rates motion of .* 6, not 1 to 5"),
        ({"answers": [{**good["answers"][0], "motion": None}]}, "None, not 1 to 5"),
        ({"answers": [{**good["answers"][0], "motion": True}]}, "True, not 1 to 5"),
        ({"answers": [{**good["answers"][0], "motion": 1.0}]}, "1.0, not 1 to 5"),
        ({"answers": [good["answers"][0]] * 2}, "twice"),
    ):
        path.write_text(json.dumps(good | change))
        with pytest.raises(ValueError, match=message):
            rate(study)


def test_a_study_is_not_overwritten_and_needs_all_results(study: Path, tmp_path: Path, capsys):
    arguments = [*SMALL, f"data={tmp_path / 'data'}", f"results={tmp_path / 'out'}"]
    assert main(["study", "build", str(study), *arguments, "methods=[SS4D]"]) == 1
    assert "exists: a study under way" in capsys.readouterr().err
    assert main(["study", "build", str(tmp_path / "other"), *arguments, "methods=[STAG4D]"]) == 1
    assert "guppie: " in (message := capsys.readouterr().err) and "of STAG4D is missing" in message


def test_the_files_tell_nothing_by_order_or_time(study: Path):
    media = study / "page" / "media"
    files = [*media.iterdir(), study / "page" / "index.html"]
    assert len({path.stat().st_mtime for path in files}) == 1 and len(files) == 5


@pytest.fixture
def larger(tmp_path: Path) -> Path:
    """Two objects, three methods, two attention checks."""
    data = write_consistent4d(tmp_path / "data")
    changes = ["objects=[guppie,skull]", *CHANGES[1:]]
    for method in METHODS:
        write_scored(
            tmp_path / "out", load_protocol("consistent4d", changes), method, {"guppie": [1.0], "skull": [1.0]}
        )
    given = ["protocol=consistent4d", *(f"protocol.{change}" for change in changes), f"data={data}"]
    arguments = ["build", str(tmp_path / "study"), *given, f"results={tmp_path / 'out'}"]
    assert main(["study", *arguments, f"methods=[{','.join(METHODS)}]"]) == 0
    return tmp_path / "study"


def sheet(study: Path, person: str, rating: Callable[[dict[str, Any]], int], left_out: int = 0) -> None:
    key = json.loads((study / "key.json").read_text())
    given = [
        {"item": item, **dict.fromkeys(("geometry", "texture", "motion"), rating(what))}
        for item, what in key["items"].items()
    ]
    content = {"study": key["id"], "participant": person, "answers": given[left_out:]}
    (study / "answers" / f"{person}.json").write_text(json.dumps(content))


def test_inattentive_and_incomplete_sheets_are_marked_and_agreement_is_printed(larger: Path, capsys):
    items = json.loads((larger / "key.json").read_text())["items"].values()
    assert sum("check" in what for what in items) == 2 and len(items) == 8

    def fair(what: dict[str, Any]) -> int:
        return 1 if "check" in what else {"SS4D": 5, "DG4D": 2, "L4GM": 3}[what["method"]]

    sheet(larger, "a", fair)
    sheet(larger, "b", fair, left_out=1)
    sheet(larger, "asleep", lambda what: 4)
    assert main(["study", "aggregate", str(larger)]) == 0
    said = capsys.readouterr().out
    assert "SS4D: geometry 5.000 [5.000, 5.000]" in said and "(2 participants)" in said
    assert "note: asleep.json fails 2 of 2 attention checks: left out" in said
    assert "note: b.json is incomplete, 7 of 8 items are rated" in said
    assert "agreement of raters (Krippendorff's alpha): geometry 1.00, texture 1.00, motion 1.00" in said
    assert main(["study", "aggregate", str(larger), "methods=[SS4D]"]) == 1
    assert "leave out the options of build" in capsys.readouterr().err


def test_the_interval_is_over_raters_and_items(larger: Path):
    """Raters' means are 3 and 4, items' 2.5 and 4.5: standard errors of 0.5 and 1, with one degree of freedom."""

    def by(base: int) -> Callable[[dict[str, Any]], int]:
        return lambda what: 1 if "check" in what else base + 2 * (what["object"] == "skull")

    for person, base in (("a", 2), ("b", 3)):
        sheet(larger, person, by(base))
    low, high = (getattr(rate(larger).methods["SS4D"]["motion"], bound) for bound in ("low", "high"))
    over_raters, over_items = 12.706 * 0.5, 12.706 * 1.0
    assert (high - low) / 2 == pytest.approx(np.hypot(over_raters, over_items), abs=1e-2)


def test_agreement_is_krippendorffs():
    """His example of four raters and twelve units: 0.849 for intervals."""
    none = float("nan")
    rows = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, none, none, none],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, none, 3],
        [none, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, none],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, none],
    ]
    items = [[value for value in column if value == value] for column in zip(*rows, strict=True)]
    assert krippendorff_alpha(items) == pytest.approx(0.849, abs=1e-3)
    assert np.isnan(krippendorff_alpha([[1], [2]])) and krippendorff_alpha([[1, 1], [5, 5]]) == 1
