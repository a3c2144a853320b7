"""The trainer's state on disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch


def save_state(state: dict[str, Any], path: Path) -> None:
    """Write tensors and plain values; the file appears whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote, without unpickling code."""
    return torch.load(path, map_location="cpu", weights_only=True)
