"""Whether the next run finds its checkpoint, its memory and its places."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ss4d.doctor.finding import BROKEN, GIB, MIB, NOTE, OK, Finding, first_line
from ss4d.doctor.machine import main_memory
from ss4d.failures import ROOT
from ss4d.files import content_hash
from ss4d.memory import in_gigabytes

if TYPE_CHECKING:
    from ss4d.plan import Plan

CLIP_PIXELS = 1920 * 1080  # assumed of the next run's clip


def checkpoints(model: str) -> Iterator[Finding]:
    """Those that lie in checkpoints/ and in the Hub's cache, and the one that the next run takes."""
    section = "checkpoints"
    found = sorted(file.parent for file in (ROOT / "checkpoints").glob("*/pipeline.json"))
    chosen = Path(model)
    if chosen.is_dir() and chosen.resolve() not in [folder.resolve() for folder in found]:
        found.append(chosen)
    for folder in found:
        weights = sorted(folder.glob("ckpts/*.safetensors"))
        size = sum(file.stat().st_size for file in weights) / MIB
        yield Finding(section, folder.name, OK, f"{size:.0f} MiB, SHA-256 {content_hash(weights)[:16]} at {folder}")
    cached = [*hub_cache().glob("models--*"), *rembg_cache().rglob("*.onnx")]
    for place in cached:
        yield Finding(section, place.name.removeprefix("models--").replace("--", "/"), OK, f"fetched, at {place}")
    yield loadable(model)


def loadable(model: str) -> Finding:
    from ss4d.models.checkpoint import CheckpointError
    from ss4d.models.folder import PipelineFolder

    name = f"--model {Path(model).name}"
    if not Path(model).is_dir() and model.count("/") == 1:
        if Path(model).parent.is_dir():
            return Finding("checkpoints", name, BROKEN, f"there is no folder {model}")
        there = (hub_cache() / f"models--{model.replace('/', '--')}").is_dir()
        return Finding("checkpoints", name, OK if there else NOTE, "fetched" if there else "the next run will fetch it")
    try:
        PipelineFolder.open(model).load_models()
    except (CheckpointError, ModuleNotFoundError) as error:
        return Finding("checkpoints", name, BROKEN, first_line(error))
    return Finding("checkpoints", name, OK, "loads")


def hub_cache() -> Path:
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or home / "hub")


def rembg_cache() -> Path:
    return Path(os.environ.get("REMBG_HOME") or os.environ.get("U2NET_HOME") or Path.home() / ".rembg")


def memory(options: argparse.Namespace) -> Iterator[Finding]:
    """What the next run takes by the sizes of its models, against what is free."""
    import torch

    cuda = torch.cuda.is_available() and not (options.device or "cuda").startswith("cpu")
    free = torch.cuda.mem_get_info(options.device or "cuda")[0] if cuda else main_memory()[1]
    there = f"{free / GIB:.1f} GiB of {'the GPU' if cuda else 'main memory'} are free"
    plan = plan_of(options.model, options.num_frames)
    if plan is None:
        yield Finding("next run", "memory", OK, f"{there}; the size of the model is not known")
        return
    needed = plan.bytes
    detail = f"about {needed / GIB:.1f} GiB for {options.num_frames} frames; {there}"
    if needed < free:
        yield Finding("next run", "memory", OK, detail)
    else:
        advice = f"--memory {in_gigabytes(free)}" if plan.least < free else "take fewer frames: --num-frames"
        yield Finding("next run", "memory", BROKEN, detail, advice)


def plan_of(model: str, frames: int) -> Plan | None:
    """How a run takes a clip of so many frames; None for a model that is damaged or not here yet."""
    from ss4d.models.checkpoint import CheckpointError
    from ss4d.models.folder import PipelineFolder
    from ss4d.plan import Job, plan_memory

    if Path(model).is_dir():
        with suppress(CheckpointError):
            folder = PipelineFolder.open(model)
            return plan_memory(folder, Job(frames, CLIP_PIXELS, on_disk=True), folder.trained_frames(), None)
    return None


def places(out: Path) -> Iterator[Finding]:
    """Whether what will be written can be."""
    from ss4d.result_folder import DestinationError, ResultFolder

    section = "next run"
    try:
        target = ResultFolder.open(out)
        existing = next(place for place in (target.path, *target.path.parents) if place.exists())
        earlier = "an earlier result there will be replaced, " if target.holds_result else ""
        free = shutil.disk_usage(existing).free / GIB
        yield Finding(section, f"--out {out.name}", OK, f"{earlier}{free:.1f} GiB free at {target.path}")
    except DestinationError as error:
        yield Finding(section, f"--out {out.name}", BROKEN, str(error))
    numba = os.environ.get("NUMBA_CACHE_DIR")
    others = {
        "compiled code": Path(numba) if numba else ROOT / "ss4d",
        "temporary files": Path(tempfile.gettempdir()),
        "the Hub's cache": hub_cache(),
        "matting models": rembg_cache(),
    }
    for name, folder in others.items():
        existing = next((place for place in (folder, *folder.parents) if place.exists()), Path("/"))
        writable = os.access(existing, os.W_OK | os.X_OK)
        detail = f"{'writable' if writable else 'not writable'}: {folder}"
        yield Finding(section, name, OK if writable else NOTE, detail)
