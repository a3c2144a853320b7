from __future__ import annotations

import base64
import io
import re
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from html_page import Page
from PIL import Image
from report_set import CLIPS, EVIL, REFUSED, SCRIPT, colour, write_data_set

from dataset_toolkits.engine.records import Record, write_record
from dataset_toolkits.engine.stage import StageError
from dataset_toolkits.report.facts import STAGES, reason_kind
from dataset_toolkits.report.page import Credit, ReportOptions, credit, licence_url, write_report
from ss4d.data.format import artifact_path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_data_set(tmp_path / "data")


@pytest.fixture
def page(root: Path) -> Page:
    return Page(write_report(root, ReportOptions()))


def test_key_figures(page):
    numbers = {name: page.of(f"num-{name}").text for name in ("assets", "clips", "frames", "failures")}
    assert numbers == {"assets": "5", "clips": "2", "frames": "12", "failures": "2"}
    licences = next(e for e in page.all("ul") if e.attributes.get("class") == "licences")
    assert [e.text for e in licences.children] == ["CC0-1.0 4 assets, 1 clip", "CC-BY-4.0 1 asset, 1 clip"]


def test_counts_of_each_stage(page):
    rows = {row[0]: [*row[1:5], row[6]] for row in page.rows("stages")[1:]}
    assert rows == {
        "collect": ["complete", "6", "5", "0", "1 refused"],
        "pose": ["complete", "5", "3", "2", ""],  # assets, not the five clips that were posed
        "curate": ["complete", "8", "8", "0", "2 accepted, 6 rejected"],
        "render": ["complete", "2", "2", "0", ""],
        "voxelize": ["complete", "2", "2", "0", ""],
        "features": ["complete", "2", "2", "0", ""],
        "encode": ["not run", "–", "–", "–", ""],
    }


def test_rejections_are_grouped_by_kind_and_listed(page):
    kinds, items = (rows for rows in page.all("tbody", "rejections"))
    counted = [[cell.text for cell in row.children][:3] for row in kinds.children]
    assert counted[:2] == [
        ["2", "pose", "…: vertex … is not finite"],
        ["2", "curate", "motion … below min_motion …"],
    ]
    assert sorted(counted[2:]) == [
        ["1", "collect", "evaluation object Robot of consistent4d"],
        ["1", "curate", "frames … below min_frames …"],
        ["1", "curate", "no animation"],
    ]
    listed = {cells[0].text: cells[2].text for cells in (row.children for row in items.children)}
    assert len(items.children) == 6  # an asset that an earlier stage lost is not listed under curate again
    assert listed["pack__F_chse__Blink"] == CLIPS[2]["reasons"]
    assert listed["eval/Robot"] == REFUSED["error"]


def test_failures_with_tracebacks(page):
    summaries = [e.text for e in page.all("summary", "failures")]
    assert summaries == [
        "pose broken__A /assets/broken__A.glb: vertex 12 is not finite",
        "pose broken__B /assets/broken__B.glb: vertex 345 is not finite",
    ]
    assert [e.text for e in page.all("pre", "failures")] == ["Traceback <of> 12", "Traceback <of> 345"]


def test_traceback_of_another_run_is_not_shown(root):
    stale = Record("broken__A", "other key", {}, {}, error="x", traceback="Traceback of another run")
    write_record(root, "pose", stale)
    texts = [e.text for e in Page(write_report(root, ReportOptions())).all("details", "failures")]
    assert "No traceback was recorded." in texts[0]
    assert "Traceback <of> 345" in texts[1]


def test_visibility_weights_clips_by_their_frames(page):
    # (4 * 100 + 8 * 400) / 12 before, (4 * 80 + 8 * 310) / 12 after
    assert page.rows("visibility")[1:] == [["64³", "12", "300.0", "233.3", "22.22%"]]


def test_histograms_show_every_clip(page):
    titles = [e.text for e in page.all("title", "distributions") if e.attributes.get("id")]
    assert [title.split(" (")[0].removeprefix("Histogram of ") for title in titles] == [
        "Motion",
        "Frames per clip",
        "Triangles",
        "Voxels at 64³",
        "Dropped at 64³",
    ]
    assert "4 values · min 0.001 · median 0.051 · mean 0.0758 · max 0.2" in titles[0]
    assert "2 values · min 100 · median 250 · mean 250 · max 400" in titles[3]
    bars = [e.text for e in page.all("title", "distributions") if e.parent and e.parent.tag == "g"]
    assert "1: 0 accepted, 1 rejected" in bars
    assert "4: 1 accepted, 1 rejected" in bars


def test_splits_and_categories(page):
    assert page.rows("splits") == [
        ["Category", "train", "val"],
        ["Assets", "Clips", "Assets", "Clips"],
        ["animal", "3", "1", "1", "1"],
        ["plant", "1", "–", "–", "–"],
        ["All", "4", "1", "1", "1"],
    ]


def test_credits_lead_to_author_licence_and_source(page):
    rows = page.rows("credits")[1:]
    assert rows[0] == ["pack/Füchse 狐", "Zoë", "CC-BY-4.0", "https://example.org/fox?a=1&b=2"]
    assert rows[2] == ["pack/Still", "not given", "CC0-1.0", "not given"]
    assert "eval/Robot" not in [row[0] for row in rows]
    assert [e.attributes["href"] for e in page.all("a", "credits")][:3] == [
        "https://example.org/zoë",
        "https://creativecommons.org/licenses/by/4.0/",
        "https://example.org/fox?a=1&b=2",
    ]


def test_contact_sheet_names_clips_with_their_credits(page):
    fox, evil = page.all("article")
    assert "Füchse 狐 Run" in fox.text
    for words in ("Author Zoë", "Licence CC-BY-4.0", "Frames 4", "Motion 0.2", "Voxels 64³ 100, 80 seen"):
        assert words in fox.text
    assert "Voxels 64³ 400, 310 seen" in evil.text


def test_contact_sheet_shows_the_frames_of_the_archives(root):
    page = Page(write_report(root, ReportOptions(frames=3)))
    pictures = page.all("img")
    assert len(pictures) == 4  # two strips a clip
    for picture, frames, kind, number in zip(
        pictures, ([0, 2, 3], [0, 2, 3], [0, 4, 7], [0, 4, 7]), (1, 0, 1, 0), (0, 1, 0, 1), strict=True
    ):
        source = picture.attributes["src"] or ""
        strip = Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/webp;base64,"))))
        assert strip.size == (3 * strip.height, int(picture.attributes["height"] or 0))
        for position, frame in enumerate(frames):
            pixel = np.asarray(strip.convert("RGBA"))[strip.height // 2, int((position + 0.5) * strip.height)]
            np.testing.assert_allclose(pixel, colour(kind, number, frame), atol=4)
        assert f"3 frames over time, {', '.join(map(str, frames))}" in (picture.attributes["alt"] or "")


def test_contact_sheet_takes_as_many_clips_as_asked(root):
    drawn = {
        seed: [e.text for e in Page(write_report(root, ReportOptions(clips=1, seed=seed))).all("h3", "clips")]
        for seed in range(6)
    }
    assert all(len(names) == 1 for names in drawn.values())
    assert {names[0] for names in drawn.values()} == {"pack/Füchse 狐", SCRIPT}
    assert Page(write_report(root, ReportOptions(clips=0))).all("img") == []


def test_damaged_archive_is_named_on_the_page(root):
    artifact_path(root, "render", "pack__script__Walk").write_bytes(b"not a zip")
    page = Page(write_report(root, ReportOptions()))
    assert len(page.all("img")) == 2
    assert "pack__script__Walk.zip is damaged" in page.all("article")[1].text


def test_names_cannot_become_markup(page):
    assert not page.all("script")
    assert len(page.all("img")) == 4
    assert all(not name.startswith("on") for e in page.elements for name in e.attributes)
    credits = [row for row in page.rows("credits") if row[0] == SCRIPT]
    assert credits == [[SCRIPT, EVIL["author"], "CC0-1.0", "javascript:alert(3)"]]
    assert 'engine = "<CYCLES>"' in page.of("options").text


def test_page_loads_nothing_from_elsewhere(page):
    for element in page.elements:
        for name, value in element.attributes.items():
            if name in ("src", "srcset", "data", "action", "poster") or (name == "href" and element.tag != "a"):
                assert (value or "").startswith("data:"), (element.tag, name, value)
    assert all(re.match("https?://|#", e.attributes["href"] or "") for e in page.all("a"))
    style = page.all("style")[0].text
    assert "url(" not in style and "@import" not in style
    policy = next(e for e in page.all("meta") if e.attributes.get("http-equiv") == "Content-Security-Policy")
    assert policy.attributes["content"] == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def test_page_is_accessible(page):
    assert len(page.all("h1")) == 1 and page.all("html")[0].attributes["lang"] == "en"
    levels = [int(e.tag[1]) for e in page.elements if re.fullmatch("h[1-6]", e.tag)]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(e.attributes.get("alt") for e in page.all("img"))
    assert all(e.attributes.get("scope") for e in page.all("th"))
    assert all(e.attributes.get("role") == "img" for e in page.all("svg"))
    identifiers = {e.attributes["id"] for e in page.elements if "id" in e.attributes}
    targets = {(e.attributes["href"] or "")[1:] for e in page.all("a") if (e.attributes["href"] or "").startswith("#")}
    assert targets <= identifiers


def test_equal_data_sets_give_equal_bytes(root, tmp_path):
    first = write_report(root, ReportOptions()).read_bytes()
    assert write_report(root, ReportOptions()).read_bytes() == first
    shutil.copytree(root, tmp_path / "copy elsewhere")
    assert write_report(tmp_path / "copy elsewhere", ReportOptions()).read_bytes() == first
    assert list((root / "tmp").iterdir()) == []


def test_no_stage_has_run(tmp_path):
    page = Page(write_report(tmp_path, ReportOptions()))
    assert [row[:2] for row in page.rows("stages")[1:]] == [[stage, "not run"] for stage in STAGES]
    assert page.of("num-assets").text == "0"
    assert not page.all("img") and not page.all("svg")


@pytest.mark.parametrize("stages", range(1, len(STAGES)))
def test_page_comes_after_every_stage(root, stages):
    for stage in STAGES[stages:]:
        (root / "tables" / f"{stage}.parquet").unlink(missing_ok=True)
        shutil.rmtree(root / "records" / stage, ignore_errors=True)
    states = [row[1] for row in Page(write_report(root, ReportOptions())).rows("stages")[1:]]
    assert states == ["complete"] * min(stages, 6) + ["not run"] * (7 - min(stages, 6))


def test_unfinished_stage_is_counted_from_its_records(root):
    (root / "tables" / "features.parquet").unlink()
    rows = [{"clip_name": "pack__F_chse__Run", "voxels_64": 100.0, "seen_64": 50.0, "dropped_64": 0.5}]
    write_record(root, "features", Record("pack__F_chse__Run", "k", {}, {}, rows=rows))
    failed = Record("pack__script__Walk", "k", {}, {}, error="out of memory", traceback="Traceback of features")
    write_record(root, "features", failed)
    page = Page(write_report(root, ReportOptions()))
    assert page.rows("stages")[6] == ["features", "unfinished", "2", "1", "1", "", "so far"]
    assert page.rows("visibility")[1:] == [["64³", "4", "100.0", "50.0", "50.00%"]]
    assert page.all("pre", "failures")[-1].text == "Traceback of features"


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(StageError, match="nowhere is not a folder"):
        write_report(tmp_path / "nowhere", ReportOptions())


@pytest.mark.parametrize("options", [{"clips": -1}, {"frames": 0}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=rf"report.{next(iter(options))} is at least"):
        ReportOptions(**options)


@pytest.mark.parametrize(
    ("reason", "names", "kind"),
    [
        ("motion 0.0012 below min_motion 3e-3", [], "motion … below min_motion …"),
        ("visible 12.5% of 1,024 pixels", [], "visible …% of … pixels"),
        ("centre [0.1, -2.5, nan] is not finite", [], "centre […] is not finite"),
        ("clip 'Run 2' and \"Walk\" overlap", [], "clip … and … overlap"),
        ("/data/a b.glb: truncated", ["/data/a b.glb"], "…: truncated"),
        ("/data/a.glb: truncated", [], "…: truncated"),
        ("same content as pack/Fox", ["pack/Fox", "pack"], "same content as …"),
        ("foxes are not Fox", ["Fox", None], "foxes are not …"),
        ("Armature2 doesn't move", [], "Armature2 doesn't move"),
    ],
)
def test_reason_kind(reason, names, kind):
    assert reason_kind(reason, names) == kind


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Zoë (https://example.org/z)", Credit("Zoë", "https://example.org/z")),
        ("https://example.org/z", Credit("https://example.org/z", "https://example.org/z")),
        ("github zoe/assets fox.glb", Credit("github zoe/assets fox.glb", None)),
        ("javascript:alert(1)", Credit("javascript:alert(1)", None)),
    ],
)
def test_credit(text, expected):
    assert credit(text) == expected


def test_licence_url():
    assert licence_url("CC-BY-SA-3.0") == "https://creativecommons.org/licenses/by-sa/3.0/"
    assert licence_url("CC0-1.0") == "https://creativecommons.org/publicdomain/zero/1.0/"
    assert licence_url("MIT") is None and licence_url(None) is None
