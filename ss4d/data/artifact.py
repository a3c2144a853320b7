"""Reading the safetensors files of a prepared set frame by frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ss4d.data.format import artifact_path
from ss4d.sparse import SparseTensor


@dataclass(frozen=True)
class VoxelRows:
    """Voxels of some frames of a clip, each with a row of values."""

    coords: Tensor  # int32 [N, 4] = (frame, x, y, z), frames numbered from 0
    values: Tensor  # float32 [N, C]
    num_frames: int


@dataclass(frozen=True)
class Artifact:
    """One file, `ROOT/<stage>/<clip>.safetensors`. Each call opens it anew (this only maps it into memory), so it can
    be pickled and used in any process.

    All methods raise ValueError if the file is missing or damaged, has no such tensor or values that are not finite.
    """

    root: Path
    stage: str
    clip: str

    @property
    def path(self) -> Path:
        return artifact_path(self.root, self.stage, self.clip)

    def metadata(self) -> dict[str, str]:
        with self._opened() as file:
            return file.metadata() or {}

    def shape(self, name: str) -> list[int]:
        with self._opened(name) as file:
            return file.get_slice(name).get_shape()

    def frames(self, name: str, frames: Sequence[int]) -> Tensor:
        """Entries `frames` of a tensor [T, ...], float32."""
        with self._opened(name) as file:
            stored = file.get_slice(name)
            return self._finite(name, torch.cat([stored[frame : frame + 1] for frame in frames]).float())

    def coords(self, name: str, frames: Sequence[int]) -> Tensor:
        """Rows of coords [N, 4] that belong to `frames`, int32; frames are renumbered from 0 in the given order."""
        with self._opened(name) as file:
            coords = file.get_tensor(name).int()
        return _renumber(coords, self._rows(coords, frames))

    def voxels(self, coords_name: str, values_name: str, frames: Sequence[int]) -> VoxelRows:
        """`coords` and the same rows of the values [N, C]."""
        with self._opened(coords_name, values_name) as file:
            coords = file.get_tensor(coords_name).int()
            rows = self._rows(coords, frames)
            stored = file.get_slice(values_name)
            values = self._finite(values_name, torch.cat([stored[part] for part in rows]).float())
        return VoxelRows(_renumber(coords, rows), values, len(frames))

    def _rows(self, coords: Tensor, frames: Sequence[int]) -> list[slice]:
        """The rows of each frame in coords [N, 4], which must be sorted by frame."""
        frame = coords[:, 0].contiguous()
        if bool((frame[1:] < frame[:-1]).any()):
            raise ValueError(f"{self.path} is not sorted by frame: {self._remedy}")
        chosen = torch.tensor(frames, dtype=frame.dtype)
        first, end = torch.searchsorted(frame, chosen), torch.searchsorted(frame, chosen, right=True)
        return [slice(a, b) for a, b in zip(first.tolist(), end.tolist(), strict=True)]

    def _finite(self, name: str, values: Tensor) -> Tensor:
        if not bool(values.isfinite().all()):
            raise ValueError(f"{self.path}: {name} has values that are not finite: {self._remedy}")
        return values

    @property
    def _remedy(self) -> str:
        return f"delete it and run `python -m dataset_toolkits {self.stage} --root {self.root}` again"

    @contextmanager
    def _opened(self, *names: str) -> Iterator[Any]:
        """The open file, which holds tensors of these names."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, framework="pt") as file:
                held = set(file.keys())
                if missing := [name for name in names if name not in held]:
                    raise ValueError(
                        f"{self.path} has no {missing[0]}, only {', '.join(sorted(held))}: "
                        f"run the {self.stage} stage with options that make it"
                    )
                yield file
        except FileNotFoundError as error:
            remedy = f"run `python -m dataset_toolkits {self.stage} --root {self.root}` again"
            raise ValueError(f"{self.path} is missing, though the tables list it: {remedy}") from error
        except SafetensorError as error:
            raise ValueError(f"{self.path} is damaged ({error}): {self._remedy}") from error


def collate_voxels(parts: Sequence[VoxelRows]) -> SparseTensor:
    """One sparse tensor with each window as a video: coords [N, 5] = (video, frame, x, y, z)."""
    coords = [torch.nn.functional.pad(part.coords, (1, 0), value=video) for video, part in enumerate(parts)]
    lengths = [part.num_frames for part in parts]
    return SparseTensor(torch.cat([part.values for part in parts]), torch.cat(coords), num_frames=lengths)


def _renumber(coords: Tensor, rows: Sequence[slice]) -> Tensor:
    """The rows of each frame of coords [N, 4], one frame after the other, numbered from 0: [M, 4]."""
    parts = [coords[part].clone() for part in rows]
    for position, part in enumerate(parts):
        part[:, 0] = position
    return torch.cat(parts)
