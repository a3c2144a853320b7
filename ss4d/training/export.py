"""Run folders to a checkpoint folder in the released layout: pipeline.json, and the models in ckpts/.

A model comes from the run that trained it; else from where that run took it, frozen (`objective.NAME`); else from a
base, such as TRELLIS, whose structure VAE the paper keeps. A DINOv2 is named in pipeline.json (`image_cond_model`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from ss4d.flow import SamplerSettings
from ss4d.models.base import TorsoModel
from ss4d.models.checkpoint import (
    CheckpointError,
    load_model,
    read_json,
    read_weights,
    save_model,
    save_model_weights,
    save_weights,
    settings_file,
    weights_file,
)
from ss4d.models.folder import PipelineFolder, write_pipeline
from ss4d.models.image_encoder import DINO_HUB_IDS
from ss4d.models.names import NAMES, ModelName
from ss4d.training.run_folder import reached_step, read_saved
from ss4d.view_frame import ViewFrame

FLOWS = ("structure_flow", "sparse_flow")
LATENT_STATISTICS = "latent_statistics.safetensors"  # beside the weights of a sparse flow
EXPERIMENTS = tuple(dict.fromkeys(name.run for name in NAMES.values()))


@dataclass(frozen=True)
class Parts:
    """The models of a checkpoint folder to be, and what its pipeline.json says of them.

    Attributes:
        files: where the models are, by our names, without the files' endings.
        specs: {"name", "args"} of each.
        frame: the frame of the view that both flows were trained in; None: that of the clip.
        dino: the DINOv2 that encodes images; None: a model among the files.
        statistics: mean and standard deviation of the voxel latents.
        half: those that were trained in fp16, and generate in it on a GPU.
        trained_frames: of the longest clips that a flow was trained on; None: not known.
    """

    files: Mapping[str, Path]
    specs: Mapping[str, dict[str, Any]]
    frame: ViewFrame | None
    dino: str | None
    statistics: Mapping[str, Tensor]
    half: Collection[str]
    trained_frames: int | None

    @property
    def estimates(self) -> bool:
        """Whether sampling of the structure can start from an estimate."""
        return "structure_estimator" in self.files


def find_parts(runs: Mapping[str, Path], base: str | Path | None = None) -> Parts:
    """What the runs trained or name, and of the rest what the base has, the encoders included.

    A structure estimator of another frame than the flows' is left out.

    Args:
        runs: run folders by experiment, of `EXPERIMENTS`.
        base: checkpoint folder or Hub id.

    Raises:
        CheckpointError: a model that nobody has, flows of different frames, or of different image encoders.
    """
    sources = {name.ours: source for name in NAMES.values() if (source := find_model(name, runs, base)) is not None}
    dino = sources["image_encoder"] if isinstance(sources["image_encoder"], str) else None
    check_same_condition(runs, sources["image_encoder"])
    files = {ours: source for ours, source in sources.items() if isinstance(source, Path)}
    specs = {ours: read_json(settings_file(stem)) for ours, stem in files.items()}
    frame = common_frame({flow: specs[flow]["args"].get("projection") for flow in FLOWS})
    estimator = specs.get("structure_estimator")
    if estimator is not None and (frame is None or ViewFrame(**estimator["args"]["frame"]) != frame):
        del files["structure_estimator"]
    half = [ours for ours, stem in files.items() if trained_in_fp16(stem, runs.get(NAMES[ours].run))]
    return Parts(files, specs, frame, dino, latent_statistics(runs, base), half, trained_frames(runs, base))


def export(parts: Parts, out: Path, structure: SamplerSettings, latents: SamplerSettings) -> int:
    """Write a checkpoint folder; returns the number of parameters written.

    Args:
        structure, latents: default settings of the two samplers. Without an estimate the structure starts from noise,
            whatever they say.
    """
    if not parts.estimates:
        structure = replace(structure, start=1.0)
    total = 0
    for ours, stem in parts.files.items():
        model, spec = load_model(stem), parts.specs[ours]
        half = {"use_fp16": True} if ours in parts.half and isinstance(model, TorsoModel) else {}
        save_model(model, out / "ckpts" / NAMES[ours].key, spec["name"], spec["args"] | half, torch.float16)
        total += sum(parameter.numel() for parameter in model.parameters())
    frames, dino = parts.trained_frames, parts.dino
    write_pipeline(out, parts.files, structure, latents, parts.statistics, parts.frame, dino, frames)
    return total


def find_model(name: ModelName, runs: Mapping[str, Path], base: str | Path | None) -> Path | str | None:
    """Where a model's files are, without their ending; for a DINOv2, its name; None: an optional one that nobody has.

    Raises:
        CheckpointError: nobody has it.
    """
    run = runs.get(name.run)
    if run is not None:
        trained = run / "ckpts" / name.trained_as
        if settings_file(trained).is_file():
            return trained
        frozen = frozen_source(run, name.trained_as)
        if frozen in DINO_HUB_IDS:
            return frozen
        if frozen is not None and settings_file(Path(frozen)).is_file():
            return Path(frozen)
    folder = None if base is None else PipelineFolder.open(base)
    if name.optional and (folder is None or name.key not in folder.args["models"]):
        return None
    if folder is None:
        raise CheckpointError(
            f"no run has the model {name.key} ({name.trained_as} of {name.run if run is None else run}): train it, or "
            "give a checkpoint that has it with --base, such as microsoft/TRELLIS-image-large"
        )
    dino = folder.dino() if name.ours == "image_encoder" else None
    return folder.stem(name.ours) if dino is None else dino


def trained_in_fp16(stem: Path, run: Path | None) -> bool:
    """Whether a model's files are of a run that trained in fp16."""
    config = read_saved(run) if run is not None and stem.is_relative_to(run) else None
    return config is not None and config.get("train", {}).get("precision") == "fp16"


def frozen_source(run: Path, model: str) -> str | None:
    """What a run took a frozen model from: a path without its ending, or the name of a DINOv2; None: it names none."""
    saved = read_saved(run)
    return None if saved is None else (saved.get("objective") or {}).get(model)


def check_same_condition(runs: Mapping[str, Path], first: Path | str) -> None:
    """
    Raises:
        CheckpointError: the sparse flow was trained with another image encoder than `first`, which is exported.
    """
    run = runs.get("sparse_flow")
    if run is None:
        return
    own = run / "ckpts" / "image_encoder"
    second = own if settings_file(own).is_file() else frozen_source(run, "image_encoder")
    if second is not None and not _same_encoder(first, second):
        raise CheckpointError(
            f"the two flows were trained with different image encoders: {first} in the structure flow and {second} in "
            "the sparse flow; train one of them again with the other's (objective.image_encoder)"
        )


def _same_encoder(first: Path | str, second: Path | str) -> bool:
    """Whether two sources of an image encoder are one: DINOv2s by name, files by what they hold in half precision, as
    it is exported. Files that are not there any more are taken for the same."""
    if first in DINO_HUB_IDS or second in DINO_HUB_IDS:
        return first == second
    files = [weights_file(Path(source)) for source in (first, second)]
    if not files[1].is_file():
        return True
    a, b = (read_weights(file) for file in files)
    return a.keys() == b.keys() and all(torch.equal(a[key].half(), b[key].half()) for key in a)


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
        save_weights(dict(statistics), folder / LATENT_STATISTICS)


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


def trained_frames(runs: Mapping[str, Path], base: str | Path | None) -> int | None:
    """Frames of the longest clips that one of the flows was trained on, in the phases that it has begun; None where no
    run and no base says."""
    of_base = None if base is None else PipelineFolder.open(base).args.get("trained_frames")
    configs = {name: read_saved(runs[name]) if name in runs else None for name in FLOWS}
    lengths = [
        of_base if config is None else longest_clips(config, reached_step(runs[name]))
        for name, config in configs.items()
    ]
    return max((int(length) for length in lengths if length is not None), default=None)


def longest_clips(config: DictConfig, reached: int | None) -> int:
    """Frames of the longest clips in the phases of a saved config that begin before a step; None: in all of them."""
    longest, start = 0, 0
    for phase in (config.get("phases") or {"main": None}).values():
        given = phase or {}
        frames = given.get("data", {}).get("frames") or given.get("frames") or config.data.frames
        if not start or reached is None or start < reached:
            longest = max(longest, *frames)
        start += given.get("train", {}).get("steps") or config.get("train", {}).get("steps") or 0
    return longest


def latent_statistics(runs: Mapping[str, Path], base: str | Path | None) -> dict[str, Tensor]:
    """Mean and standard deviation [C] of the voxel latents that the sparse flow was trained with."""
    if base is None or ("sparse_flow" in runs and (runs["sparse_flow"] / "ckpts").is_dir()):
        return read_weights(runs["sparse_flow"] / "ckpts" / LATENT_STATISTICS)
    mean, std = PipelineFolder.open(base).latent_statistics()
    return {"mean": mean, "std": std}
