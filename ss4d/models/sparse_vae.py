"""4D Sparse VAE: voxel features of a clip to latents, and latents to Gaussians (paper §4.1, §5)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, softplus

from ss4d.gaussians.gaussians import Gaussians, GaussianSequence
from ss4d.hammersley import radical_inverse
from ss4d.models.base import SparsePosterior, TorsoModel, check_choice, num_heads_of, zero
from ss4d.nn import FrameRotation, LayerNorm32, SelfAttentionPlan, SelfBlock, absolute_position_embedding
from ss4d.sparse import Geometry, SparseTensor, window_partition


class SparseTransformer(TorsoModel):
    """Linear, position, windowed self-attention blocks, norm, linear: the body of encoder and decoder.

    Args:
        attn_mode: "swin" (windows, shifted in odd blocks), "windowed" (never shifted) or "full".
        expand_self_attn: temporal alignment: windows (or full attention) span frames as well. Off, frames are
            alone, which is TRELLIS. By default on where `pe_mode` is "rope_t".
    """

    def __init__(
        self,
        resolution: int,
        in_channels: int,
        model_channels: int,
        out_channels: int,
        num_blocks: int,
        num_heads: int | None = None,
        num_head_channels: int = 64,
        mlp_ratio: float = 4,
        attn_mode: str = "swin",
        window_size: int = 8,
        pe_mode: str = "ape",
        use_fp16: bool = True,
        use_checkpoint: bool = True,
        qk_rms_norm: bool = False,
        expand_self_attn: bool | None = None,
    ):
        super().__init__()
        check_choice("attn_mode", attn_mode, ("swin", "windowed", "full"))
        check_choice("pe_mode", pe_mode, ("rope_t", "ape"))
        heads = num_heads_of(model_channels, num_heads, num_head_channels)
        self.resolution, self.head_channels = resolution, model_channels // heads
        self.attn_mode, self.window_size = attn_mode, window_size
        self.expand_self_attn = pe_mode == "rope_t" if expand_self_attn is None else expand_self_attn
        self.rotate, self.use_checkpoint = pe_mode == "rope_t", use_checkpoint
        self.input_layer = nn.Linear(in_channels, model_channels)
        self.blocks = nn.ModuleList(SelfBlock(model_channels, heads, mlp_ratio, qk_rms_norm) for _ in range(num_blocks))
        self.norm = LayerNorm32(model_channels, elementwise_affine=False, eps=1e-5)
        self.out_layer = zero(nn.Linear(model_channels, out_channels))
        if use_fp16:
            self.set_dtype(torch.float16)

    def torso(self) -> Iterable[nn.Module]:
        return [self.blocks]

    def features(self, x: SparseTensor) -> SparseTensor:
        """Voxel features [N, in] -> [N, out], rows in x's order."""
        if x.feats.shape[1] != self.input_layer.in_features:
            raise ValueError(f"the model takes {self.input_layer.in_features} channels a voxel, got {x.feats.shape[1]}")
        h = self.input_layer(x.feats)
        h = (h + absolute_position_embedding(x.coords[:, 2:], h.shape[1])).to(self.dtype)
        rotation = self._rotation(x.geometry)
        for i, block in enumerate(self.blocks):
            h = self.run_block(block, h, self._plan(x.geometry, i, rotation))
        return x.replace(self.out_layer(self.norm(h.to(x.dtype))))

    def _rotation(self, geometry: Geometry) -> FrameRotation | None:
        if not (self.rotate and self.expand_self_attn):
            return None
        return FrameRotation(geometry.coords[:, 1], self.head_channels)

    def _plan(self, geometry: Geometry, block: int, rotation: FrameRotation | None) -> SelfAttentionPlan:
        if self.attn_mode == "full":
            longest = max(geometry.num_frames, default=0)
            whole = geometry.video_segments if self.expand_self_attn else geometry.frame_segments(longest)
            return SelfAttentionPlan(whole, rotation=rotation)
        shift = self.window_size // 2 if self.attn_mode == "swin" and block % 2 else 0
        windows = window_partition(geometry, self.window_size, shift, over_time=self.expand_self_attn)
        return SelfAttentionPlan(windows.segments, windows.order, windows.inverse, rotation)


class SparseEncoder(SparseTransformer):
    """Voxel features -> posterior over latents of `latent_channels` a voxel."""

    def __init__(
        self,
        resolution: int,
        in_channels: int,
        model_channels: int,
        latent_channels: int,
        num_blocks: int,
        **body: Any,
    ):
        super().__init__(resolution, in_channels, model_channels, 2 * latent_channels, num_blocks, **body)

    def forward(self, x: SparseTensor) -> SparsePosterior:
        out = self.features(x)
        mean, logvar = out.feats.chunk(2, dim=1)
        return SparsePosterior(x.replace(mean), x.replace(logvar))


# Channels of one Gaussian in the decoder's output, in order.
_GROUPS = {"_xyz": 3, "_features_dc": 3, "_scaling": 3, "_rotation": 4, "_opacity": 1}


class GaussianDecoder(SparseTransformer):
    """Voxel latents -> `num_gaussians` Gaussians around every voxel, a `GaussianSequence` a video.

    `representation_config` is the released one: `num_gaussians`, `voxel_size` (reach of an offset in voxels),
    `lr` (gain of each channel group), `perturb_offset`, `3d_filter_kernel_size` (least standard deviation),
    `2d_filter_kernel_size` (the rasteriser's `kernel_size`), `scaling_bias`, `opacity_bias`,
    `scaling_activation` ("softplus" or "exp").
    """

    def __init__(
        self,
        resolution: int,
        model_channels: int,
        latent_channels: int,
        num_blocks: int,
        representation_config: dict[str, Any],
        **body: Any,
    ):
        config = dict(representation_config)
        check_choice("scaling_activation", config["scaling_activation"], ("softplus", "exp"))
        out_channels = config["num_gaussians"] * sum(_GROUPS.values())
        super().__init__(resolution, latent_channels, model_channels, out_channels, num_blocks, **body)
        self.config = config
        if config["perturb_offset"]:
            points = low_discrepancy_points(config["num_gaussians"])
            self.register_buffer("offset_perturbation", torch.atanh((2 * points - 1) / config["voxel_size"]).float())
        else:
            self.offset_perturbation = None

    def forward(self, z: SparseTensor) -> list[GaussianSequence]:
        gaussians = self.to_gaussians(self.features(z))
        longest, per_voxel = max(z.num_frames, default=0), self.config["num_gaussians"]
        lengths = [per_voxel * n for n in z.geometry.frame_segments(longest).lengths]
        frames = gaussians.split(lengths)
        return [
            GaussianSequence(frames[video * longest : video * longest + count])
            for video, count in enumerate(z.num_frames)
        ]

    def to_gaussians(self, out: SparseTensor) -> Gaussians:
        """Decoder output [N, 14 G] to activated Gaussians [N * G], the Gaussian's index running fastest."""
        config, count = self.config, self.config["num_gaussians"]
        raw = {}
        for name, channels in zip(
            _GROUPS, out.feats.float().split([count * n for n in _GROUPS.values()], dim=1), strict=True
        ):
            raw[name] = channels.unflatten(1, (count, -1)) * config["lr"][name]
        offset = raw["_xyz"] if self.offset_perturbation is None else raw["_xyz"] + self.offset_perturbation
        offset = offset.tanh() * (0.5 * config["voxel_size"] / self.resolution)
        centre = (out.coords[:, None, 2:].float() + 0.5) / self.resolution - 0.5
        identity = torch.tensor([1.0, 0, 0, 0], device=offset.device)
        opacity_bias = math.log(config["opacity_bias"] / (1 - config["opacity_bias"]))
        return Gaussians(
            xyz=(centre + offset).flatten(0, 1),
            scale=self._scale(raw["_scaling"]).flatten(0, 1),
            rotation=normalize(raw["_rotation"] + identity, dim=-1).flatten(0, 1),
            opacity=torch.sigmoid(raw["_opacity"] + opacity_bias).flatten(0, 1),
            sh=raw["_features_dc"].flatten(0, 1)[:, None],
            kernel_size=config["2d_filter_kernel_size"],
        )

    def _scale(self, raw: Tensor) -> Tensor:
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
