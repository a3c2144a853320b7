"""What the two flow transformers share: options, time embedding, modulated cross blocks (paper Fig. 2 right)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ss4d.models.base import TorsoModel, check_choice, check_counts, check_rotation, zero
from ss4d.models.projection import PIXEL_CHANNELS, PixelProjection
from ss4d.nn import CrossBlockOptions, LayerNorm32, ModulatedCrossBlock, TimestepEmbedder
from ss4d.nn.modulation import modulation


@dataclass(frozen=True, kw_only=True)
class FlowOptions(CrossBlockOptions):
    """Arguments of both flows; the names are those of the released JSON files.

    Raises:
        ValueError: a choice that is not there, or channels that do not divide into heads (of pairs, for "rope_t").
    """

    resolution: int  # voxels along one side of what the model works on
    in_channels: int
    out_channels: int
    num_blocks: int
    patch_size: int = 2
    pe_mode: str = "rope_t"  # turn queries and keys by their frame beside the absolute xyz embedding; "ape": not
    rope_base: float = 10000.0
    expand_self_attn: bool = True  # temporal alignment (paper Eq. 2); off, every frame is alone, which is TRELLIS
    use_fp16: bool = False
    use_checkpoint: bool = False  # recompute the activations of all blocks in the backward pass
    # Crop and distance of the frame of the view that latents are in. With it, pixels of the input are added to the
    # tokens or voxels that project there (`ss4d.models.projection`).
    projection: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        check_choice("pe_mode", self.pe_mode, ("rope_t", "ape"))
        check_counts(self, "resolution", "patch_size", "num_heads", "num_head_channels")
        check_rotation(self.pe_mode, self.head_channels)


class FlowTransformer(TorsoModel):
    """Linear, modulated cross blocks, norm, linear; subclasses say what a token is and what it attends to."""

    def build_transformer(
        self,
        options: FlowOptions,
        features: tuple[int, int, int],
        insert_temporal: bool = False,
        projection: PixelProjection | None = None,
    ) -> None:
        """Register the modules; `features` are those of a token as it comes, between the ends, and as it leaves."""
        in_features, width, out_features = features
        channels = options.model_channels
        self.use_checkpoint = options.use_checkpoint
        self.t_embedder = TimestepEmbedder(channels)
        self.adaLN_modulation = modulation(channels, 6) if options.share_mod else None
        self.input_layer = nn.Linear(in_features, width)
        self.blocks = nn.ModuleList(ModulatedCrossBlock(options, insert_temporal) for _ in range(options.num_blocks))
        self.projection = projection
        self.norm = LayerNorm32(width, elementwise_affine=False, eps=1e-5)
        self.out_layer = zero(nn.Linear(width, out_features))
        if options.use_fp16:
            self.set_dtype(torch.float16)

    def torso(self) -> Iterable[nn.Module]:
        """The blocks, and a modulation that they share, which the released classes leave in float32."""
        return [self.blocks] if self.adaLN_modulation is None else [self.blocks, self.adaLN_modulation]


def check_condition(cond: Tensor | None, pixels: Tensor | None, rows: tuple[int, ...]) -> None:
    """Raise a ValueError unless image tokens and pixels, where given, are of `rows` = (B, T) videos and frames."""
    if cond is not None and (cond.ndim != 4 or tuple(cond.shape[:2]) != rows):
        raise ValueError(f"cond must be [B, T, L, D] with B, T = {list(rows)}, got shape {list(cond.shape)}")
    if pixels is not None and (pixels.ndim != 5 or tuple(pixels.shape[:3]) != (*rows, PIXEL_CHANNELS)):
        raise ValueError(f"pixels must be [B, T, 4, S, S] with B, T = {list(rows)}, got shape {list(pixels.shape)}")
