"""Memory that a process has held at most."""

from __future__ import annotations

import resource

import torch


def peak_memory(device: torch.device) -> int:
    """Bytes that this process has held at most so far: of the GPU, or of main memory on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
