"""Memory: what a process has held at most, amounts as people write them, and giving back what is free.

torch is imported where it is needed: the commands read amounts before they load it.
"""

from __future__ import annotations

import ctypes
import re
import resource
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")

UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def peak_memory(device: torch.device) -> int:
    """Bytes that this process has held at most so far: of the GPU, or of main memory on a CPU."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    return peak_main_memory()


def peak_main_memory() -> int:
    """Bytes of main memory that this process has held at most.

    Linux counts what `getrusage` says from before the program was started: a small command that a large process starts
    looks large.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1])
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def parse_bytes(text: str) -> int:
    """Bytes of "8GB", "800 MB", "7.5GiB" or a plain number.

    Raises:
        ValueError: none of these.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2].upper() not in UNITS or not float(match[1]):
        raise ValueError(f"{text!r} is no amount of memory: write 8GB, 800MB or 7.5GiB")
    return int(float(match[1]) * UNITS[match[2].upper()])


def in_gigabytes(amount: float) -> str:
    """Such as "1.25GB", rounded up; `parse_bytes` reads it."""
    return f"{-(-int(amount) // 10**7) / 100:.2f}GB"


def give_back(device: torch.device) -> None:
    """Return freed memory to the system, so that it does not count for this process."""
    if device.type == "cuda":
        import torch

        torch.cuda.empty_cache()
    elif sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)  # glibc's; other C libraries have none


def giving_back(items: Iterable[Item], device: torch.device, every: int = 8) -> Iterator[Item]:
    """The same items; before the first one and every so many, what was freed is given back."""
    for number, item in enumerate(items):
        if number % every == 0:
            give_back(device)
        yield item
