"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def publish(temporary: str | os.PathLike[str], path: Path) -> None:
    """Give a finished file its name, readable to all who may enter its folder: safetensors, and temporary files of
    Python, are their owner's alone."""
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)
