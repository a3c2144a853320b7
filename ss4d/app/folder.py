"""The app's folder for uploads and results, which no run leaves behind."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ss4d.files import locked

PREFIX = "ss4d-app-"


@contextmanager
def work_folder() -> Iterator[Path]:
    """A new folder among the temporary files, removed at the end; those of apps that were killed go now."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            remove_abandoned(folder)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    lock = os.open(folder, os.O_RDONLY)  # the kernel lets go of it when the process ends, however that happens
    try:
        locked(lock)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def remove_abandoned(folder: Path) -> None:
    """Remove a folder of ours whose app no longer runs."""
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        return
    lock = os.open(folder, os.O_RDONLY)
    try:
        if locked(lock):
            shutil.rmtree(folder)
    finally:
        os.close(lock)
