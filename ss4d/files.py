"""Files: written atomically, sorted naturally, told apart by their content."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def publish(temporary: str | os.PathLike[str], path: Path) -> None:
    """Give a finished file its name, readable to all who may enter its folder: safetensors, and temporary files of
    Python, are their owner's alone."""
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)


@contextmanager
def written_atomically(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; it becomes `path` at the end, and is removed if something fails."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def locked(descriptor: int) -> bool:
    """Lock an open folder for as long as this process keeps it open; False where another process has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks
    return True


def unlock(descriptor: int) -> None:
    """Give up the lock of an open folder, also for processes that were forked meanwhile and have it open."""
    with suppress(OSError):  # a file system without locks
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def content_hash(paths: Iterable[Path]) -> str:
    """SHA-256 of the contents of files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def natural_key(path: Path) -> list[int | str]:
    """Sorts file names by the numbers in them: frame9 comes before frame10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path.name)]


def use_writable_numba_cache() -> None:
    """Give numba a folder for compiled code where neither the package nor the home folder can be written.

    Call it before numba is imported. `NUMBA_CACHE_DIR` is left alone where it is set.
    """
    if "NUMBA_CACHE_DIR" in os.environ:
        return
    package = Path(__file__).parent
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path(os.path.expanduser("~")) / ".cache") / "numba"
    if not any(_can_write(folder) for folder in (package, home)):
        shared = Path(tempfile.gettempdir()) / f"ss4d-numba-{os.getuid()}"
        with suppress(FileExistsError):
            shared.mkdir(mode=0o700)
        # Compiled code is run: never from a folder that somebody else has made.
        mine = not shared.is_symlink() and shared.stat().st_uid == os.getuid()
        os.environ["NUMBA_CACHE_DIR"] = str(shared if mine else tempfile.mkdtemp(prefix="ss4d-numba-"))


def _can_write(folder: Path) -> bool:
    """Whether files can be made in a folder, or in the nearest one above it that exists."""
    existing = next((place for place in (folder, *folder.parents) if os.path.exists(place)), None)
    return existing is not None and os.access(existing, os.W_OK | os.X_OK)
