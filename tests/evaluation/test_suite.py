"""A suite of methods in one command, and the protocols of the paper from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from eval_sets import psnr_of_pictures
from safetensors.torch import save_file
from tiny import FEATURES, RESOLUTION, VAE

from scripts.eval.__main__ import main
from ss4d.evaluation import tables
from ss4d.evaluation.methods.coloured_voxels import voxel_gaussians
from ss4d.evaluation.protocol import load_protocol
from ss4d.evaluation.results import protocol_folder
from ss4d.evaluation.subjects.open import open_subjects
from ss4d.evaluation.subjects.subject import file_name
from ss4d.gaussians.ply import write_ply
from ss4d.models import create_model
from ss4d.models.checkpoint import load_model, save_model

SMALL = [
    *("protocol.size=32", "protocol.crop_size=32", "protocol.views.rendered=[0,1]"),
    *(f"protocol.voxel_resolution={RESOLUTION}", "protocol.figure_views=[0,1]", "protocol.figure_frames=[0,2]"),
]


def test_one_command_makes_tables_and_figure(clip_folder: Path, tmp_path: Path, capsys):
    options = [*SMALL, "protocol.split=train", f"data={clip_folder}", f"out={tmp_path}"]
    path = tmp_path / "small.yaml"
    methods = [{"method": "alpha_copy"}, {"method": "true_voxels"}, {"method": "truth", "label": "again"}]
    path.write_text(json.dumps({"protocol": "ss4d_assets", "methods": methods, "figure": ["again", "alpha_copy"]}))
    assert main(["suite", str(path), *options]) == 0
    text = (tmp_path / "tables.md").read_text()
    assert "| again | 1.000 [1.000, 1.000] |" in text and "| alpha_copy | n/a | n/a | 0." in text
    assert (tmp_path / "figure.png").exists() and (tmp_path / "tables.tex").exists()
    capsys.readouterr()
    assert main(["suite", "none", *options]) == 1
    assert "There is no suite 'none'; there are ss4d_assets" in capsys.readouterr().err
    assert main(["suite", str(path), *options, "steps=3"]) == 1
    assert "steps=3: no method of the suite reads it." in capsys.readouterr().err
    assert main(["suite", str(path), *options, "shard=0/2"]) == 1
    assert "shard=0/2: a suite ends with tables of all objects" in capsys.readouterr().err
    assert main(["suite", str(path), *options, "protocols.size=77"]) == 1
    assert "there is no option protocols.size; did you mean protocol.?" in capsys.readouterr().err


def test_objaversedy_runs_and_fills_table_1(clip_folder: Path, pipeline_folder: Path, tmp_path: Path):
    arguments = ["protocol=objaversedy", *SMALL, f"data={clip_folder}", f"out={tmp_path}"]
    assert main(["run", *arguments, f"model={pipeline_folder}", "seeds=[0]", "steps=1"]) == 0
    changes = [argument.removeprefix("protocol.") for argument in SMALL]
    row = next(row for row in tables.build_tables(tmp_path, changes=changes)[0].rows if not row.published)
    assert row.name == "ours" and row.origin == "this code, 2 objects, 1 seed"
    assert [value is None for value in row.values] == [
        True,
        True,
        False,
        False,
        True,
    ]  # LPIPS, CLIP, FVD: no weights


def test_the_vae_alone_is_judged_by_its_reconstructions(clip_folder: Path, pipeline_folder: Path, tmp_path: Path):
    models = tmp_path / "model"
    args = {**VAE, "in_channels": FEATURES, "use_fp16": True}  # as published: the torso is computed in float32 here
    encoder = create_model("SLatEncoder", **args)
    save_model(encoder, models / "ckpts" / "slat_encoder", "SLatEncoder", args, torch.float16)
    name = "slat_decoder_gs"
    spec = json.loads((pipeline_folder / "ckpts" / f"{name}.json").read_text())
    decoder = load_model(pipeline_folder / "ckpts" / name)
    save_model(decoder, models / "ckpts" / name, spec["name"], spec["args"], torch.float32)
    named = {key: f"ckpts/{key}" for key in ("slat_encoder", name)}
    (models / "pipeline.json").write_text(json.dumps({"args": {"models": named}}))
    given = [*SMALL, "protocol.split=train", "protocol.crop=false", "protocol.figure_frames=[0,1,2,3]"]
    arguments = ["protocol=ss4d_assets", *given, f"data={clip_folder}", f"out={tmp_path / 'out'}"]
    assert main(["run", *arguments, "method=reconstruction", f"model={models}"]) == 0
    paths = list((tmp_path / "out").glob("*/*/*/*/result.json"))
    reports = [json.loads(path.read_text()) for path in paths]
    assert sorted(report["report"]["length"] for report in reports) == [4**3, 6**3]  # voxels a frame of the two boxes
    assert all(report["report"]["seconds"]["encode"] > 0 for report in reports)
    protocol = load_protocol("ss4d_assets", [change.removeprefix("protocol.") for change in given])
    subjects = open_subjects(protocol, clip_folder)
    for path, report in zip(paths, reports, strict=True):
        expected = psnr_of_pictures(path.parent, subjects.load(report["object"]))
        assert report["metrics"]["psnr"] == pytest.approx(expected, abs=0.05)  # pictures have 8 bits


def test_another_methods_gaussians_are_rendered_turned_and_voxelised(clip_folder: Path, tmp_path: Path):
    arguments = ["protocol=ss4d_assets", "protocol.split=train", *SMALL, f"data={clip_folder}"]
    theirs = tmp_path / "theirs"
    assert main(["run", *arguments, f"inputs={theirs}"]) == 0
    cameras = json.loads((theirs / "box0" / "cameras.json").read_text())
    assert len(cameras["views"]) == 2 and cameras["frames"] == 4
    assert torch.tensor(cameras["input"]["extrinsics"]).shape == (4, 4)
    assert cameras["input"]["intrinsics"][0][0] > 0 and cameras["input"] not in cameras["views"]
    corner = torch.tensor([[2, 5, 5], [3, 5, 5]])
    for name in ("box0", "box1"):
        (theirs / name / "gaussians").mkdir()
        for frame in range(4):
            write_ply(voxel_gaussians(corner, torch.ones(3), RESOLUTION), theirs / name / f"gaussians/{frame}.ply")
    options = [*arguments, "method=gaussians", f"results={theirs}", f"out={tmp_path / 'out'}", "label=theirs"]
    assert main(["run", *options, "azimuth=method"]) == 0
    changes = [argument.removeprefix("protocol.") for argument in (*SMALL, "protocol.split=train")]
    methods = protocol_folder(tmp_path / "out", load_protocol("ss4d_assets", changes))
    result = json.loads((methods / "theirs" / file_name("box0") / "seed0" / "result.json").read_text())
    assert result["metrics"]["iou"] is not None and result["metrics"]["aligned_iou"] is not None
    assert 0 <= result["report"]["turned_degrees"] == result["identity"]["turned_degrees"] < 360  # one for both
    other = json.loads((methods / "theirs" / file_name("box1") / "seed0" / "result.json").read_text())
    assert other["report"]["turned_degrees"] == result["report"]["turned_degrees"]
    assert main(["run", *options, "label=each", "azimuth=object"]) == 0
    assert main(["run", *options, "label=each", "azimuth=sideways"]) == 1
    save_file({"x": torch.zeros(1)}, theirs / "box1" / "gaussians" / "3.ply")
    assert main(["run", *options, "label=damaged"]) == 1
