"""The computer itself: its memory, processors and devices."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path

from ss4d.doctor.finding import BROKEN, GIB, MISSING, NOTE, OK, Finding, first_line
from ss4d.version import __version__


def machine() -> Iterator[Finding]:
    section = "machine"
    yield Finding(section, "system", OK, f"{platform.system()} {platform.release()} {platform.machine()}")
    yield Finding(section, "Python", OK, f"{platform.python_version()}, ss4d {__version__}")
    yield Finding(section, "CPUs", OK, f"{len(os.sched_getaffinity(0))} of {os.cpu_count()}")
    total, free = main_memory()
    yield Finding(section, "memory", OK, f"{free / GIB:.1f} of {total / GIB:.1f} GiB available")
    shared = shutil.disk_usage("/dev/shm").total if Path("/dev/shm").is_dir() else 0
    state = OK if shared >= GIB else NOTE
    advice = "" if state == OK else "workers of training may need more: docker run --shm-size 8g, or fewer workers"
    yield Finding(section, "/dev/shm", state, f"{shared / GIB:.1f} GiB", advice)


CGROUPS = (  # limit, use and statistics of memory: control groups of version 2 and 1
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)


def main_memory(root: Path = Path("/sys/fs/cgroup")) -> tuple[int, int]:
    """Bytes of main memory in all, and available to this process, within the limits of its container."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total, free = (1024 * int(lines[key].split()[0]) for key in ("MemTotal", "MemAvailable"))
    for names in CGROUPS:
        limit, used, statistics = (root / name for name in names)
        if limit.is_file() and used.is_file() and (most := limit.read_text().strip()) != "max":
            numbers = dict(line.split() for line in statistics.read_text().splitlines() if len(line.split()) == 2)
            cache = int(numbers.get("total_inactive_file", numbers.get("inactive_file", 0)))  # gives way
            total = min(total, int(most))
            free = min(free, int(most) - int(used.read_text()) + cache)
    return total, max(free, 0)


def devices(asked: str | None) -> Iterator[Finding]:
    import torch

    from ss4d.backend import find_device

    section = "devices"
    names = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    for name in names:
        detail = f"{torch.get_num_threads()} threads"
        if name != "cpu":
            properties = torch.cuda.get_device_properties(name)
            detail = f"{properties.name}, compute capability {properties.major}.{properties.minor}"
        try:
            a = torch.arange(16.0, device=name).reshape(4, 4)
            if not torch.equal((a @ a).cpu(), a.cpu() @ a.cpu()):
                raise RuntimeError("a product of matrices is wrong")
            yield Finding(section, name, OK, detail)
        except RuntimeError as error:
            advice = f"check the driver and that torch {torch.__version__} fits it, or use --device cpu"
            yield Finding(section, name, BROKEN, f"{detail}: {first_line(error)}", advice)
    if len(names) == 1:
        yield Finding(section, "cuda", MISSING, "no CUDA device is seen", "full-size weights need one")
    if asked:
        try:
            find_device(asked)
        except ValueError as error:
            yield Finding(section, asked, BROKEN, str(error))
