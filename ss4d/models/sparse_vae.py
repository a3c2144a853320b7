"""4D Sparse VAE: the transformer that its encoder and its decoder (`ss4d.models.gaussian_decoder`) share, and the
encoder, from voxel features of a clip to latents (paper §4.1, §5)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ss4d.models.base import SparsePosterior, TorsoModel, check_choice, check_counts, check_rotation, zero
from ss4d.nn import (
    FrameRotation,
    LayerNorm32,
    SelfAttentionPlan,
    SelfBlock,
    absolute_position_embedding,
    num_heads_of,
)
from ss4d.sparse import Geometry, SparseTensor, window_partition


@dataclass(frozen=True, kw_only=True)
class SparseTransformerOptions:
    """Arguments of encoder and decoder; the names are those of the released JSON files.

    Raises:
        ValueError: a choice that is not there, or channels that do not divide into heads (of pairs, for "rope_t").
    """

    resolution: int  # voxels along one side
    model_channels: int
    latent_channels: int
    num_blocks: int
    num_heads: int | None = None  # by default model_channels // num_head_channels
    num_head_channels: int = 64
    mlp_ratio: float = 4  # width of the feed-forward layer over model_channels
    attn_mode: str = "swin"  # windows, shifted in odd blocks; "windowed": never shifted; "full": no windows
    window_size: int = 8  # voxels along x, y and z and, with temporal alignment, frames
    pe_mode: str = "ape"  # absolute xyz embedding; "rope_t": queries and keys are turned by their frame as well
    use_fp16: bool = True
    use_checkpoint: bool = True  # recompute the activations of all blocks in the backward pass
    qk_rms_norm: bool = False
    expand_self_attn: bool | None = None  # temporal alignment (paper Eq. 2): windows span frames as well. Off, frames
    # are alone, which is TRELLIS. By default on where `pe_mode` is "rope_t"

    def __post_init__(self) -> None:
        check_choice("attn_mode", self.attn_mode, ("swin", "windowed", "full"))
        check_choice("pe_mode", self.pe_mode, ("rope_t", "ape"))
        check_counts(self, "resolution", "window_size", "num_heads", "num_head_channels")
        check_rotation(self.pe_mode, self.model_channels // self.heads)

    @property
    def heads(self) -> int:
        return num_heads_of(self.model_channels, self.num_heads, self.num_head_channels)

    @property
    def over_time(self) -> bool:
        return self.pe_mode == "rope_t" if self.expand_self_attn is None else self.expand_self_attn


class SparseTransformer(TorsoModel):
    """Linear, position, windowed self-attention blocks, norm, linear: the body of encoder and decoder."""

    def __init__(self, options: SparseTransformerOptions, in_channels: int, out_channels: int):
        super().__init__()
        channels, heads = options.model_channels, options.heads
        self.resolution, self.head_channels = options.resolution, channels // heads
        self.attn_mode, self.window_size = options.attn_mode, options.window_size
        self.expand_self_attn, self.rotate = options.over_time, options.pe_mode == "rope_t"
        self.use_checkpoint = options.use_checkpoint
        self.input_layer = nn.Linear(in_channels, channels)
        self.blocks = nn.ModuleList(
            SelfBlock(channels, heads, options.mlp_ratio, options.qk_rms_norm) for _ in range(options.num_blocks)
        )
        self.norm = LayerNorm32(channels, elementwise_affine=False, eps=1e-5)
        self.out_layer = zero(nn.Linear(channels, out_channels))
        if options.use_fp16:
            self.set_dtype(torch.float16)

    def torso(self) -> Iterable[nn.Module]:
        return [self.blocks]

    def features(self, x: SparseTensor) -> SparseTensor:
        """Voxel features [N, in_channels] -> [N, out_channels], rows in x's order."""
        h = self._enter(x)
        for i, block in enumerate(self.blocks):
            h = self.run_block(block, h, self._plan(x.geometry, i))
        return x.replace(self.out_layer(self.norm(h.to(x.dtype))))

    def stream(self, x: SparseTensor) -> Iterator[SparseTensor]:
        """What `features` gives for one video, frame by frame, with the memory of a few frames.

        A block needs the frames of its own temporal window alone. So frames flow through the blocks, each of which
        waits until its window is full: no more than half a window is held between two blocks.

        Raises:
            ValueError: more than one video.
        """
        if x.num_videos != 1:
            raise ValueError(f"one video can be decoded frame by frame, not {x.num_videos}: pass them one by one")
        lengths = x.geometry.frame_segments(x.num_frames[0]).lengths
        frames = (
            SparseTensor.on(Geometry(coords, x.num_frames, declared=True), feats)
            for coords, feats in zip(x.coords.split(lengths), x.feats.split(lengths), strict=True)
        )
        flow: Iterator[SparseTensor] = (x.replace(self._enter(x)) for x in frames)
        for index in range(len(self.blocks)):
            flow = self._through(index, flow)
        for frame in flow:
            yield frame.replace(self.out_layer(self.norm(frame.feats.to(x.dtype))))

    def _through(self, index: int, frames: Iterator[SparseTensor]) -> Iterator[SparseTensor]:
        """One block on frames as they come, a temporal window at a time."""
        whole = self.attn_mode == "full" and self.expand_self_attn
        waiting: list[SparseTensor] = []
        for number, frame in enumerate(frames, 1):
            waiting.append(frame)
            window_full = (number + self._shift(index)) % self.window_size == 0 and not whole
            if window_full or number == frame.num_frames[0]:
                done, waiting = self._windowful(index, waiting), []
                while done:
                    yield done.pop(0)

    def _windowful(self, index: int, frames: list[SparseTensor]) -> list[SparseTensor]:
        """One block on the frames of a temporal window."""
        geometry = Geometry(torch.cat([frame.coords for frame in frames]), frames[0].num_frames, declared=True)
        h = self.blocks[index](torch.cat([frame.feats for frame in frames]), self._plan(geometry, index))
        parts = h.split([len(frame) for frame in frames])
        return [frame.replace(feats) for frame, feats in zip(frames, parts, strict=True)]

    def _enter(self, x: SparseTensor) -> Tensor:
        """Tokens [N, model_channels] of voxel features [N, in_channels]."""
        channels = self.input_layer.in_features
        if x.feats.shape[1] != channels:
            raise ValueError(f"the model takes {channels} channels per voxel, got {x.feats.shape[1]}")
        h = self.input_layer(x.feats)
        return (h + absolute_position_embedding(x.coords[:, 2:], h.shape[1])).to(self.dtype)

    def _shift(self, block: int) -> int:
        """Voxels and frames by which the windows of a block are shifted."""
        return self.window_size // 2 if self.attn_mode == "swin" and block % 2 else 0

    def _plan(self, geometry: Geometry, block: int) -> SelfAttentionPlan:
        """Who attends to whom in one block: the voxels of a (shifted) window, or those of a video or a frame."""
        if self.attn_mode == "full":
            longest = max(geometry.num_frames, default=0)
            whole = geometry.video_segments if self.expand_self_attn else geometry.frame_segments(longest)
            return SelfAttentionPlan(whole, rotation=self._rotation(geometry))
        shift = self._shift(block)
        windows = window_partition(geometry, self.window_size, shift, over_time=self.expand_self_attn)
        return SelfAttentionPlan(windows.segments, windows.order, self._rotation(geometry, shift))

    def _rotation(self, geometry: Geometry, shift: int | None = None) -> FrameRotation | None:
        """Of all voxels by their frame, where windows span frames: in the order of the windows of a shift, if given.
        Cached in the geometry."""
        if not (self.rotate and self.expand_self_attn):
            return None

        def build() -> FrameRotation:
            frames = geometry.coords[:, 1]
            if shift is not None:
                windows = window_partition(geometry, self.window_size, shift, over_time=True)
                frames = frames.index_select(0, windows.order)
            return FrameRotation(frames, self.head_channels)

        return geometry.cached(("rotation", self.head_channels, self.window_size, shift), build)


@dataclass(frozen=True, kw_only=True)
class SparseEncoderOptions(SparseTransformerOptions):
    """Arguments of `SparseEncoder`."""

    in_channels: int  # of a voxel's features


class SparseEncoder(SparseTransformer):
    """Voxel features -> posterior over latents of `latent_channels` per voxel."""

    def __init__(self, options: SparseEncoderOptions):
        super().__init__(options, options.in_channels, 2 * options.latent_channels)

    def forward(self, x: SparseTensor) -> SparsePosterior:
        """Features [N, in_channels] -> mean and log variance, each [N, latent_channels], on the same voxels."""
        out = self.features(x)
        mean, logvar = out.feats.chunk(2, dim=1)
        return SparsePosterior(x.replace(mean), x.replace(logvar))
