"""The loss on held-out clips."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import torch

from ss4d.data import WindowDataset, batch_loader, open_dataset, to_device
from ss4d.training.distributed import World
from ss4d.training.monitor import Meter
from ss4d.training.objectives import Objective
from ss4d.training.phases import Phase

SEED = 0  # the same windows, times and noise every time, whatever the run's own seed: figures can be compared


def validation_set(objective: Objective, phase: Phase) -> WindowDataset:
    """The clips of `train.validate_split`, cut as the phase cuts its own, each clip as often as any other."""
    data = replace(phase.data, split=phase.train.validate_split, objects=None, category_weight={})
    return open_dataset(objective.dataset, data)


def mean_figures(objective: Objective, held_out: WindowDataset, phase: Phase, world: World) -> dict[str, float]:
    """Mean figures of the first `train.validate_batches` batches, shared out over all processes."""
    data = replace(phase.data, split=phase.train.validate_split, objects=None, category_weight={}, workers=0)
    meter = Meter()
    each = -(-phase.train.validate_batches // world.size)
    loader = batch_loader(held_out, data, SEED, 0, world.rank, world.size)
    for index, batch in enumerate(islice(loader, each)):
        generator = torch.Generator(world.device).manual_seed(world.rank + index * world.size)
        meter.add(objective(to_device(batch, world.device), generator).figures)
    return meter.means(world)
