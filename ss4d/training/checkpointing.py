"""Checkpoints of a run: `checkpoints/step_00001000/`, written atomically.

Tensors are written by torch.distributed.checkpoint, every process its part, and can be read by another number of
processes. `progress.json` holds the plain values, `manifest.json` the size and checksum of every file.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException

from ss4d.nested import leaves
from ss4d.training.distributed import World, by_first, gathered, wait_for_all


class SaveError(OSError):
    """A checkpoint could not be written; the last good one is untouched."""


@dataclass(frozen=True)
class CheckpointStore:
    """The checkpoints of a run folder, of which the newest `keep` stay.

    All processes must call its methods, and see one file system.
    """

    folder: Path
    world: World

    def save(self, step: int, tensors: dict[str, Any], progress: dict[str, Any], keep: int) -> None:
        """Write a checkpoint under a temporary name, then rename it.

        Raises:
            SaveError: a process could not write, for instance because the disk is full.
        """
        final: Path | None = self.folder / f"step_{step:08d}"
        temporary = self.folder / f".step_{step:08d}"
        if self.world.is_first:
            self.folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(temporary, ignore_errors=True)
        wait_for_all(self.world)
        self._together(lambda: _write_tensors(tensors, temporary), temporary)
        if not self.world.is_first:
            final = None
        self._together(lambda: _finish(temporary, final, progress), temporary)
        if self.world.is_first:
            # Those ahead of this step are damaged, and no reason to drop good ones.
            for path in [path for number, path in checkpoints_of(self.folder) if number <= step][:-keep]:
                shutil.rmtree(path)

    def load(self, tensors: dict[str, Any]) -> dict[str, Any] | None:
        """Read the newest undamaged checkpoint into `tensors`, in place; returns its progress, None if there is none.

        Damaged ones are passed over with a warning.

        Raises:
            ValueError: all are damaged, or it is of another model.
        """
        path = by_first(self._newest, self.world)
        if path is None:
            return None
        _check_fits(path, tensors)
        _read(tensors, path)
        progress: dict[str, Any] = json.loads((path / "progress.json").read_text())
        return progress

    def tidy(self, step: int) -> None:
        """Clear away what a process that was killed had begun to write, and set aside the damaged checkpoints that were
        passed over to resume at `step`: they would count as good ones later."""
        if self.world.is_first and self.folder.is_dir():
            for path in [path for number, path in checkpoints_of(self.folder) if number > step]:
                aside = path.with_name(f"damaged_{path.name}")
                shutil.rmtree(aside, ignore_errors=True)
                path.rename(aside)
            for path in self.folder.iterdir():
                if re.fullmatch(r"\.step_\d+", path.name) and path.is_dir():
                    shutil.rmtree(path)

    def _together(self, work: Callable[[], None], temporary: Path) -> None:
        """Do the work on all processes; if it fails on one, all stop and nothing stays behind."""
        failure = None
        try:
            work()
        except (Exception, CheckpointException) as error:  # a full disk comes as any of many kinds
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            failure = f"{reason}; {shutil.disk_usage(self.folder).free / 1e6:.0f} MB are free"
        failures = [text for text in gathered(failure, self.world) if text is not None]
        if failures:
            if self.world.is_first:
                shutil.rmtree(temporary, ignore_errors=True)
            raise SaveError(
                f"the checkpoint in {self.folder} could not be written ({failures[0]}): make room or check the "
                "disk, and start the same command again; it resumes from the last good checkpoint"
            )

    def _newest(self) -> Path | None:
        fault = None
        for _, path in reversed(checkpoints_of(self.folder)):
            fault = find_fault(path)
            if fault is None:
                return path
            warnings.warn(f"{path} is damaged ({fault}): resuming from the one before it", stacklevel=3)
        if fault is not None:
            raise ValueError(
                f"all checkpoints in {self.folder} are damaged (the first: {fault}): bring one back from a copy, or "
                "move the folder away to begin at step 0"
            )
        return None


def checkpoints_of(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints in a folder by their step, in order; other names are left alone."""
    found = [(re.fullmatch(r"step_(\d+)", path.name), path) for path in folder.glob("step_*") if path.is_dir()]
    return sorted((int(match[1]), path) for match, path in found if match)


def averaged_weights(path: Path, model: str) -> dict[str, Tensor]:
    """The averaged weights of one of the models in a checkpoint.

    Raises:
        ValueError: it is damaged, or has no such model.
    """
    if fault := find_fault(path):
        raise ValueError(f"{path} is damaged ({fault}): give another checkpoint")
    prefix = f"average.{model}."
    stored: dict[str, Any] = dcp.FileSystemReader(path).read_metadata().state_dict_metadata
    tensors = {
        key: torch.empty(value.size, dtype=value.properties.dtype)
        for key, value in stored.items()
        if key.startswith(prefix)
    }
    if not tensors:
        names = dict.fromkeys(key.split(".")[1] for key in stored if key.startswith("average."))
        raise ValueError(f"{path} has no model {model}, only {', '.join(names)}")
    _read(tensors, path)
    return {key.removeprefix(prefix): value for key, value in tensors.items()}


def _read(tensors: dict[str, Any], path: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*single process.*")
        dcp.load(tensors, checkpoint_id=path)


def _check_fits(path: Path, tensors: dict[str, Any]) -> None:
    """ValueError unless a checkpoint has exactly these tensors: torch would load a part of them and say nothing."""
    stored: dict[str, Any] = dcp.FileSystemReader(path).read_metadata().state_dict_metadata
    there = {key: list(getattr(value, "size", [])) for key, value in stored.items()}
    needed = {key: list(value.shape) for key, value in leaves(tensors)}
    faults = [f"{key} is missing" for key in needed if key not in there]
    faults += [f"{key} is not part of the model" for key in there if key not in needed]
    faults += [
        f"{key} has shape {there[key]} instead of {needed[key]}"
        for key in needed
        if key in there and there[key] != needed[key]
    ]
    if faults:
        more = f" and {len(faults) - 4} more" if len(faults) > 4 else ""
        raise ValueError(
            f"{path} is of another model: {'; '.join(faults[:4])}{more}: use the config that the run began with, or "
            "another run_dir"
        )


def find_fault(path: Path) -> str | None:
    """What is wrong with the files of a checkpoint, if anything."""
    try:
        manifest = json.loads((path / "manifest.json").read_text())
    except (OSError, ValueError):
        return "manifest.json is missing or cut short"
    try:
        entries = [(name, int(entry["size"]), int(entry["crc32"])) for name, entry in manifest.items()]
        json.loads((path / "progress.json").read_text())["step"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return "manifest.json or progress.json has another form than this version writes"
    if ".metadata" not in manifest:
        return "manifest.json does not list .metadata"
    for name, size, checksum in entries:
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size} bytes instead of {size}"
        if _checksum(file) != checksum:
            return f"{name} has another content than was written"
    return None


def _write_tensors(tensors: dict[str, Any], folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*single process.*")
        dcp.save(tensors, checkpoint_id=folder)


def _finish(temporary: Path, final: Path | None, progress: dict[str, Any]) -> None:
    """The first process, which has a `final`, completes a checkpoint."""
    if final is None:
        return
    (temporary / "progress.json").write_text(json.dumps(progress))
    manifest = {
        file.relative_to(temporary).as_posix(): {"size": file.stat().st_size, "crc32": _checksum(file)}
        for file in sorted(temporary.rglob("*"))
        if file.is_file()
    }
    (temporary / "manifest.json").write_text(json.dumps(manifest, indent=1))
    for file in temporary.rglob("*"):
        if file.is_file():
            _flush(file)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(temporary, final)
    _flush(final.parent)


def _checksum(file: Path) -> int:
    value = 0
    with file.open("rb") as stream:
        while block := stream.read(1 << 24):
            value = zlib.crc32(block, value)
    return value


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
