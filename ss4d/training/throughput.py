"""How fast a run is."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ss4d.training.budget import peak_flops
from ss4d.training.distributed import World

COUNTS = ("clips", "frames", "tokens", "batches", "seconds")  # what rates are made of


def throughput(figures: Mapping[str, float], flops_per_token: float, world: World) -> dict[str, float]:
    """Rates of all processes together, training steps alone counted, not validation or pictures.

    Args:
        figures: `COUNTS`, means over the processes: of a batch the first three, the others of a process's step.
        flops_per_token: of forward and backward, without what is computed twice to save memory.

    Returns:
        `steps_per_second`, `clips_per_second`, `frames_per_second`, `tokens_per_second`, `model_tflops`, and on a GPU
        whose peak is known `utilisation`, the share of it in [0, 1].
    """
    steps = 1 / figures["seconds"]
    rates = {"steps_per_second": steps}
    for unit in ("clips", "frames", "tokens"):
        rates[f"{unit}_per_second"] = figures[unit] * figures["batches"] * world.size * steps
    rates["model_tflops"] = rates["tokens_per_second"] * flops_per_token / 1e12
    peak = peak_flops(torch.cuda.get_device_name()) if world.device.type == "cuda" else None
    if peak is not None:
        rates["utilisation"] = rates["model_tflops"] * 1e12 / (peak * world.size)
    return rates
