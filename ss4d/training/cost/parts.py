"""What is counted: the work of a step, and the cost of a model by the parts that can be recomputed."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ss4d.training.cost.voxels import VoxelStatistics, measured_statistics

FLOAT32 = 4  # bytes


@dataclass(frozen=True)
class Workload:
    """The batch of one device in one step."""

    videos: int
    frames: int  # of each video
    resolution: int  # voxels along a side of the grid
    voxels: float = 0  # occupied ones of a mean frame; sparse models
    image_tokens: int = 0  # of a frame's conditioning image; flows
    measured: VoxelStatistics | None = None  # of these voxels; None takes those of the prepared set

    @property
    def statistics(self) -> VoxelStatistics:
        return self.measured or measured_statistics(self.resolution)

    @property
    def rows(self) -> int:
        """Frames of all videos."""
        return self.videos * self.frames


@dataclass(frozen=True)
class Part:
    """Cost of some layers in the forward pass; parts add up.

    Attributes:
        flops: 2 a multiply-add, of matrix products, convolutions and attention alone.
        working: elements kept for the backward pass in autocast's type.
        full: elements kept in float32: inputs of norms, the residual stream.
        casts: elements kept in float32 beside others, where autocast's type is another.
        entry: elements of the input, all that is kept where the part is recomputed (the residual stream, float32).
    """

    flops: float = 0
    working: float = 0
    full: float = 0
    casts: float = 0
    entry: float = 0

    def __add__(self, other: Part) -> Part:
        return Part(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Part)))

    def kept_bytes(self, element_size: int) -> float:
        """Bytes kept for the backward pass, with `element_size` bytes in autocast's type (4: no autocast)."""
        casts = self.casts if element_size < FLOAT32 else 0
        return self.working * element_size + (self.full + casts) * FLOAT32


@dataclass(frozen=True)
class Cost:
    """Cost of one forward pass of a model.

    Attributes:
        parameters: their number.
        ends: what is never recomputed.
        blocks: what `TorsoModel.run_block` calls, in that order; with n blocks recomputed, these are the first n.
    """

    parameters: int
    ends: Part
    blocks: tuple[Part, ...] = ()

    @property
    def flops(self) -> float:
        return self.ends.flops + sum(block.flops for block in self.blocks)

    def activation_bytes(self, element_size: int, recomputed: int = 0) -> float:
        """Bytes kept for the backward pass at its peak, when the first `recomputed` blocks keep their input alone.

        Of these, one at a time has all its activations back.
        """
        light, heavy = self.blocks[:recomputed], self.blocks[recomputed:]
        kept = self.ends.kept_bytes(element_size) + sum(block.kept_bytes(element_size) for block in heavy)
        entries = sum(block.entry * FLOAT32 for block in light)
        return kept + entries + max((block.kept_bytes(element_size) for block in light), default=0)

    def step_flops(self, recomputed: int = 0) -> float:
        """Of a training step: the backward pass costs two forwards, and what is recomputed a third."""
        return 3 * self.flops + sum(block.flops for block in self.blocks[:recomputed])
