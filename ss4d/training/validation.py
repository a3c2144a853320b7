"""The loss on held-out clips."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Any

import torch

from ss4d.data import DataSettings, WindowDataset, batch_loader, open_dataset, to_device
from ss4d.training.distributed import World
from ss4d.training.monitor import Meter
from ss4d.training.objectives import Objective
from ss4d.training.phases import Phase

SEED = 0  # the same windows, times and noise every time, whatever the run's own seed: metrics can be compared


def validation_set(objective: Objective, phase: Phase) -> WindowDataset:
    """The clips of `train.validate_split`, cut as the phase cuts its own, each clip as often as any other."""
    return open_dataset(objective.dataset, _settings(phase))


def first_batch(held_out: WindowDataset, phase: Phase) -> Any:
    """The batch that is looked at again and again."""
    return next(iter(batch_loader(held_out, _settings(phase), SEED)))


def mean_metrics(
    objective: Objective, held_out: WindowDataset, phase: Phase, world: World, autocast: Callable[[], Any]
) -> dict[str, float]:
    """Mean metrics of the first `train.validate_batches` batches, shared out over all processes.

    Batches are loaded outside of autocast, which cannot join their half-precision tensors on a CPU.
    """
    meter = Meter()
    each = -(-phase.train.validate_batches // world.size)
    loader = batch_loader(held_out, _settings(phase), SEED, 0, world.rank, world.size)
    for index, batch in enumerate(islice(loader, each)):
        generator = torch.Generator(world.device).manual_seed(world.rank + index * world.size)
        with autocast():
            meter.add(objective(to_device(batch, world.device), generator).metrics)
    return meter.means(world)


def _settings(phase: Phase) -> DataSettings:
    """As the phase cuts its own clips, but each as often as any other, none masked and none recoloured."""
    data, split = phase.data, phase.train.validate_split
    unmasked = replace(data.masking, probability=0.0)
    return replace(data, split=split, objects=None, category_weight={}, masking=unmasked, recolor=0.0, workers=0)
