"""Cross-attention of the small structure flow that starts at the patches in front of each token."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import nn

from ss4d.models.image_encoder import PatchImageEncoder
from ss4d.models.structure_flow import StructureFlow
from ss4d.nn import ModulatedCrossBlock, absolute_position_embedding


@torch.no_grad()
def start_attention_at_positions(flow: nn.Module, image_encoder: nn.Module) -> None:
    """Initialise cross-attention so that a token attends to the patches that it projects to in the front view.

    For a `StructureFlow` that is trained together with a `PatchImageEncoder`: the position of a patch is the flow's
    own embedding of its place (x across, z up, depth unknown), and keys start as the projection of queries, twice as
    strong as drawn. Only the start is tied; a small model otherwise spends its first steps on finding where to look.

    Raises:
        ValueError: the two are not of one width, or the flow has no block.
    """
    model, encoder = cast(StructureFlow, flow), cast(PatchImageEncoder, image_encoder)
    if not model.blocks_in_order():
        raise ValueError("objective.positional_init needs a flow with blocks: raise its num_blocks")
    width, patch_width = model.blocks[0].cross_attn.to_q.weight.shape[1], encoder.position.shape[1]  # type: ignore[union-attr,index]
    if width != patch_width:
        raise ValueError(
            f"objective.positional_init needs flow and image encoder of one width, but model_channels is {width} and "
            f"channels is {patch_width}: make them equal, or set objective.positional_init=false"
        )
    across, cells = int(len(encoder.position) ** 0.5), model.resolution // model.patch_size
    row, column = torch.meshgrid(torch.arange(across), torch.arange(across), indexing="ij")
    x, z = (((place.flatten() + 0.5) / across) * cells - 0.5 for place in (column, across - 1 - row))
    embedded = absolute_position_embedding(torch.stack([x, torch.zeros_like(x), z], dim=1), encoder.position.shape[1])
    axis = encoder.position.shape[1] // 3 // 2 * 2
    embedded[:, axis : 2 * axis] = 0
    encoder.position.copy_(embedded)
    for block in cast(Iterable[ModulatedCrossBlock], model.blocks):
        attention = block.cross_attn
        attention.to_q.weight.mul_(2)
        attention.to_kv.weight[: len(attention.to_q.weight)].copy_(attention.to_q.weight)
