"""The averaged weights on held-out clips: their loss, and the batch that previews show."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

import torch

from ss4d.data import BatchLoader, DataSettings, WindowDataset, open_dataset, to_device
from ss4d.training.distributed import World
from ss4d.training.monitor import Meter
from ss4d.training.objectives import Objective
from ss4d.training.optimization import WeightAverage
from ss4d.training.phases import Phase
from ss4d.training.precision import autocast

SEED = 0  # the same windows, times and noise every time, whatever the run's own seed: metrics can be compared


def validation_set(objective: Objective, phase: Phase) -> WindowDataset:
    """The clips of `train.validate_split`, cut as the phase cuts its own, each clip as often as any other.

    Raises:
        ValueError: there are none, or all are shorter than the phase's windows.
    """
    settings = _settings(phase)
    try:
        held_out = open_dataset(objective.dataset, settings)
        BatchLoader(held_out, settings, SEED)  # refuses frames that no clip has
    except ValueError as error:
        raise ValueError(
            f"train.validate_split = {settings.split}: {error}; or do without: train.validate_every=0 "
            "train.preview_every=0"
        ) from error
    return held_out


def first_batch(held_out: WindowDataset, phase: Phase) -> Any:
    """The batch that is looked at again and again."""
    return next(iter(BatchLoader(held_out, _settings(phase), SEED, leave_out_faults=True)))


@contextmanager
def averaged(objective: Objective, average: WeightAverage) -> Iterator[None]:
    """The averaged weights in place of the trained ones, without gradients."""
    average.swap(objective.models)
    objective.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        objective.train()
        objective.frozen.eval()
        average.swap(objective.models)


def mean_metrics(objective: Objective, held_out: WindowDataset, phase: Phase, world: World) -> dict[str, float]:
    """Mean metrics of the first `train.validate_batches` batches, shared out over all processes.

    A clip that cannot be read, and a batch whose loss is not finite, is left out with a warning: one bad clip must not
    decide which weights are the best. Batches are loaded outside of autocast, which cannot join their half-precision
    tensors on a CPU.
    """
    meter = Meter()
    each = -(-phase.train.validate_batches // world.size)
    loader = BatchLoader(held_out, _settings(phase), SEED, 0, world.rank, world.size, leave_out_faults=True)
    for index, batch in enumerate(islice(loader, each)):
        place = world.rank + index * world.size
        counts = place < phase.train.validate_batches  # the others keep processes in step (FSDP)
        generator = torch.Generator(world.device).manual_seed(place)
        with autocast(phase.train.precision, world.device):
            loss = objective(to_device(batch, world.device), generator)
        if bool(loss.total.isfinite()):
            meter.add(loss.metrics if counts else {})
        else:
            warnings.warn(f"held-out batch {place}: the loss is not finite, the batch is left out", stacklevel=2)
    return meter.means(world)


def _settings(phase: Phase) -> DataSettings:
    """As the phase cuts its own clips, but each as often as any other, none masked and none recoloured."""
    data, split = phase.data, phase.train.validate_split
    unmasked = replace(data.masking, probability=0.0)
    even = replace(data, category_weight={}, static_weight=1.0, group_cap=None)
    return replace(even, split=split, objects=None, masking=unmasked, recolor=0.0, workers=0)
