"""The prepared data set on disk: one safetensors file for each clip and a manifest for the whole.

`clips/<object>__<clip>.safetensors` holds the tensors of `CLIP_TENSORS` and, as JSON under the metadata key
`clip`, what `ClipRecord` lists. `manifest.json` lists all records, the clips left out and the failures.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

CLIP_TENSORS = {
    "coords": "int16 [N, 4] (frame, x, y, z) of the surface voxels, sorted",
    "feats": "float16 [N, F] features of the voxels, channels as in the record",
    "views": "uint8 [T, V, S, S, 4] RGBA from all around, colour not premultiplied",
    "extrinsics": "float32 [V, 4, 4] world to camera (OpenCV), the same for all frames",
    "intrinsics": "float32 [V, 3, 3] normalised by image size",
    "cond": "uint8 [K, T, C, C, 4] RGBA input videos from the front, cropped to the clip",
    "cond_extrinsics": "float32 [K, 4, 4]",
    "cond_intrinsics": "float32 [K, 3, 3] after the crop, normalised by image size",
}


@dataclass(frozen=True)
class ClipRecord:
    """What is known about one stored clip besides its tensors."""

    object_id: str
    clip: str
    file: str  # relative to the root of the data set
    split: str
    category: str
    group: str
    licence: str
    author: str | None
    source: str
    source_sha256: str
    scale: float  # normalised = (original - centre) * scale, z-up
    centre: tuple[float, float, float]
    motion_ratio: float  # longest side of the clip over that of an average frame
    num_voxels: int
    feature_channels: tuple[str, ...]
    parameters: dict[str, Any]


@dataclass(frozen=True)
class Failure:
    """An object (clip None) or clip that could not be prepared."""

    object_id: str
    clip: str | None
    error: str
    traceback: str


@dataclass(frozen=True)
class RootMotion:
    """A clip left out because the object travels through it."""

    object_id: str
    clip: str
    motion_ratio: float


@dataclass
class Manifest:
    """All clips of a data set, those left out, and failures."""

    clips: dict[str, ClipRecord] = field(default_factory=dict)  # by file
    root_motion: list[RootMotion] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def forget_problems(self, object_ids: set[str]) -> None:
        """Drop what is known to be wrong with these objects, before they are prepared again."""
        self.root_motion = [entry for entry in self.root_motion if entry.object_id not in object_ids]
        self.failures = [failure for failure in self.failures if failure.object_id not in object_ids]

    def write(self, root: Path) -> None:
        """Write `manifest.json` in one step."""
        content = {
            "format": 1,
            "tensors": CLIP_TENSORS,
            "clips": [asdict(self.clips[file]) for file in sorted(self.clips)],
            "root_motion": [asdict(entry) for entry in self.root_motion],
            "failures": [asdict(failure) for failure in self.failures],
        }
        _replace(root / "manifest.json", json.dumps(content, indent=1).encode())

    @classmethod
    def read(cls, root: Path) -> Manifest:
        """Read `manifest.json`; a data set without one is empty."""
        path = root / "manifest.json"
        if not path.exists():
            return cls()
        content = json.loads(path.read_text())
        records = [_record(entry) for entry in content["clips"]]
        return cls(
            {record.file: record for record in records},
            [RootMotion(**entry) for entry in content["root_motion"]],
            [Failure(**entry) for entry in content["failures"]],
        )


def clip_file(object_id: str, clip: str) -> str:
    """File of a clip, relative to the root: `clips/<object>__<clip>.safetensors`, odd characters as `_`."""
    name = f"{object_id.replace('/', '__')}__{clip}"
    return f"clips/{re.sub(r'[^A-Za-z0-9._+-]', '_', name)}.safetensors"


def write_clip(root: Path, record: ClipRecord, tensors: dict[str, NDArray[Any]]) -> None:
    """Store one clip in one step: a reader sees the whole file or none.

    Raises:
        ValueError: `tensors` are not those of `CLIP_TENSORS`.
    """
    if set(tensors) != set(CLIP_TENSORS):
        raise ValueError(f"a clip has the tensors {sorted(CLIP_TENSORS)}, got {sorted(tensors)}")
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    _replace(root / record.file, save(contiguous, {"clip": json.dumps(asdict(record))}))


def read_record(path: Path) -> ClipRecord | None:
    """Record of a stored clip; None where the file is missing or not a clip of this format."""
    try:
        with safe_open(path, framework="numpy") as file:
            return _record(json.loads(file.metadata()["clip"]))
    except (FileNotFoundError, SafetensorError, KeyError, TypeError, json.JSONDecodeError):
        return None


def _record(entry: dict[str, Any]) -> ClipRecord:
    centre, channels = tuple(entry["centre"]), tuple(entry["feature_channels"])
    return ClipRecord(**{**entry, "centre": centre, "feature_channels": channels})


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
