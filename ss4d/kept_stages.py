"""Finished stages of a run on disk: where a run that was cut short goes on, and where its Gaussians lie meanwhile."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from ss4d.files import locked, written_atomically
from ss4d.gaussians import Gaussians, GaussianSequence
from ss4d.gaussians.gaussians import TENSORS
from ss4d.lazy import LazySequence


class KeptStages:
    """A folder of stages, each under a key of all that it depends on; without a folder nothing is kept.

    What cannot be written (a full disk) is kept in memory, with a warning.

    Args:
        folder: made where there is none; `None`, or one that another process uses: nothing is kept.

    Attributes:
        stages: names of those that this run has in the folder by now, in order.
    """

    def __init__(self, folder: Path | None = None):
        self.lock = None if folder is None else claim(folder)
        self.folder = self.claimed = None if self.lock is None else self.lock.folder
        self.stages: list[str] = []

    def holds_any(self) -> bool:
        """Whether the folder has a stage, of this run or of an earlier one."""
        return self.claimed is not None and any(self.claimed.glob("*-*.safetensors"))

    def remove(self) -> None:
        """Remove the folder, if this process has it, and let it go."""
        if self.claimed is not None:
            shutil.rmtree(self.claimed, ignore_errors=True)
        self.lock = None

    def get(self, stage: str, key: str, build: Callable[[], Tensor]) -> Tensor:
        """The tensor of a stage with this key; built where it is not there, and the stage's earlier one replaced."""
        if self.folder is None:
            return build()
        path = self.folder / f"{stage}-{key}.safetensors"
        if path.is_file():
            try:
                value = _read(path)[stage]
                self.stages.append(stage)
                return value
            except (SafetensorError, KeyError):
                path.unlink()  # damaged
        value = build()
        if self._write(path, {stage: value}):
            self.stages.append(stage)
            for other in set(self.folder.glob(f"{stage}-*.safetensors")) - {path}:
                other.unlink()
        return value

    def frames(self, made: Iterator[Gaussians], device: torch.device, key: str) -> GaussianSequence:
        """Gaussians as they are made, each read from its file when it is asked for; without a folder, in memory.

        The key is that of what they are made from: other results of this process, whose frames are read from the same
        folder, keep theirs.
        """
        if self.folder is None:
            return GaussianSequence(list(made))
        for left in set(self.folder.glob("frame_*.safetensors")) - _FRAMES:  # by a process that has ended
            left.unlink()
        frames: list[Gaussians | Path] = []
        kernel, lock = 0.0, self.lock
        for number, gaussians in enumerate(made):
            kernel = gaussians.kernel_size
            values = {name: getattr(gaussians, name) for name in TENSORS}
            path = None if self.folder is None else self.folder / f"frame_{key}_{number:05d}.safetensors"
            if path is not None and self._write(path, values):
                _FRAMES.add(path)
                frames.append(path)
            else:
                frames.append(gaussians)

        def read(number: int) -> Gaussians:
            assert lock is not None  # the folder is this process's as long as its frames are read
            frame = frames[number]
            if isinstance(frame, Gaussians):
                return frame
            return Gaussians(**{name: value.to(device) for name, value in _read(frame).items()}, kernel_size=kernel)

        return GaussianSequence(LazySequence(len(frames), read))

    def _write(self, path: Path, tensors: dict[str, Tensor]) -> bool:
        try:
            with written_atomically(path) as temporary:
                save_file({name: value.contiguous().cpu() for name, value in tensors.items()}, temporary)
        except (OSError, SafetensorError) as error:
            self._give_up(error)
            return False
        return True

    def _give_up(self, error: Exception) -> None:
        self.folder = None
        warnings.warn(f"finished stages cannot be kept ({error})", stacklevel=3)


def _read(path: Path) -> dict[str, Tensor]:
    """A file's tensors, by a name of any bytes; safetensors' own function takes UTF-8 alone."""
    return load(path.read_bytes())


class FolderLock:
    """A folder that no other process has, as long as this object is there."""

    def __init__(self, folder: Path, descriptor: int):
        self.folder = folder
        weakref.finalize(self, os.close, descriptor)


def claim(folder: Path) -> FolderLock | None:
    """A folder for this process alone, made where there is none; None, with a warning, where that cannot be or another
    process has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (lock := _lock(folder)) is not None:
            return lock
        warnings.warn(f"another run uses {folder.parent}: finished stages of this one are not kept", stacklevel=2)
    except OSError as error:
        warnings.warn(f"finished stages cannot be kept ({error})", stacklevel=2)
    return None


# Folders that this process has, by device and inode; and files of Gaussians in them that it has written.
_LOCKS: weakref.WeakValueDictionary[tuple[int, int], FolderLock] = weakref.WeakValueDictionary()
_FRAMES: set[Path] = set()


def _lock(folder: Path) -> FolderLock | None:
    """This process's lock of a folder; None where another process has it."""
    descriptor = os.open(folder, os.O_RDONLY)
    place = os.fstat(descriptor).st_dev, os.fstat(descriptor).st_ino
    if (known := _LOCKS.get(place)) is not None:
        os.close(descriptor)
        return known
    if not locked(descriptor):
        os.close(descriptor)
        return None
    lock = _LOCKS[place] = FolderLock(folder, descriptor)
    return lock


def key_of(*parts: Any) -> str:
    """A short digest of arrays, tensors and values that JSON can hold."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray | Tensor):
            array = np.ascontiguousarray(part if isinstance(part, np.ndarray) else part.cpu().numpy())
            digest.update(f"{array.dtype}{array.shape}".encode())
            digest.update(array.data)
        else:
            digest.update(json.dumps(part, sort_keys=True).encode())
        digest.update(b";")
    return digest.hexdigest()[:16]
