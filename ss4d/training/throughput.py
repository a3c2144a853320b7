"""How fast a run is."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ss4d.training.distributed import World

COUNTS = ("clips", "frames", "tokens", "batches", "seconds")  # what rates are made of


def throughput(metrics: Mapping[str, float], flops_per_token: float, world: World) -> dict[str, float]:
    """Rates of all processes together, training steps alone counted, not validation or pictures.

    Args:
        metrics: `COUNTS`, means over the processes: of a batch the first three, the others of a process's step.
        flops_per_token: of forward and backward, without what is computed twice to save memory.

    Returns:
        `steps_per_second`, `clips_per_second`, `frames_per_second`, `tokens_per_second`, `model_tflops`, and on a GPU
        whose peak is known `utilisation`, the share of it in [0, 1].
    """
    steps = 1 / metrics["seconds"]
    rates = {"steps_per_second": steps}
    for unit in ("clips", "frames", "tokens"):
        rates[f"{unit}_per_second"] = metrics[unit] * metrics["batches"] * world.size * steps
    rates["model_tflops"] = rates["tokens_per_second"] * flops_per_token / 1e12
    peak = peak_flops(torch.cuda.get_device_name()) if world.device.type == "cuda" else None
    if peak is not None:
        rates["utilisation"] = rates["model_tflops"] * 1e12 / (peak * world.size)
    return rates


# Dense bf16 and fp16 products of one device in TFLOP/s, from the makers' data sheets.
PEAK_TFLOPS = {"H200": 989, "H100 PCIe": 756, "H100": 989, "A100": 312, "A800": 312, "RTX 4090": 165, "L40S": 362}


def peak_flops(device_name: str | None) -> float | None:
    """Of a GPU by its name; None where it is not known, or for a CPU."""
    known = [peak for name, peak in PEAK_TFLOPS.items() if device_name and name in device_name]
    return 1e12 * known[0] if known else None
