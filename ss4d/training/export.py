"""Run folders to a checkpoint folder in the released layout: pipeline.json, and the models in ckpts/."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ss4d.models.checkpoint import CheckpointError, load_model, read_json, read_weights, save_model
from ss4d.models.folder import PipelineFolder

# Name in the checkpoint folder: run folder and model there. Encoders come along for training and evaluation.
MODELS = {
    "image_encoder": ("structure_flow", "image_encoder"),
    "sparse_structure_encoder": ("structure_vae", "encoder"),
    "sparse_structure_decoder": ("structure_vae", "decoder"),
    "sparse_structure_flow_model": ("structure_flow", "flow"),
    "slat_encoder": ("sparse_vae", "encoder"),
    "slat_decoder_gs": ("sparse_vae", "decoder"),
    "slat_flow_model": ("sparse_flow", "flow"),
}


def export(
    runs: Mapping[str, Path], out: Path, structure: dict[str, Any], latents: dict[str, Any], base: Path | None = None
) -> int:
    """Write a checkpoint folder; returns the number of parameters.

    Args:
        runs: run folders by the names in `MODELS`.
        structure, latents: settings of the samplers, in the released form.
        base: checkpoint folder whose models stand in for those that no run has, such as a frozen image encoder.

    Raises:
        CheckpointError: a model that neither has.
    """
    total = 0
    for name, (run, model) in MODELS.items():
        stem = runs[run] / "ckpts" / model if run in runs else None
        if base is not None and (stem is None or not stem.with_suffix(".json").exists()):
            stem = base / "ckpts" / name
        if stem is None:
            raise CheckpointError(f"there is no run {run}, which has the model {name}")
        spec = read_json(stem.with_suffix(".json"))
        loaded = load_model(stem)
        save_model(loaded, out / "ckpts" / name, spec["name"], spec["args"], torch.float16)
        total += sum(parameter.numel() for parameter in loaded.parameters())
    write_pipeline(out, latent_statistics(runs, base), structure, latents)
    return total


def latent_statistics(runs: Mapping[str, Path], base: Path | None) -> dict[str, torch.Tensor]:
    """Mean and standard deviation of the voxel latents that the sparse flow was trained with."""
    if base is None or ("sparse_flow" in runs and (runs["sparse_flow"] / "ckpts").is_dir()):
        return read_weights(runs["sparse_flow"] / "ckpts" / "latent_statistics.safetensors")
    mean, std = PipelineFolder.open(base).latent_statistics()
    return {"mean": mean, "std": std}


def sampler(steps: int, guidance: float) -> dict[str, Any]:
    """Settings of one flow's sampler, in the released form."""
    return {
        "name": "FlowEulerGuidanceIntervalSampler",
        "args": {"sigma_min": 1e-5},
        "params": {"steps": steps, "cfg_strength": guidance, "cfg_interval": [0.5, 1.0], "rescale_t": 3.0},
    }


def write_pipeline(
    folder: Path, statistics: dict[str, torch.Tensor], structure: dict[str, Any], latents: dict[str, Any]
) -> None:
    """pipeline.json, with the released keys."""
    pipeline = {
        "name": "SS4DPipeline",
        "args": {
            "models": {name: f"ckpts/{name}" for name in MODELS},
            "sparse_structure_sampler": structure,
            "slat_sampler": latents,
            "slat_normalization": {key: [round(v, 6) for v in value.tolist()] for key, value in statistics.items()},
        },
    }
    temporary = folder / "pipeline.json.tmp"
    temporary.write_text(json.dumps(pipeline, indent=4) + "\n")
    os.replace(temporary, folder / "pipeline.json")
