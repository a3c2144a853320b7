"""A pipeline folder: what its models are, whatever their files are called."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from ss4d.models.checkpoint import load_model
from ss4d.models.folder import PipelineFolder


def test_names_of_models_may_hold_dots(pipeline_folder: Path, tmp_path: Path):
    folder = shutil.copytree(pipeline_folder, tmp_path / "models")
    digest = PipelineFolder.open(folder).identity()[:64]
    for ending in (".json", ".safetensors"):
        (folder / f"ckpts/slat_flow_model{ending}").rename(folder / f"ckpts/flow_v1.5{ending}")
    spec = json.loads((folder / "pipeline.json").read_text())
    spec["args"]["models"]["slat_flow_model"] = "ckpts/flow_v1.5"
    (folder / "pipeline.json").write_text(json.dumps(spec))
    after = PipelineFolder.open(folder)
    assert after.arguments("sparse_flow")["io_block_channels"] == [12]
    assert after.weights_file("sparse_flow") == folder / "ckpts/flow_v1.5.safetensors"
    assert after.identity()[:64] == digest  # of the same contents
    assert type(load_model(after.stem("sparse_flow"))).__name__ == "SparseFlow"
