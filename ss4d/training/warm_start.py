"""Warm start (temporal alignment, paper §4.1): a 4D model takes the weights of a per-frame or a released one.

The Temporal Layers of the paper are TRELLIS' own attention layers, widened to all frames of a window, so nearly every
weight has a counterpart. What TRELLIS lacks are CompNet's temporal blocks; they start as pure packing and unpacking.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ss4d.models.checkpoint import CheckpointError, read_weights, weights_file
from ss4d.models.folder import PipelineFolder
from ss4d.models.names import NAMES
from ss4d.training.checkpointing import averaged_weights
from ss4d.training.export import LATENT_STATISTICS

TEMPORAL = ("input_blocks_t.", "out_blocks_t.")
FAR_SHIFT, FAR_RATIO = 2.0, 4.0  # small sets of one kind of object stay below


@dataclass(frozen=True)
class WarmStart:
    """What became of a model's weights."""

    model: str
    source: str
    loaded: int
    new: tuple[str, ...]  # weights the source lacks, started as pure packing

    def __str__(self) -> str:
        fresh = f"; {len(self.new)} of CompNet's temporal blocks start as pure packing" if self.new else ""
        return f"init_from: {self.model}: {self.loaded} weights from {self.source}{fresh}"


def warm_start(models: Mapping[str, nn.Module], source: str, objective: str) -> str:
    """Load every model of an experiment; returns a report.

    Args:
        source: a run folder, its `ckpts`, `best` or `checkpoints/step_*`, a checkpoint folder or a Hub id.

    Raises:
        CheckpointError: a weight that is missing, unexpected or of another shape, other than CompNet's temporal
            blocks where the source has none of them.
    """
    return "\n".join(str(_load(name, model, _weights(source, objective, name))) for name, model in models.items())


@dataclass(frozen=True)
class _Source:
    path: str
    tensors: dict[str, Tensor]


def _weights(source: str, objective: str, name: str) -> _Source:
    folder = Path(source)
    if _is_checkpoint(folder):
        return _Source(str(folder), averaged_weights(folder, name))
    for path in (folder / "ckpts" / f"{name}.safetensors", folder / f"{name}.safetensors"):
        if path.is_file():
            return _Source(str(path), read_weights(path))
    if folder.is_dir() and not (folder / "pipeline.json").exists():
        there = ", ".join(path.stem for place in (folder / "ckpts", folder) for path in place.glob("*.safetensors"))
        raise CheckpointError(
            f"init_from = {source} has no weights of {name}{f', only of {there}' * bool(there)}: give a run folder RUN "
            f"of {objective}, RUN/best, RUN/checkpoints/step_N, a checkpoint folder with pipeline.json, or a Hub id"
        )
    ours = next((key for key, known in NAMES.items() if (known.run, known.trained_as) == (objective, name)), None)
    if ours is None:
        raise CheckpointError(
            f"init_from = {source}: a checkpoint folder has no {name} of {objective} (NAMES in ss4d/models/names.py "
            "says what it has): give a run folder"
        )
    stem = PipelineFolder.open(source).stem(ours)
    return _Source(str(stem), read_weights(weights_file(stem)))


def _is_checkpoint(folder: Path) -> bool:
    """Whether a folder is RUN/checkpoints/step_N."""
    return folder.is_dir() and re.fullmatch(r"step_\d+", folder.name) is not None


def source_statistics(source: str) -> dict[str, Tensor]:
    """Mean and standard deviation [C] of the voxel latents that a source of weights was trained with; none where it
    does not say."""
    folder = Path(source)
    if _is_checkpoint(folder):
        saved = json.loads((folder / "progress.json").read_text(encoding="utf-8")).get("statistics", {})
        return {key: torch.tensor(value) for key, value in saved.items()}
    for path in (folder / "ckpts" / LATENT_STATISTICS, folder / LATENT_STATISTICS):
        if path.is_file():
            return read_weights(path)
    if folder.is_dir() and not (folder / "pipeline.json").exists():
        return {}
    pipeline = PipelineFolder.open(source)
    if "slat_normalization" not in pipeline.args:
        return {}
    mean, std = pipeline.latent_statistics()
    return {"mean": mean, "std": std}


def check_same_latents(source: str, given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Warn where a data set's own statistics tell that other weights encoded its latents."""
    shift = float(((own["mean"] - given["mean"]) / given["std"]).abs().max())
    ratio = float((own["std"] / given["std"]).log().abs().max().exp())
    if shift > FAR_SHIFT or ratio > FAR_RATIO:
        warnings.warn(
            f"init_from = {source}: its latents lie elsewhere than those of the data (means {shift:.2g} standard "
            f"deviations apart, these up to {ratio:.2g} times as large or small): encode the data with its encoders",
            stacklevel=2,
        )


def _load(name: str, model: nn.Module, source: _Source) -> WarmStart:
    wanted, given = model.state_dict(), dict(source.tensors)
    missing = [key for key in wanted if key not in given]
    without_time = not any(key.startswith(TEMPORAL) for key in given)
    new = [key for key in missing if without_time and key.startswith(TEMPORAL)]
    # Buffers follow from the arguments; TRELLIS keeps one that we compute.
    faults = [f"{key} is missing" for key in missing if key not in new]
    faults += [f"{key} is not part of the model" for key in given if key not in wanted]
    faults += [
        f"{key} has shape {list(given[key].shape)} instead of {list(wanted[key].shape)}"
        for key in wanted
        if key in given and given[key].shape != wanted[key].shape
    ]
    if faults:
        listing = "; ".join(faults[:8]) + (f" and {len(faults) - 8} more" if len(faults) > 8 else "")
        raise CheckpointError(
            f"init_from: {source.path} does not fit {name}: {listing}; use the config that belongs to these weights"
        )
    model.load_state_dict({**wanted, **given})
    if new:
        start_as_packing(model)
    return WarmStart(name, source.path, len(given), tuple(new))


@torch.no_grad()
def start_as_packing(flow: nn.Module) -> None:
    """Make CompNet's temporal blocks do nothing but pack frames and unpack them again, ignoring the skips."""
    for block in [*flow.input_blocks_t, *flow.out_blocks_t]:  # type: ignore[misc,union-attr]
        for parameter in block.conv2.parameters():
            parameter.zero_()
        shortcut = block.skip_connection
        if isinstance(shortcut, nn.Linear):
            shortcut.weight.copy_(torch.eye(*shortcut.weight.shape))
            shortcut.bias.zero_()
