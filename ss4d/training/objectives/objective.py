"""What all objectives have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ss4d.data import PreparedSet, WindowDataset
from ss4d.models.checkpoint import CheckpointError, load_model, settings_file
from ss4d.models.image_encoder import DINO_HUB_IDS, DinoImageEncoder
from ss4d.training.previews import Preview


@dataclass
class Loss:
    """The scalar to minimise, and metrics to log (scalars, detached)."""

    total: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class ObjectiveOptions:
    """The `objective` section of the config."""

    name: str  # a key of OBJECTIVES


class Objective(nn.Module):
    """Owns the models it trains (`models`), loads those it needs frozen, and turns a batch into a loss.

    A new objective names its `Options`, `dataset` and `trainable` models, defines `forward` and `preview`, and joins
    `OBJECTIVES`. Where its options have one with the name of a trainable model, the config chooses: a section
    `models.NAME` trains it, a path in `objective.NAME` takes it from there, frozen.

    Args:
        models: the trained models by name.
        options: an instance of its `Options`.

    Raises:
        ValueError: a model that this objective does not train, or none of those that it needs.
    """

    Options: ClassVar[type[ObjectiveOptions]] = ObjectiveOptions
    dataset: ClassVar[type[WindowDataset]]  # where its batches come from
    trainable: ClassVar[Mapping[str, tuple[type[nn.Module], ...]]]  # models that it can train, and of which classes
    preview_decoder: ClassVar[str | None] = None  # option that names a model of another run, for previews alone
    options: Any  # an instance of `Options`

    def __init__(self, models: Mapping[str, nn.Module], options: Any):
        super().__init__()
        for name, model in models.items():
            if type(model) not in self.trainable.get(name, ()):
                known = "; ".join(f"{key}: {_names(classes)}" for key, classes in self.trainable.items())
                raise ValueError(
                    f"objective.name = {options.name} trains no models.{name} of the class {type(model).__name__}, but "
                    f"{known}: take experiment={options.name}/tiny or /paper"
                )
        for name in self.trainable:
            if name not in models and not hasattr(options, name):
                raise ValueError(f"models has no {name}, which objective.name = {options.name} trains")
        self.models = nn.ModuleDict(models)
        self.frozen = nn.ModuleDict()
        self.options = options

    @classmethod
    def frame_tokens(cls, models: Mapping[str, Any], resolution: int, voxels: float) -> float:
        """Tokens of a frame as `data.tokens_per_batch` counts them, where there are no data yet: its voxels. Objectives
        of dense grids count cells.

        Args:
            models: the section of the config.
            voxels: of a typical frame.
        """
        return voxels

    def initialize(self) -> None:
        """Change weights that the models start from; called before a warm start."""

    def prepare(self, clips: PreparedSet) -> None:
        """Load whatever stays fixed, once, before training and before any move to another device."""

    def statistics(self) -> dict[str, Tensor]:
        """Statistics of the data that inference needs beside the weights."""
        return {}

    def use_statistics(self, statistics: Mapping[str, Tensor]) -> None:
        """Take those that the weights were trained with, in place of the data's; called after `prepare`."""

    def forward(self, batch: Any, generator: torch.Generator) -> Loss:
        """The loss of a batch; all that is random about it comes from `generator`, on whose device it lies."""
        raise NotImplementedError

    def preview(self, batch: Any, generator: torch.Generator) -> Preview:
        """What the models make of the first videos of a batch, as pictures; called without gradients."""
        raise NotImplementedError

    def missing_for_preview(self) -> str | None:
        """Why there can be no preview, if so."""
        if self.preview_decoder is None:
            return None
        source = getattr(self.options, self.preview_decoder)
        if source is None or not Path(f"{source}.safetensors").exists():
            return f"no previews: objective.{self.preview_decoder} = {source} is no trained decoder"
        return None

    def model(self, name: str) -> nn.Module:
        """The model that is trained, or else the one that the option `name` points to, frozen and loaded once.

        Raises:
            CheckpointError: there is none, or its weights do not fit.
        """
        if name in self.models:
            return self.models[name]
        if name not in self.frozen:
            source = getattr(self.options, name)
            if source is None:
                raise CheckpointError(
                    f"objective.{name} is null, and models has no {name} to train: give one of the two"
                )
            if source not in DINO_HUB_IDS and not settings_file(Path(source)).is_file():
                raise CheckpointError(
                    f"objective.{name}={source} cannot be used: there is no such model: train the run that makes it "
                    "first (docs/training.md, Order), or name another one, without the file's ending"
                )
            try:
                model = DinoImageEncoder(source) if source in DINO_HUB_IDS else load_model(Path(source))
            except CheckpointError as error:
                raise CheckpointError(f"objective.{name}={source} cannot be used: {error}") from error
            device = next(self.models.parameters()).device
            self.frozen[name] = model.requires_grad_(False).eval().to(device)
        return self.frozen[name]


def _names(classes: Sequence[type]) -> str:
    return " or ".join(kind.__name__ for kind in classes)
