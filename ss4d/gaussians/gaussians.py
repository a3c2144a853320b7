"""3D Gaussians as plain activated tensors, and a clip of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import overload

import torch
from torch import Tensor

SH_DEGREE_0 = 0.28209479177387814  # 1 / (2 sqrt(pi)), the constant spherical harmonic


@dataclass
class Gaussians:
    """M Gaussians, every value activated. M = 0 is legal.

    Raises ValueError when a shape does not fit `xyz`.
    """

    xyz: Tensor  # [M, 3] centres, world units, the object in [-0.5, 0.5]^3, z up
    scale: Tensor  # [M, 3] standard deviations along the principal axes, world units
    rotation: Tensor  # [M, 4] unit quaternions (w, x, y, z), principal axes to world
    opacity: Tensor  # [M, 1] in (0, 1)
    sh: Tensor  # [M, 1, 3] degree-0 spherical harmonics, see `rgb`

    def __post_init__(self) -> None:
        count = self.xyz.shape[0] if self.xyz.ndim else 0
        expected = {"xyz": (3,), "scale": (3,), "rotation": (4,), "opacity": (1,), "sh": (1, 3)}
        for name, rest in expected.items():
            shape = tuple(getattr(self, name).shape)
            if shape != (count, *rest):
                raise ValueError(f"Gaussians.{name} must have shape {[count, *rest]}, but it has {list(shape)}.")

    def __len__(self) -> int:
        return self.xyz.shape[0]

    @property
    def rgb(self) -> Tensor:
        """Colours [M, 3], nominally sRGB in [0, 1] and not clamped: 0.5 + SH_DEGREE_0 * sh."""
        return 0.5 + SH_DEGREE_0 * self.sh[:, 0]

    def to(self, device: torch.device | str) -> Gaussians:
        """The same Gaussians on another device."""
        return Gaussians(*(getattr(self, field.name).to(device) for field in fields(self)))

    def detach(self) -> Gaussians:
        """The same Gaussians, cut from the autograd graph."""
        return Gaussians(*(getattr(self, field.name).detach() for field in fields(self)))


class GaussianSequence:
    """The Gaussians of a clip, one set a frame; the sets may differ in size."""

    def __init__(self, frames: Sequence[Gaussians]) -> None:
        self.frames = list(frames)

    def __len__(self) -> int:
        return len(self.frames)

    @overload
    def __getitem__(self, index: int) -> Gaussians: ...
    @overload
    def __getitem__(self, index: slice) -> GaussianSequence: ...
    def __getitem__(self, index: int | slice) -> Gaussians | GaussianSequence:
        if isinstance(index, slice):
            return GaussianSequence(self.frames[index])
        return self.frames[index]

    def __iter__(self) -> Iterator[Gaussians]:
        return iter(self.frames)

    @property
    def num_gaussians(self) -> list[int]:
        """The number of Gaussians of each frame."""
        return [len(frame) for frame in self.frames]

    def to(self, device: torch.device | str) -> GaussianSequence:
        """The same clip on another device."""
        return GaussianSequence([frame.to(device) for frame in self.frames])

    def detach(self) -> GaussianSequence:
        """The same clip, cut from the autograd graph."""
        return GaussianSequence([frame.detach() for frame in self.frames])
