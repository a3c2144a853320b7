"""A checkpoint folder with a fault is refused in one sentence, and before the work: also within a budget of memory,
where weights are read later."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_inference import frames, run, write_folder

IN_WEIGHTS = [
    ("missing", "missing 1 weight (out_layer.bias)"),
    ("extra", "unexpected 1 weight (blocks.7.surprise)"),
    ("misshapen", "of another shape 1 weight (out_layer.bias [3] instead of [4])"),
]
IN_FILES = [
    ("truncated", "is damaged or cut short"),
    ("no file", "has no ckpts/slat_flow_model.safetensors"),
    ("no model", "names no model 'slat_flow_model'"),
    ("no sampler", "the sampler 'FlowHeunSampler' is not known"),
]
CASES = [(fault, message, ()) for fault, message in [*IN_WEIGHTS, *IN_FILES]]
CASES += [(fault, message, ("--memory", "2GB")) for fault, message in IN_FILES]  # type: ignore[misc]


def broken_model(pipeline_folder: Path, tmp_path: Path, fault: str) -> Path:
    folder = shutil.copytree(pipeline_folder, tmp_path / "model")
    path = folder / "ckpts/slat_flow_model.safetensors"
    weights = load_file(path)
    if fault == "missing":
        del weights["out_layer.bias"]
    elif fault == "extra":
        weights["blocks.7.surprise"] = torch.zeros(3)
    elif fault == "misshapen":
        weights["out_layer.bias"] = torch.zeros(3)
    save_file(weights, path)
    spec = json.loads((folder / "pipeline.json").read_text())
    if fault == "no model":
        del spec["args"]["models"]["slat_flow_model"]
    elif fault == "no sampler":
        spec["args"]["slat_sampler"]["name"] = "FlowHeunSampler"
    (folder / "pipeline.json").write_text(json.dumps(spec))
    if fault == "truncated":
        path.write_bytes(path.read_bytes()[:-1000])
    elif fault == "no file":
        path.unlink()
    return folder


@pytest.mark.parametrize(("fault", "message", "options"), CASES)
def test_a_broken_model_folder_is_refused(
    fault: str,
    message: str,
    options: tuple[str, ...],
    pipeline_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    source = write_folder(tmp_path / "in", frames(1))
    model = broken_model(pipeline_folder, tmp_path, fault)
    assert run(source, "--model", model, "--out", tmp_path / "out", *options) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and message in error and "\n" not in error
    assert not (tmp_path / "out").exists()
