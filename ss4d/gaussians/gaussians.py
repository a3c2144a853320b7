"""3D Gaussians as plain activated tensors, a clip of them, and a picture of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import overload

import torch
from torch import Tensor

from ss4d.lazy import LazySequence

SH_DEGREE_0 = 0.28209479177387814  # 1 / (2 sqrt(pi)), the constant spherical harmonic
KERNEL_SIZE = 0.1  # pixels^2, the screen filter of the released models
TENSORS = ("xyz", "scale", "rotation", "opacity", "sh")  # fields of `Gaussians` with one row per Gaussian


@dataclass
class Gaussians:
    """M Gaussians, every value activated. M = 0 is legal.

    `kernel_size` is the screen filter that the Gaussians were trained with (`2d_filter_kernel_size` of a
    checkpoint). Their scales and opacities are right under that filter alone, so it travels with them.

    Raises ValueError when a shape does not fit `xyz`, or the kernel is not positive.
    """

    xyz: Tensor  # [M, 3] centres, world units, the object in [-0.5, 0.5]^3, z up
    scale: Tensor  # [M, 3] standard deviations along the principal axes, world units
    rotation: Tensor  # [M, 4] unit quaternions (w, x, y, z), principal axes to world
    opacity: Tensor  # [M, 1] in (0, 1)
    sh: Tensor  # [M, 1, 3] degree-0 spherical harmonics, see `rgb`
    kernel_size: float = field(default=KERNEL_SIZE, kw_only=True)  # variance of the screen filter, pixels^2

    def __post_init__(self) -> None:
        count = self.xyz.shape[0] if self.xyz.ndim else 0
        expected = {"xyz": (3,), "scale": (3,), "rotation": (4,), "opacity": (1,), "sh": (1, 3)}
        for name, rest in expected.items():
            shape = tuple(getattr(self, name).shape)
            if shape != (count, *rest):
                raise ValueError(f"Gaussians.{name} must have shape {[count, *rest]}, but it has {list(shape)}.")
        if not self.kernel_size > 0:
            raise ValueError(
                f"Gaussians.kernel_size must be positive, but it is {self.kernel_size}; the released models use 0.1."
            )

    def __len__(self) -> int:
        return self.xyz.shape[0]

    @property
    def is_finite(self) -> bool:
        """Whether all values are."""
        return all(bool(getattr(self, name).isfinite().all()) for name in TENSORS)

    @property
    def rgb(self) -> Tensor:
        """Colours [M, 3], nominally sRGB in [0, 1] and not clamped: 0.5 + SH_DEGREE_0 * sh."""
        return 0.5 + SH_DEGREE_0 * self.sh[:, 0]

    def to(self, device: torch.device | str) -> Gaussians:
        """The same Gaussians on another device."""
        return replace(self, **{name: getattr(self, name).to(device) for name in TENSORS})

    def detach(self) -> Gaussians:
        """The same Gaussians, cut from the autograd graph."""
        return replace(self, **{name: getattr(self, name).detach() for name in TENSORS})

    def split(self, lengths: list[int]) -> list[Gaussians]:
        """Cut into runs of so many Gaussians, which add up to M."""
        parts = zip(*(getattr(self, name).split(lengths) for name in TENSORS), strict=True)
        return [replace(self, **dict(zip(TENSORS, part, strict=True))) for part in parts]


@dataclass
class Rendering:
    """What a camera sees of Gaussians."""

    colour: Tensor  # [3, H, W] composited over the background; in [0, 1] where the Gaussians' rgb is
    alpha: Tensor  # [1, H, W] in [0, 1], 1 - transmittance
    depth: Tensor  # [1, H, W] sum of weight times camera depth, world units; over alpha: the expected depth


class GaussianSequence:
    """The Gaussians of a clip, one set per frame; the sets may differ in size.

    Frames of a `LazySequence` (read from files, say) stay where they are until each is asked for.
    """

    def __init__(self, frames: Sequence[Gaussians]) -> None:
        self.frames: Sequence[Gaussians] = frames if isinstance(frames, LazySequence) else list(frames)

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
        return self._changed(lambda frame: frame.to(device))

    def detach(self) -> GaussianSequence:
        """The same clip, cut from the autograd graph."""
        return self._changed(lambda frame: frame.detach())

    def _changed(self, change: Callable[[Gaussians], Gaussians]) -> GaussianSequence:
        if isinstance(self.frames, LazySequence):
            return GaussianSequence(self.frames.map(change))
        return GaussianSequence([change(frame) for frame in self.frames])
