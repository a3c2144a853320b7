"""What published protocols leave open: named in results and tables, changed by options, and its effect in one table."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import RESOLUTION

from scripts.eval.__main__ import main
from ss4d.evaluation.crop import crop_videos
from ss4d.evaluation.methods.baselines import TrueVoxels
from ss4d.evaluation.protocol import load_protocol

SMALL = [
    *("protocol=ss4d_assets", "protocol.split=train", "protocol.size=32", "protocol.crop_size=32"),
    *("protocol.views.rendered=[0,1]", f"protocol.voxel_resolution={RESOLUTION}", "protocol.figure_views=[0]"),
    *("protocol.metrics=[psnr,ssim,flickering]", "protocol.aligned=false", "protocol.objects=[box0]"),
]


def test_every_alternative_scores_the_same_results(clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    runs: list[str] = []
    predict = TrueVoxels.predict

    def counted(self: TrueVoxels, subject: Any, seed: int) -> Any:
        runs.append(subject.name)
        return predict(self, subject, seed)

    monkeypatch.setattr(TrueVoxels, "predict", counted)
    options = ["assumptions", *SMALL, "method=true_voxels", f"data={clip_folder}", f"out={tmp_path}"]
    assert main(options) == 0
    assert runs == ["box0"]
    with (tmp_path / "assumptions" / "table_assumptions.csv").open() as file:
        found = {(row["method"], row["metric"]): row["mean"] for row in csv.DictReader(file)}
    psnr = {method: float(value) for (method, metric), value in found.items() if metric == "psnr"}
    assert len(psnr) == 11 and len(set(psnr.values())) > 7
    changes = [option.removeprefix("protocol.") for option in SMALL[1:]]
    for name, change in (("as the protocol says", []), ("tight box", ["crop_shape=tight"]), ("no box", ["crop=false"])):
        protocol = load_protocol("ss4d_assets", [*changes, *change])
        path = next(tmp_path.glob(f"ss4d_assets-{protocol.hash()[:8]}/true_voxels/box0/seed0/result.json"))
        result = json.loads(path.read_text())
        assert result["metrics"]["psnr"] == pytest.approx(psnr[name])
        assert result["assumptions"] == protocol.assumptions()
    assert protocol.assumptions()["box"] == "none, 32 pixels"
    assert result["assumptions"]["views"] == "2 views of the set"


def test_the_boxes_are_what_they_are_called():
    """An object of 4 by 2 pixels that moves 3 to the right."""
    alpha = torch.zeros(2, 12, 12, dtype=torch.uint8)
    alpha[0, 3:5, 1:5], alpha[1, 3:5, 4:8] = 255, 255
    ramp = torch.arange(12).expand(2, 3, 12, 12) / 20  # each column its own grey

    def cropped(*changes: str) -> torch.Tensor:
        return crop_videos(
            [ramp], alpha, load_protocol("objaversedy", ["metrics=[psnr]", "crop_filter=nearest", *changes])
        )[0][:, 0]

    assert torch.allclose(cropped("crop_size=7")[:, 0], torch.arange(1, 8) / 20)  # the square around both
    assert cropped("crop_size=7", "crop_shape=tight").shape == (2, 7, 7)
    frames = cropped("crop_size=4", "crop_per=frame")
    assert torch.allclose(frames[:, 1], torch.tensor([[1, 2, 3, 4], [4, 5, 6, 7]]) / 20)
    tall = torch.arange(12)[:, None].expand(2, 3, 12, 12) / 20  # each row its own grey
    tight = load_protocol("objaversedy", ["metrics=[psnr]", "crop_filter=nearest", "crop_size=2", "crop_shape=tight"])
    assert torch.allclose(crop_videos([tall], alpha, tight)[0][0, 0, :, 0], torch.tensor([3, 4]) / 20)
    assert torch.allclose(cropped("crop_size=11", "crop_margin=0.25")[0, 5, :2], torch.tensor([1.0, 0.0]))  # column -1


def test_views_far_from_level_are_left_out(clip_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The two views of the small set are at elevations of 30 and -30 degrees."""
    for level, status in ((31, 0), (10, 1)):
        out = tmp_path / str(level)
        options = [*SMALL, f"protocol.views.highest_elevation={level}", f"data={clip_folder}", f"out={out}"]
        assert main(["run", *options, "method=truth"]) == status
    assert "has no view within views.highest_elevation=10 degrees of level" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["crop_shape=round", "crop_per=view", "crop_filter=lanczos"])
def test_an_unknown_choice_is_refused(change: str, capsys: pytest.CaptureFixture[str]):
    assert main(["run", "protocol=davis", f"protocol.{change}"]) == 1
    key, _, value = change.partition("=")
    assert f"'{value}' is not a choice for {key}: take " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "digest"),
    [("davis", "b16c9fb9"), ("objaversedy", "29e02c35"), ("consistent4d", "599490be")],
)
def test_fields_that_came_later_leave_results_of_before_what_they_are(name: str, digest: str):
    assert load_protocol(name).hash()[:8] == digest
    assert load_protocol(name, ["crop_shape=tight"]).hash()[:8] != digest
    assert load_protocol(name, ["views.highest_elevation=30"]).hash()[:8] != digest


def test_published_rows_are_marked_and_the_choices_stand_below(tmp_path: Path):
    assert main(["tables", f"results={tmp_path}", f"out={tmp_path}"]) == 0
    text = (tmp_path / "tables.md").read_text()
    for number in (1, 2, 3, 4, 5, 6):
        table = text.split(f"### Table {number}. ")[1].split("###")[0]
        assert (
            "| paper* |" in table and "| paper |" not in table and "- * not comparable with this code's rows" in table
        )
    second = text.split("### Table 2. ")[1].split("###")[0]
    assert "This code's choices: views: all views of the set; frames: the first 32 at most; background: 1" in second
    assert "LPIPS: 0.1, vgg; CLIP: openai/clip-vit-base-patch32; FVD: clips" in second
