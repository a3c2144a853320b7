"""Files: written atomically, sorted naturally, told apart by their content."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path


def publish(temporary: str | os.PathLike[str], path: Path) -> None:
    """Give a finished file its name, readable to all who may enter its folder: safetensors, and temporary files of
    Python, are their owner's alone."""
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)


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
