"""Checkpoint folders from run folders, and from a checkpoint where runs lack models."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from scripts import export
from ss4d.models import create_model
from ss4d.models.checkpoint import load_model, save_model, save_weights
from ss4d.models.folder import PipelineFolder
from ss4d.models.names import NAMES
from ss4d.training.command_line import compose_config
from ss4d.training.export import longest_clips

BASE = Path(__file__).parents[2] / "checkpoints" / "ss4d-tiny"
FLOW = "sparse_structure_flow_model"


def run_export(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["export.py", *arguments])
    export.main()


def test_what_runs_lack_comes_from_the_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A structure flow trained before a frozen image encoder: its run has no image encoder."""
    spec = json.loads((BASE / f"ckpts/{FLOW}.json").read_text())
    flow = load_model(BASE / "ckpts" / FLOW)
    with torch.no_grad():
        next(flow.parameters()).add_(1.0)
    save_model(flow, tmp_path / "runs/structure_flow/ckpts/flow", spec["name"], spec["args"], torch.float32)
    out = tmp_path / "out"
    config = "frames: [8]\ndata: {frames: [8], max_clips: 1}\nbatch_size: 1\nphases: {long: {frames: [16, 24]}}\n"
    (tmp_path / "runs/structure_flow/config.yaml").write_text(config)
    run_export(monkeypatch, str(tmp_path / "runs"), str(out), "--base", str(BASE), "--structure-steps", "7")
    for name in PipelineFolder.open(BASE).args["models"]:
        mine, theirs = (load_file(folder / "ckpts" / f"{name}.safetensors") for folder in (out, BASE))
        same = all(torch.equal(mine[key], theirs[key]) for key in theirs)
        assert mine.keys() == theirs.keys() and same == (name != FLOW)
    assert all(path.stat().st_mode & 0o044 for path in (out / "ckpts").iterdir())  # others can read it
    made, given = (json.loads((folder / "pipeline.json").read_text())["args"] for folder in (out, BASE))
    assert made["slat_normalization"] == given["slat_normalization"]
    assert made["sparse_structure_sampler"]["params"] == {**given["sparse_structure_sampler"]["params"], "steps": 7}
    assert made["trained_frames"] == 24 and given["trained_frames"] == 16  # the longest of the run's phases


def test_runs_in_fp16_make_models_that_generate_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Those alone; and where both flows are of runs, the base says nothing of the frames that they know."""
    config = "frames: [8]\ndata: {frames: [8], max_clips: 1}\nbatch_size: 1\ntrain: {precision: PRECISION}\n"
    for run, key, precision in (("structure_flow", FLOW, "fp16"), ("sparse_flow", "slat_flow_model", "bf16")):
        folder = tmp_path / "runs" / run
        (folder / "ckpts").mkdir(parents=True)
        for ending in (".json", ".safetensors"):
            shutil.copy(BASE / f"ckpts/{key}{ending}", folder / f"ckpts/flow{ending}")
        (folder / "config.yaml").write_text(config.replace("PRECISION", precision))
    statistics = {key: torch.ones(8) for key in ("mean", "std")}
    save_weights(statistics, tmp_path / "runs/sparse_flow/ckpts/latent_statistics.safetensors")
    out = tmp_path / "out"
    run_export(monkeypatch, str(tmp_path / "runs"), str(out), "--base", str(BASE))
    half = [
        path.stem for path in (out / "ckpts").glob("*.json") if json.loads(path.read_text())["args"].get("use_fp16")
    ]
    assert half == [FLOW] and json.loads((out / "pipeline.json").read_text())["args"]["trained_frames"] == 8
    assert PipelineFolder.open(out).load_models().structure_flow.dtype == torch.float16


@pytest.mark.parametrize(("reached", "longest"), [(None, 32), (0, 8), (10, 8), (11, 32), (16, 32)])
def test_clips_of_phases_that_were_not_reached_do_not_count(reached: int | None, longest: int):
    phases = "phases: {short: {train: {steps: 10}}, long: {frames: [16, 32]}}"
    config: Any = OmegaConf.create(f"frames: [8]\ndata: {{frames: [8]}}\ntrain: {{steps: 6}}\n{phases}")
    assert longest_clips(config, reached) == longest
    single: Any = OmegaConf.create("data: {frames: [8, 12]}\ntrain: {steps: 6}\nphases: null")
    assert longest_clips(single, 6) == 12


@pytest.mark.parametrize(("crop", "taken"), [(0.8, True), (0.7, False)])
def test_an_estimator_is_taken_where_its_frame_is_that_of_the_flows(
    crop: float, taken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    args = {"resolution": 32, "image_size": 128, "channels": [8, 8, 8, 8], "frame": {"crop": crop, "distance": 1.4}}
    estimator = create_model("StructureEstimator", **args)
    stem = tmp_path / "runs/structure_estimator/ckpts/estimator"
    save_model(estimator, stem, "StructureEstimator", args, torch.float32)
    out = tmp_path / "out"
    run_export(monkeypatch, str(tmp_path / "runs"), str(out), "--base", str(BASE), "--start", "0.5")
    made = PipelineFolder.open(out)
    assert ("structure_estimator" in made.generators()) == (out / "ckpts/structure_estimator.json").exists() == taken
    structure, latents = made.sampler("sparse_structure_sampler"), made.sampler("slat_sampler")
    assert structure.start == (0.5 if taken else 1.0) and structure.cfg_strength == (0.0 if taken else 3.0)
    assert structure.steps == latents.steps == (2 if taken else 4) and latents.cfg_strength == 0
    assert made.load_models().estimates == taken


def test_a_model_that_nobody_has_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(SystemExit, match=r"export.py: no run has the model image_encoder .*structure_flow\): train it"):
        run_export(monkeypatch, str(tmp_path), str(tmp_path / "out"))
    base = tmp_path / "base"
    shutil.copytree(BASE, base)
    (base / "ckpts" / "slat_encoder.json").unlink()
    with pytest.raises(SystemExit, match=r"export.py: the model folder .*base has no ckpts/slat_encoder.json"):
        run_export(monkeypatch, str(tmp_path), str(tmp_path / "out"), "--base", str(base))
    assert not (tmp_path / "out").exists()


TRELLIS = "microsoft/TRELLIS-image-large"


@pytest.fixture
def paper_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs of the paper's experiments, with small models, and TRELLIS on the Hub: its structure VAE was never trained,
    and DINOv2 is no file of anyone's."""
    hub = tmp_path / "hub"
    for ours in ("structure_encoder", "structure_decoder"):
        name = NAMES[ours]
        assert name.released is not None
        for ending in (".json", ".safetensors"):
            (hub / name.released).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(BASE / "ckpts" / f"{name.key}{ending}", hub / f"{name.released}{ending}")
    args = {"models": {"sparse_structure_decoder": NAMES["structure_decoder"].released}}
    (hub / "pipeline.json").write_text(json.dumps({"args": {**args, "image_cond_model": "dinov2_vitl14_reg"}}))
    fetched = {TRELLIS: hub}
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda source, file: fetched[source] / file)
    for name in NAMES.values():
        if name.run == "structure_vae" or name.ours == "image_encoder" or name.optional:
            continue
        run = tmp_path / "runs" / name.run
        (run / "ckpts").mkdir(parents=True, exist_ok=True)
        OmegaConf.save(compose_config([f"experiment={name.run}/paper"]), run / "config.yaml", resolve=True)
        for ending in (".json", ".safetensors"):
            shutil.copy(BASE / "ckpts" / f"{name.key}{ending}", run / "ckpts" / f"{name.trained_as}{ending}")
    statistics = {"mean": torch.zeros(8), "std": torch.ones(8)}
    save_weights(statistics, tmp_path / "runs/sparse_flow/ckpts/latent_statistics.safetensors")
    return tmp_path / "runs"


def test_a_run_of_the_papers_size_names_its_dinov2(paper_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "out"
    run_export(monkeypatch, str(paper_runs), str(out), "--base", TRELLIS)
    args = json.loads((out / "pipeline.json").read_text())["args"]
    assert args["image_cond_model"] == "dinov2_vitl14_reg" and "image_encoder" not in args["models"]
    assert not (out / "ckpts/image_encoder.json").exists()
    opened = PipelineFolder.open(out)
    assert opened.dino() == "dinov2_vitl14_reg" and PipelineFolder.open(BASE).dino() is None
    for name in ("structure_encoder", "structure_decoder"):
        load_model(opened.stem(name))


def test_flows_of_two_image_encoders_are_refused(paper_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = OmegaConf.load(paper_runs / "sparse_flow/config.yaml")
    config.objective.image_encoder = "dinov2_vits14_reg"
    OmegaConf.save(config, paper_runs / "sparse_flow/config.yaml")
    with pytest.raises(
        SystemExit, match=r"dinov2_vitl14_reg in the structure flow and dinov2_vits14_reg in the sparse"
    ):
        run_export(monkeypatch, str(paper_runs), str(tmp_path / "out"), "--base", TRELLIS)
    assert not (tmp_path / "out").exists()


def test_a_frozen_model_comes_from_where_the_run_took_it(
    paper_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for flow in ("structure_flow", "sparse_flow"):
        config = OmegaConf.load(paper_runs / flow / "config.yaml")
        config.objective.image_encoder = str(BASE / "ckpts/image_encoder")
        OmegaConf.save(config, paper_runs / flow / "config.yaml")
    run_export(monkeypatch, str(paper_runs), str(tmp_path / "out"), "--base", TRELLIS)
    mine, theirs = (load_file(folder / "ckpts/image_encoder.safetensors") for folder in (tmp_path / "out", BASE))
    assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
    assert "image_cond_model" not in json.loads((tmp_path / "out/pipeline.json").read_text())["args"]


@pytest.mark.parametrize("change", [0.0, 0.1])
def test_image_encoders_in_files_are_told_apart_by_what_they_hold(
    change: float, paper_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The structure flow's, trained on or left as it was, and the one that the sparse flow was trained with."""
    stem = BASE / "ckpts/image_encoder"
    spec, encoder = json.loads(stem.with_suffix(".json").read_text()), load_model(stem).float()
    with torch.no_grad():
        next(encoder.parameters()).add_(change)
    save_model(encoder, paper_runs / "structure_flow/ckpts/image_encoder", spec["name"], spec["args"], torch.float32)
    config = OmegaConf.load(paper_runs / "sparse_flow/config.yaml")
    config.objective.image_encoder = str(stem)
    OmegaConf.save(config, paper_runs / "sparse_flow/config.yaml")
    arguments = str(paper_runs), str(tmp_path / "out"), "--base", TRELLIS
    if change:
        with pytest.raises(SystemExit, match=r"different image encoders: .*structure_flow/ckpts/image_encoder in"):
            run_export(monkeypatch, *arguments)
    else:
        run_export(monkeypatch, *arguments)
    assert (tmp_path / "out").exists() == (not change)
