"""Decoder of the 4D Sparse VAE: voxel latents of a clip to Gaussians (paper §4.1, §5)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import normalize, softplus

from ss4d.config import check_value, did_you_mean
from ss4d.cube import voxel_centres
from ss4d.gaussians.gaussians import Gaussians, GaussianSequence
from ss4d.hammersley import radical_inverse
from ss4d.models.base import check_choice
from ss4d.models.sparse_vae import SparseTransformer, SparseTransformerOptions
from ss4d.sparse import SparseTensor

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
        _check_representation(self.representation_config)


_REPRESENTATION: dict[str, tuple[Any, dict[str, float]]] = {  # type and limits of each entry
    "num_gaussians": (int, {"at_least": 1}),
    "voxel_size": (float, {"above": 1}),  # up to 1, an offset could not reach the points of `perturb_offset`
    "lr": (dict[str, float], {}),
    "perturb_offset": (bool, {}),
    "3d_filter_kernel_size": (float, {"at_least": 0}),
    "2d_filter_kernel_size": (float, {"at_least": 0}),
    "scaling_bias": (float, {"above": 0}),
    "opacity_bias": (float, {"above": 0, "below": 1}),
    "scaling_activation": (str, {}),
}


def _check_representation(config: Mapping[str, Any]) -> None:
    """Raise a ValueError unless `representation_config` is complete and possible."""
    _check_keys(config, _REPRESENTATION, "representation_config")
    for key, (kind, limits) in _REPRESENTATION.items():
        check_value(config[key], kind, f"representation_config.{key}", **limits)
    _check_keys(config["lr"], _GROUPS, "representation_config.lr")
    check_choice("scaling_activation", config["scaling_activation"], ("softplus", "exp"))


def _check_keys(given: Mapping[str, Any], known: Iterable[str], name: str) -> None:
    choices = list(known)
    for key in given:
        if key not in choices:
            raise ValueError(f"{name}.{key} is unknown: {did_you_mean(key, choices, ', '.join(choices))}")
    if missing := [key for key in choices if key not in given]:
        raise ValueError(f"{name} lacks {', '.join(missing)}")


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
        """The Gaussians of one video's frames as they are decoded, with the memory of a few frames; see `stream`."""
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
        centre = voxel_centres(out.coords[:, None, 2:], self.resolution)
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
