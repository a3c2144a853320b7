"""Checkpoint folders from run folders, and from a checkpoint where runs lack models."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from scripts import export
from ss4d.models.checkpoint import load_model, save_model
from ss4d.models.folder import NAMES

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
    run_export(monkeypatch, str(tmp_path / "runs"), str(out), "--base", str(BASE), "--steps", "7")
    for name in (name.key for name in NAMES.values()):
        mine, theirs = (load_file(folder / "ckpts" / f"{name}.safetensors") for folder in (out, BASE))
        same = all(torch.equal(mine[key], theirs[key]) for key in theirs)
        assert mine.keys() == theirs.keys() and same == (name != FLOW)
    assert all(path.stat().st_mode & 0o044 for path in (out / "ckpts").iterdir())  # others can read it
    made, given = (json.loads((folder / "pipeline.json").read_text())["args"] for folder in (out, BASE))
    assert made["slat_normalization"] == given["slat_normalization"]
    assert made["sparse_structure_sampler"]["params"]["steps"] == 7
    assert made["trained_frames"] == 24 and given["trained_frames"] == 16  # the longest of the run's phases


def test_a_model_that_nobody_has_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(SystemExit, match=r"export.py: there is no file .*structure_flow/ckpts/image_encoder.json"):
        run_export(monkeypatch, str(tmp_path), str(tmp_path / "out"))
    base = tmp_path / "base"
    shutil.copytree(BASE, base)
    (base / "ckpts" / "slat_encoder.json").unlink()
    with pytest.raises(SystemExit, match=r"export.py: there is no file .*base/ckpts/slat_encoder.json"):
        run_export(monkeypatch, str(tmp_path), str(tmp_path / "out"), "--base", str(base))
