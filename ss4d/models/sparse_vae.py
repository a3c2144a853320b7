"""4D Sparse VAE: voxel features of a clip to latents, and latents to Gaussians (paper §4.1, §5)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import normalize, softplus

from ss4d.config import check_value
from ss4d.gaussians.gaussians import Gaussians, GaussianSequence
from ss4d.hammersley import radical_inverse
from ss4d.models.base import SparsePosterior, TorsoModel, check_choice, zero
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
        ValueError: a choice that is not there, or channels that do not divide into heads.
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
        _ = self.heads  # checked here

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
        """
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


# Channels of one Gaussian in the decoder's output, in order.
_GROUPS = {"_xyz": 3, "_features_dc": 3, "_scaling": 3, "_rotation": 4, "_opacity": 1}


@dataclass(frozen=True, kw_only=True)
class GaussianDecoderOptions(SparseTransformerOptions):
    """Arguments of `GaussianDecoder`.

    `representation_config` is the released one: `num_gaussians` per voxel, `voxel_size` (reach of an offset in voxels),
    `lr` (gain of each channel group), `perturb_offset`, `3d_filter_kernel_size` (least standard deviation),
    `2d_filter_kernel_size` (the rasteriser's `kernel_size`), `scaling_bias`, `opacity_bias`,
    `scaling_activation` ("softplus" or "exp").
    """

    representation_config: dict[str, Any]

    def __post_init__(self) -> None:
        super().__post_init__()
        config = self.representation_config
        check_choice("scaling_activation", config["scaling_activation"], ("softplus", "exp"))
        check_value(config["num_gaussians"], int, "representation_config.num_gaussians", at_least=1)


class GaussianDecoder(SparseTransformer):
    """Voxel latents -> `num_gaussians` Gaussians around every voxel, a `GaussianSequence` per video."""

    def __init__(self, options: GaussianDecoderOptions):
        config = dict(options.representation_config)
        super().__init__(options, options.latent_channels, config["num_gaussians"] * sum(_GROUPS.values()))
        self.config = config
        points = low_discrepancy_points(config["num_gaussians"])
        # Part of a checkpoint whether `perturb_offset` uses it or not, as in the released class.
        self.register_buffer("offset_perturbation", torch.atanh((2 * points - 1) / config["voxel_size"]).float())

    def forward(self, z: SparseTensor) -> list[GaussianSequence]:
        """Latents [N, latent_channels] -> for each video its frames, of num_gaussians per voxel."""
        gaussians = self.to_gaussians(self.features(z))
        longest, per_voxel = max(z.num_frames, default=0), self.config["num_gaussians"]
        lengths = [per_voxel * n for n in z.geometry.frame_segments(longest).lengths]
        frames = gaussians.split(lengths)
        return [
            GaussianSequence(frames[video * longest : video * longest + count])
            for video, count in enumerate(z.num_frames)
        ]

    def frames(self, z: SparseTensor) -> Iterator[Gaussians]:
        """The Gaussians of one video's frames as they are decoded, with the memory of a few frames (`stream`)."""
        return (self.to_gaussians(frame) for frame in self.stream(z))

    def to_gaussians(self, out: SparseTensor) -> Gaussians:
        """Decoder output [N, 14 G] to activated Gaussians [N * G], the Gaussian's index running fastest.

        Position: the voxel's centre + tanh(raw + P) voxel_size / (2 resolution), with P the points of a Hammersley set,
        so that a new model spreads the Gaussians of a voxel evenly. Opacity: sigmoid(raw + logit(opacity_bias)).
        Rotation: normalise(raw + (1, 0, 0, 0)). Scale: see `_scale`.
        """
        config, count = self.config, self.config["num_gaussians"]
        raw = {}
        for name, channels in zip(
            _GROUPS, out.feats.float().split([count * n for n in _GROUPS.values()], dim=1), strict=True
        ):
            raw[name] = rearrange(channels, "n (g c) -> n g c", g=count) * config["lr"][name]
        offset = raw["_xyz"] + self.offset_perturbation if config["perturb_offset"] else raw["_xyz"]
        offset = offset.tanh() * (0.5 * config["voxel_size"] / self.resolution)
        centre = (out.coords[:, None, 2:].float() + 0.5) / self.resolution - 0.5
        identity = torch.tensor([1.0, 0, 0, 0], device=offset.device)
        opacity_bias = math.log(config["opacity_bias"] / (1 - config["opacity_bias"]))
        flat = "n g c -> (n g) c"
        return Gaussians(
            xyz=rearrange(centre + offset, flat),
            scale=rearrange(self._scale(raw["_scaling"]), flat),
            rotation=rearrange(normalize(raw["_rotation"] + identity, dim=-1), flat),
            opacity=rearrange(torch.sigmoid(raw["_opacity"] + opacity_bias), flat),
            sh=rearrange(raw["_features_dc"], "n g c -> (n g) 1 c"),
            kernel_size=config["2d_filter_kernel_size"],
        )

    def _scale(self, raw: Tensor) -> Tensor:
        """[..., 3] -> standard deviations sqrt(softplus(raw + softplus^-1(b))^2 + f^2).

        b is the scale where raw is zero, f the smallest one.
        """
        bias, floor = self.config["scaling_bias"], self.config["3d_filter_kernel_size"]
        if self.config["scaling_activation"] == "softplus":
            scale = softplus(raw + bias + math.log(-math.expm1(-bias)))
        else:
            scale = torch.exp(raw + math.log(bias))
        return torch.sqrt(scale.square() + floor**2)


def low_discrepancy_points(count: int) -> Tensor:
    """Hammersley points in the unit cube, float64 [count, 3]: i / count and radical inverses in base 2 and 3."""
    rows = [[i / count, radical_inverse(i, 2), radical_inverse(i, 3)] for i in range(count)]
    return torch.tensor(rows, dtype=torch.float64)
