"""Tables, figures and timing from results."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from eval_sets import SIZE, features, write_consistent4d, write_scored
from PIL import Image
from safetensors.torch import save_file

from scripts.eval.__main__ import main
from ss4d.evaluation import figures, tables
from ss4d.evaluation.protocol import load_protocol
from ss4d.evaluation.results import FEATURES, protocol_folder, read_method, read_result
from ss4d.evaluation.summary import summarise
from ss4d.evaluation.table_formats import Column, Row, Table, latex, markdown

CHANGES = ["objects=[guppie,skull]", f"size={SIZE}", "views.azimuths=[0,90]", "figure_frames=[0,2]"]
CHANGES += ["figure_views=[0,1]", "fvd_variant=clips"]
GIVEN = [f"protocol.{change}" for change in CHANGES]  # on a command line


def rows(path: Path) -> dict[tuple[str, str, str], list[str]]:
    """(method, source, metric) -> mean, low, high."""
    with path.open() as file:
        return {(r["method"], r["source"], r["metric"]): [r["mean"], r["low"], r["high"]] for r in csv.DictReader(file)}


def test_all_tables_are_complete_without_any_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["tables", f"results={tmp_path / 'none'}", f"out={tmp_path}"]) == 0
    assert f"note: there is no folder results={tmp_path / 'none'}" in capsys.readouterr().out
    text = (tmp_path / "tables.md").read_text()
    for number in range(1, 7):
        assert f"### Table {number}. " in text
        ours = [
            line
            for line in text.split(f"### Table {number}. ")[1].split("###")[0].splitlines()
            if "this code |" in line
        ]
        assert ours and all("n/a" in line for line in ours)
    assert "| SS4D | 0.150 | 0.932 | 18.09 | 0.842 | 465 | paper* |" in text
    assert "| SS4D | 0.149 | 0.947 | 18.90 | 0.843 | 455 | paper* |" in text
    assert "| STAG4D | 1.913 | 1.627 | 1.807 | paper* |" in text
    assert "| with temporal alignment | 30.58 | 2.22 | 157.16 | paper* |" in text
    assert "| visible | 31.07 | 5261 | 76.3 | paper* |" in text
    latex = (tmp_path / "tables.tex").read_text()
    assert latex.count(r"\begin{table}") == 6  # the paper's; those of no published rows have none
    assert text.count("- No results.") == 6
    assert r"L4GM & 0.243 & \underline{0.887} & 14.48 & 0.782 & 686 & paper* \\" in latex
    # Table 1 of the paper: SS4D is the best in all, and the second best are these.
    assert (
        r"SS4D & \textbf{0.150} & \textbf{0.932} & \textbf{18.09} & \textbf{0.842} & \textbf{465} & paper* \\" in latex
    )
    assert r"STAG4D & 0.202 & 0.871 & \underline{15.96} & \underline{0.821} & 716 & paper* \\" in latex
    assert r"Consistent4D & \underline{0.189} & 0.884 & 15.63 & 0.817 & \underline{640} & paper* \\" in latex
    assert rows(tmp_path / "table_1.csv")["DG4D", "paper", "psnr"] == ["13.72", "", ""]


def test_ours_stand_beside_the_papers_with_means_over_objects(tmp_path: Path):
    protocol = load_protocol("consistent4d", CHANGES)
    write_scored(tmp_path, protocol, "tiny", {"guppie": [10.0, 12.0], "skull": [15.0, 15.0]})
    write_scored(tmp_path, protocol, "reconstruction", {"guppie": [30.0], "skull": [30.0]})
    assert main(["tables", f"results={tmp_path}", f"out={tmp_path}", *GIVEN]) == 0
    found = rows(tmp_path / "table_consistent4d.csv")
    mean, low, high = map(float, found["tiny", "ours", "psnr"])
    assert (mean, low, high) == pytest.approx((13, 13 - 25.412, 13 + 25.412), abs=1e-2)  # standard error 2, one degree
    assert found["tiny", "ours", "clip"] == ["n/a", "", ""] and found["tiny", "ours", "fvd"] == ["n/a", "", ""]
    assert not any(method == "reconstruction" for method, _, _ in found)  # it has tables of its own
    text = (tmp_path / "tables.md").read_text()
    assert "| tiny | 13.00 [-12.41, 38.41] | this code, 2 objects, 2 seeds |" in text
    assert "other options" not in text
    assert main(["tables", f"results={tmp_path}", f"out={tmp_path}"]) == 0
    left_out = f"- Left out, made with other options: {protocol_folder(tmp_path, protocol).name}."
    assert left_out in (tmp_path / "tables.md").read_text()


def test_tables_compare_common_objects_and_complete_seeds_and_say_what_is_left_out(tmp_path: Path):
    protocol = load_protocol("consistent4d", CHANGES)
    write_scored(tmp_path, protocol, "first", {"guppie": [10.0, 12.0], "skull": [15.0, 17.0], "trump": [50.0]})
    write_scored(tmp_path, protocol, "second", {"guppie": [20.0], "trump": [60.0]})
    assert main(["tables", f"results={tmp_path}", f"out={tmp_path}", *GIVEN]) == 0
    found = rows(tmp_path / "table_consistent4d.csv")
    assert found["first", "ours", "psnr"][0] == "11.0" and found["second", "ours", "psnr"][0] == "20.0"
    text = (tmp_path / "tables.md").read_text()
    assert "- first lacks seed 1 of 1 object (trump): left out for all methods." in text
    assert "- second has no result for 1 object (skull): left out for all methods." in text
    assert text.split("### Consistent4D's own pictures")[1].split("###")[0].count("this code, 1 object, ") == 2


def test_differences_of_any_two_methods_are_paired_and_tested(tmp_path: Path, capsys):
    protocol = load_protocol("consistent4d", CHANGES)
    names = [f"object{i}" for i in range(6)]
    write_scored(tmp_path, protocol, "base", {name: [10.0 * i] for i, name in enumerate(names)})
    write_scored(tmp_path, protocol, "better", {name: [10.0 * i + 1 + 0.1 * i] for i, name in enumerate(names)})
    options = ["tables", f"results={tmp_path}", f"out={tmp_path}", *GIVEN]
    assert main([*options, "against=base"]) == 0
    text = (tmp_path / "tables.md").read_text()
    # Mean 1.25, standard deviation 0.187, Student's t 2.571; all six are positive: 2 of 64 signs give as much.
    assert "| better - base | 1.25 [1.05, 1.45], p 0.031 | this code, 6 objects |" in text
    assert "- n/a in every row, for lack of weights or data: LPIPS, CLIP-S, SSIM, FVD.\n" in text
    assert main([*options, "against=none"]) == 1
    assert "against=none: there are no results of that method" in capsys.readouterr().err


def test_metrics_from_different_weights_are_not_compared(tmp_path: Path):
    protocol = load_protocol("consistent4d", CHANGES)
    for method, weights in (("first", "a" * 64), ("second", "b" * 64)):
        folder = write_scored(tmp_path, protocol, method, {"guppie": [10.0], "skull": [15.0]})
        for path in (folder / method).rglob("result.json"):
            content = json.loads(path.read_text())
            content |= {"weights": {"clip": weights}, "metrics": {"psnr": 10.0, "clip": 0.9}}
            path.write_text(json.dumps(content))
    assert main(["tables", f"results={tmp_path}", f"out={tmp_path}", *GIVEN]) == 0
    found = rows(tmp_path / "table_consistent4d.csv")
    assert found["first", "ours", "clip"][0] == "n/a" and found["first", "ours", "psnr"][0] == "10.0"
    text = (tmp_path / "tables.md").read_text()
    assert "- clip was computed with different weights, aaaaaaaa (first) and bbbbbbbb (second): n/a." in text


def test_a_new_column_needs_a_value_in_every_published_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """The columns of Table 1 are those of Table 2 too (an anchor of the YAML file)."""
    text = (tables.PROTOCOLS / "tables.yaml").read_text()
    wider = text.replace("      - [fvd, FVD ↓, 0]\n", "      - [fvd, FVD ↓, 0]\n      - [iou, IoU ↑, 3]\n", 1)
    assert wider != text
    monkeypatch.setattr(tables, "PROTOCOLS", tmp_path)
    (tmp_path / "tables.yaml").write_text(wider)
    assert main(["tables", f"results={tmp_path / 'none'}", f"out={tmp_path / 'out'}"]) == 1
    said = capsys.readouterr().err
    assert "tables.yaml, table 1: the published row DG4D has 5 values for 6 columns: give it null for what" in said
    padded = re.sub(r"(\w+: \[[\d., ]+)(\])", r"\1, null\2", wider.split("study: true")[0])
    (tmp_path / "tables.yaml").write_text(padded.rpartition('  - id: "3"')[0])
    assert main(["tables", f"results={tmp_path / 'none'}", f"out={tmp_path / 'out'}"]) == 0


def test_results_of_two_checkpoints_under_one_name_are_refused(tmp_path: Path, capsys):
    protocol = load_protocol("consistent4d", CHANGES)
    folder = write_scored(tmp_path, protocol, "mixed", {"guppie": [10.0], "skull": [15.0]})
    path = folder / "mixed" / "skull" / "seed0" / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"identity": {"sha256": "other"}}))
    assert main(["tables", f"results={tmp_path}", f"out={tmp_path}", *GIVEN]) == 1
    assert "mixed has results of different checkpoints or settings" in capsys.readouterr().err


@pytest.mark.parametrize("names", [("prediction", "target"), ("made", "true")])  # the latter in earlier results
def test_fvd_is_of_the_whole_set_of_each_seed(names: tuple[str, str], tmp_path: Path):
    protocol = load_protocol("consistent4d", CHANGES)
    methods = write_scored(tmp_path, protocol, "tiny", {"guppie": [10.0, 12.0], "skull": [15.0, 15.0]})
    for name in ("guppie", "skull"):
        for seed in (0, 1):
            true = features(6, 0.0)
            pair = dict(zip(names, (true + seed + 1, true), strict=True))
            save_file(pair, methods / "tiny" / name / f"seed{seed}" / FEATURES)
    figure = summarise(methods, read_method(methods, "tiny", protocol), protocol).metrics["fvd"]
    assert figure is not None  # equal covariances: 4 dimensions times the squared shift, 1 and 2
    assert (figure.low, figure.high, figure.mean) == pytest.approx((4, 16, 10), abs=1e-4)
    assert main(["tables", f"results={tmp_path}", f"out={tmp_path}", *GIVEN]) == 0
    assert "- fvd of tiny: 12 points of 4 features each.\n" in (tmp_path / "tables.md").read_text()


def test_a_clip_too_short_for_fvd_is_left_out_of_it_alone(tmp_path: Path):
    protocol = load_protocol("consistent4d", CHANGES)
    methods = write_scored(tmp_path, protocol, "tiny", {"guppie": [10.0], "skull": [20.0]})
    for name, frames in (("guppie", 16), ("skull", 3)):
        path = methods / "tiny" / name / "seed0" / "result.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"frames": frames}))
    true = features(6, 0.0)
    save_file({"prediction": true + 1, "target": true}, methods / "tiny" / "guppie" / "seed0" / FEATURES)
    metrics = summarise(methods, read_method(methods, "tiny", protocol), protocol).metrics
    assert metrics["psnr"] is not None and metrics["psnr"].mean == 15
    assert metrics["fvd"] is not None and metrics["fvd"].mean == pytest.approx(4, abs=1e-4)


def test_a_metric_that_one_object_lacks_is_na(tmp_path: Path):
    protocol = load_protocol("consistent4d", CHANGES)
    methods = write_scored(tmp_path, protocol, "tiny", {"guppie": [10.0], "skull": [15.0]})
    path = methods / "tiny" / "skull" / "seed0" / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "metrics": {"psnr": None}}))
    assert summarise(methods, read_method(methods, "tiny", protocol), protocol).metrics["psnr"] is None


def test_results_of_another_protocol_or_damaged_ones_are_refused(tmp_path: Path, capsys):
    protocol = load_protocol("consistent4d", CHANGES)
    methods = write_scored(tmp_path, protocol, "tiny", {"guppie": [10.0]})
    folder = methods / "tiny" / "guppie" / "seed0"
    path = folder / "result.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "protocol": "1" * 64}))
    assert main(["tables", f"results={tmp_path}", f"out={tmp_path}", *GIVEN]) == 1
    message = capsys.readouterr().err
    assert f"guppie: {path} was made by protocol hash 11111111" in message
    path.write_text(json.dumps(content)[:40])
    with pytest.raises(ValueError, match=r"result.json is damaged .*: delete"):
        read_result(folder, protocol)


@pytest.mark.parametrize("content", ["{", "[]", '{"name": "x"}'])
def test_a_damaged_report_of_timing_is_named(content: str, tmp_path: Path, capsys):
    (tmp_path / "timing_ours.json").write_text(content)
    assert main(["tables", f"results={tmp_path}", f"out={tmp_path}"]) == 1
    assert f"{tmp_path / 'timing_ours.json'} is damaged" in capsys.readouterr().err


def test_latex_escapes_what_labels_may_hold(tmp_path: Path):
    table = Table("x", "50% & more", [Column("psnr", "PSNR ↑", 1)], [Row(r"a_b #1 {~^\c}", False, [12.0])])
    table.rows.append(Row("[x] 'y' \"z\" a|b\nc", False, [11.0], is_bound=True))
    text = latex(table)
    assert r"{[}x{]} 'y' \textquotedbl{}z\textquotedbl{} a\textbar{}b c & 11.0" in text
    assert r"| a_b #1 {~^\c} |" in (written := markdown(table)) and r"a\|b" in written
    assert r"\caption{50\% \& more}" in text and r"PSNR $\uparrow$" in text
    assert r"a\_b \#1 \{\textasciitilde{}\textasciicircum{}\textbackslash{}c\} & 12.0 &" in text


def test_results_are_json_without_infinity(tmp_path: Path):
    protocol = load_protocol("consistent4d", CHANGES)
    folder = write_scored(tmp_path, protocol, "truth", {"guppie": [float("inf")]}) / "truth" / "guppie" / "seed0"

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    assert json.loads((folder / "result.json").read_text(), parse_constant=refuse)["metrics"] == {"psnr": "inf"}
    assert read_result(folder, protocol).metrics["psnr"] == float("inf")


def test_a_figure_shows_input_methods_and_truth(tmp_path: Path, capsys):
    data = write_consistent4d(tmp_path / "data")
    protocol = load_protocol("consistent4d", CHANGES)
    write_scored(tmp_path, protocol, "tiny", {"guppie": [10.0], "skull": [15.0]})
    options = ["figures", "protocol=consistent4d", *GIVEN, f"data={data}", f"results={tmp_path}"]
    assert main([*options, "methods=[tiny]", f"size={SIZE}", f"out={tmp_path / 'figure.png'}"]) == 0
    picture = np.asarray(Image.open(tmp_path / "figure.png"))
    height, block = SIZE + figures.GAP, 4 * SIZE + 2 * figures.GAP
    assert picture.shape == (3 * height, figures.LABEL_WIDTH + 2 * block, 3)
    truth = picture[2 * height : 2 * height + SIZE, figures.LABEL_WIDTH : figures.LABEL_WIDTH + SIZE]
    expected = np.asarray(Image.open(data / "gt" / "guppie" / "eval_0" / "0.png"))
    assert np.array_equal(truth[expected[..., 3] > 0], expected[..., :3][expected[..., 3] > 0])
    assert main([*options, "methods=[none]"]) == 1
    assert "guppie: " in (message := capsys.readouterr().err) and "none" in message and "is missing" in message


def test_timing_goes_into_table_4(tmp_path: Path, pipeline_folder: Path):
    arguments = ["timing", str(Path(__file__).parents[2] / "assets" / "demo.mp4"), f"model={pipeline_folder}"]
    assert main([*arguments, "frames=1", "repeats=1", "device=cpu", f"results={tmp_path}", "label=tiny"]) == 0
    report = json.loads((tmp_path / "timing_tiny.json").read_text())
    assert [stage["name"] for stage in report["cold"]] == ["conditioning", "structure", "latents", "gaussians"]
    assert report["frames"] == 1 and report["seconds"] > 0 and report["cold"][0]["peak_memory_mb"] > 0
    assert report["loading_seconds"] > 0 and report["export_seconds"] > 0 and len(report["sha256"]) == 64
    assert report["device"] and report["seed"] == 0 and report["voxels"] > 0
    table = tables.build_tables(tmp_path)[3]
    row = next(row for row in table.rows if row.name == "tiny")
    assert row.values == [report[f"{kind}seconds"] for kind in ("", "cold_", "loading_", "export_")]
    assert f"{report['device']}, " in row.origin and f"1 frame, {pipeline_folder}" in row.origin
    assert not protocol_folder(tmp_path, load_protocol("davis")).exists()


def test_the_reconstruction_reports_length_and_speed(tmp_path: Path):
    protocol = load_protocol("objaversedy")
    folder = protocol_folder(tmp_path, protocol)
    for name, seconds in (("a", 0.5), ("b", 0.25)):
        path = write_scored(tmp_path, protocol, "reconstruction", {name: [20.0]}) / "reconstruction" / name / "seed0"
        content = json.loads((path / "result.json").read_text())
        content["report"] = {"length": 1000 if name == "a" else 2000, "seconds": {"encode": seconds}}
        (path / "result.json").write_text(json.dumps(content))
    metrics = summarise(folder, read_method(folder, "reconstruction", protocol), protocol).metrics
    assert metrics["length"] is not None and metrics["length"].mean == 1500
    assert metrics["encode_speed"] is not None and metrics["encode_speed"].mean == pytest.approx(2 / 0.75)
    row = {row.name: row for row in tables.build_tables(tmp_path)[5].rows if not row.published}
    assert row["mean"].values == [None, None, None] and row["visible"].values[1] == metrics["length"]


def test_the_best_and_the_second_are_marked_among_methods_alone(tmp_path: Path):
    """The truth does not compete, categories are compared for themselves, and a tie is the best twice."""
    rows = [
        *(Row("a", False, [3.0], group="x"), Row("b", False, [3.0], group="x"), Row("c", False, [2.0], group="x")),
        *(Row("truth", False, [9.0], group="x", is_bound=True), Row("d", False, [1.0], group="y")),
        *(Row("e", False, [0.5], group="y"), Row("f", False, [None], group="y"), Row("g", False, [1.0], group="z")),
    ]
    text = latex(Table("x", "", [Column("psnr", "PSNR ↑", 1)], rows))
    marked = {line.split(" & ")[0]: line.split(" & ")[1] for line in text.splitlines() if "this code" in line}
    assert (marked["a"], marked["b"], marked["c"]) == (r"\textbf{3.0}", r"\textbf{3.0}", r"\underline{2.0}")
    assert (marked["truth"], marked["d"], marked["e"], marked["f"]) == (
        "9.0",
        r"\textbf{1.0}",
        r"\underline{0.5}",
        "n/a",
    )
    assert marked["g"] == "1.0"  # alone


def test_figures_end_with_the_clip_and_leave_out_views_that_are_not_there(tmp_path: Path):
    data = write_consistent4d(tmp_path / "data")
    given = [f"protocol.{change}" for change in CHANGES if not change.startswith("figure")]
    given += [
        "protocol=consistent4d",
        "protocol.metrics=[psnr]",
        "protocol.figure_views=[16,1]",
        "protocol.figure_frames=[0,99]",
        f"data={data}",
    ]
    assert main(["run", *given, "method=truth", f"out={tmp_path}"]) == 0
    options = ["figures", *given, f"results={tmp_path}", "methods=[truth]", f"size={SIZE}"]
    assert main([*options, f"out={tmp_path / 'figure.png'}"]) == 0
    picture = np.asarray(Image.open(tmp_path / "figure.png"))
    height = SIZE + figures.GAP
    assert picture.shape == (3 * height, figures.LABEL_WIDTH + 2 * (2 * SIZE + 2 * figures.GAP), 3)
    left = figures.LABEL_WIDTH + SIZE
    last = picture[2 * height : 2 * height + SIZE, left : left + SIZE]
    expected = np.asarray(Image.open(data / "gt" / "guppie" / "eval_1" / "2.png"))
    assert np.array_equal(last[expected[..., 3] > 0], expected[..., :3][expected[..., 3] > 0])
