"""Run folders to a checkpoint folder in the released layout: pipeline.json, and the models in ckpts/."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ss4d.flow import SamplerSettings
from ss4d.models.checkpoint import (
    CheckpointError,
    load_model,
    read_json,
    read_weights,
    save_model,
    save_model_weights,
    save_weights,
)
from ss4d.models.folder import NAMES, PipelineFolder, write_pipeline
from ss4d.training.run_folder import read_saved
from ss4d.view_frame import ViewFrame

FLOWS = ("structure_flow", "sparse_flow")
EXPERIMENTS = tuple(dict.fromkeys(name.run for name in NAMES.values()))


def export(
    runs: Mapping[str, Path],
    out: Path,
    structure: SamplerSettings,
    latents: SamplerSettings,
    base: Path | None = None,
) -> int:
    """Write a checkpoint folder, the encoders included; returns the number of parameters.

    Args:
        runs: run folders by experiment, of `EXPERIMENTS`.
        structure, latents: default settings of the two samplers.
        base: checkpoint folder whose models stand in for those that no run has, such as a frozen image encoder.

    Raises:
        CheckpointError: a model that neither has, or flows of different frames.
    """
    total, projections = 0, {}
    for name in NAMES.values():
        stem = runs[name.run] / "ckpts" / name.trained_as if name.run in runs else None
        if base is not None and (stem is None or not stem.with_suffix(".json").exists()):
            stem = base / "ckpts" / name.key
        if stem is None:
            raise CheckpointError(f"there is no run {name.run}, which has the model {name.key}")
        spec = read_json(stem.with_suffix(".json"))
        loaded = load_model(stem)
        if name.ours in FLOWS:
            projections[name.ours] = spec["args"].get("projection")
        save_model(loaded, out / "ckpts" / name.key, spec["name"], spec["args"], torch.float16)
        total += sum(parameter.numel() for parameter in loaded.parameters())
    frame = common_frame(projections)
    statistics = latent_statistics(runs, base)
    write_pipeline(out, NAMES, structure, latents, statistics, frame, trained_frames(runs, base))
    return total


def export_run(
    weights: Mapping[str, Tensor],
    specs: Mapping[str, Mapping[str, Any]],
    statistics: Mapping[str, Tensor],
    folder: Path,
) -> None:
    """Write the models of a run, which `export` reads.

    Args:
        weights: of all models, with "MODEL." in front of their names.
        specs: {"name", "args"} by model.
        statistics: of the latents, which inference needs beside the weights; may be empty.
    """
    for name, spec in specs.items():
        prefix = f"{name}."
        own = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        save_model_weights(own, folder / name, spec["name"], dict(spec["args"]), torch.float32)
    if statistics:
        save_weights(dict(statistics), folder / "latent_statistics.safetensors")


def common_frame(projections: Mapping[str, Mapping[str, float] | None]) -> ViewFrame | None:
    """The frame of the view that both flows were trained in; None: that of the clip.

    Raises:
        CheckpointError: they were trained in different frames.
    """
    first, second = (projections[name] for name in FLOWS)
    if first != second:
        raise CheckpointError(
            f"the two flows were trained in different frames: projection is {first} in the structure flow and "
            f"{second} in the sparse flow"
        )
    return None if first is None else ViewFrame(**first)


def trained_frames(runs: Mapping[str, Path], base: Path | None) -> int | None:
    """Frames of the longest clips that one of the flows was trained on; None where no run and no base says."""
    named = None if base is None else PipelineFolder.open(base).args.get("trained_frames")
    lengths = [] if named is None else [int(named)]
    for name in FLOWS:
        config = read_saved(runs[name]) if name in runs else None
        if config is not None:
            sections = [config, *(config.get("phases") or {}).values()]
            lengths += [max(section.frames) for section in sections if section and "frames" in section]
    return max(lengths, default=None)


def latent_statistics(runs: Mapping[str, Path], base: Path | None) -> dict[str, Tensor]:
    """Mean and standard deviation [C] of the voxel latents that the sparse flow was trained with."""
    if base is None or ("sparse_flow" in runs and (runs["sparse_flow"] / "ckpts").is_dir()):
        return read_weights(runs["sparse_flow"] / "ckpts" / "latent_statistics.safetensors")
    mean, std = PipelineFolder.open(base).latent_statistics()
    return {"mean": mean, "std": std}
