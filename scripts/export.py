"""Collect trained models into a checkpoint folder in the released layout.

`python scripts/export.py RUNS OUT`: RUNS holds the run folders structure_vae, structure_flow, sparse_vae and
sparse_flow; OUT gets pipeline.json and ckpts/.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch

from ss4d.models.checkpoint import load_model, read_json, read_weights, save_model

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=20, help="sampling steps written as the default")
    parser.add_argument("--guidance", type=float, default=2.0, help="guidance strength of the structure")
    parser.add_argument("--latent-guidance", type=float, default=0.0, help="guidance strength of the voxel latents")
    options = parser.parse_args()

    total = 0
    for name, (run, model) in MODELS.items():
        stem = options.runs / run / "ckpts" / model
        spec = read_json(stem.with_suffix(".json"))
        loaded = load_model(stem)
        save_model(loaded, options.out / "ckpts" / name, spec["name"], spec["args"], torch.float16)
        total += sum(parameter.numel() for parameter in loaded.parameters())
    statistics = read_weights(options.runs / "sparse_flow" / "ckpts" / "latent_statistics.safetensors")
    structure = sampler(options.steps, options.guidance)
    write_pipeline(options.out, statistics, structure, sampler(options.steps, options.latent_guidance))
    size = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file())
    print(f"{total:,} parameters, {size / 1e6:.2f} MB in {options.out}")


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


if __name__ == "__main__":
    main()
