"""Cost of the layers that the models are made of, read off the modules (weights are not looked at).

What is kept for the backward pass follows from which operator saves which tensor; small tables of one row a frame are
counted too, indices and norms' statistics are not.
"""

from __future__ import annotations

import math
from dataclasses import replace

from torch import nn

from ss4d.models.compnet import SparseResBlock
from ss4d.models.structure_vae import Downsample3d, ResBlock3d, Upsample3d
from ss4d.nn.blocks import CrossAttention, ModulatedCrossBlock, SelfAttention, SelfBlock
from ss4d.training.cost.parts import Part


def linear(layer: nn.Linear, rows: float) -> Part:
    """The product; its input is counted by whoever makes it."""
    return Part(flops=2 * rows * layer.in_features * layer.out_features)


def attention(pairs: float, channels: int) -> Part:
    """Scores and weighted sum: 4 FLOPs a channel for each pair of a query and a key."""
    return Part(flops=4 * pairs * channels)


def self_attention(layer: SelfAttention, tokens: float, pairs: float, rotated: bool, ordered: bool) -> Part:
    """`pairs`: sum of squared segment lengths; `ordered`: tokens are brought into window order and back."""
    channels, normed = layer.to_out.in_features, layer.q_rms_norm is not None
    working = 5  # input, q k v, output
    working += 1 if ordered else 0  # the output once more
    working += 2 if (rotated or normed) and not ordered else 0  # q and k beside the projection (else in the copies)
    full = (4 if rotated else 2) if normed else 0  # unit vectors of q and k, and what they are made of
    casts = 2 if normed and not rotated else 0
    kept = Part(working=working * tokens * channels, full=full * tokens * channels, casts=casts * tokens * channels)
    return linear(layer.to_qkv, tokens) + attention(pairs, channels) + linear(layer.to_out, tokens) + kept


def cross_attention(layer: CrossAttention, tokens: float, cond_tokens: float, pairs: float) -> Part:
    """`pairs`: of a token and an image token of its own frame."""
    channels, normed = layer.to_out.in_features, layer.q_rms_norm is not None
    working = 3 * tokens + 2 * cond_tokens  # input, q, output; k, v
    norms = tokens + cond_tokens if normed else 0  # unit vectors, and q and k once more
    return (
        linear(layer.to_q, tokens)
        + linear(layer.to_kv, cond_tokens)
        + attention(pairs, channels)
        + linear(layer.to_out, tokens)
        + Part(working=(working + norms) * channels, full=norms * channels, casts=norms * channels)
    )


def feed_forward(layer: nn.Sequential, tokens: float) -> Part:
    """Input, and what is between the two products ahead of GELU and after."""
    first, last = layer[0], layer[2]
    assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
    kept = Part(working=tokens * (first.in_features + 2 * first.out_features))
    return linear(first, tokens) + linear(last, tokens) + kept


def self_block(block: SelfBlock, tokens: float, pairs: float, rotated: bool = False, ordered: bool = False) -> Part:
    width = tokens * block.attn.to_out.in_features
    return (
        self_attention(block.attn, tokens, pairs, rotated, ordered)
        + feed_forward(block.mlp.mlp, tokens)
        + Part(full=2 * width, entry=width)  # inputs of both norms
    )


def modulated_block(
    block: ModulatedCrossBlock,
    tokens: float,
    rows: float,
    cond_tokens: float,
    self_pairs: float,
    cross_pairs: float,
    rotated: bool,
    sparse: bool,
    temporal_pairs: float = 0,
) -> Part:
    """`rows`: of the table that modulates; a sparse block keeps its rows once a token (scale and gate, twice)."""
    width = tokens * block.self_attn.to_out.in_features
    tables = 2 * width if sparse else 0
    # Norm's input, the normed values that are modulated, and the update that is gated.
    branch = Part(full=3 * width + tables)
    total = branch + self_attention(block.self_attn, tokens, self_pairs, rotated, False)
    total += Part(full=width) + cross_attention(block.cross_attn, tokens, cond_tokens, cross_pairs)
    total += branch + feed_forward(block.mlp.mlp, tokens)
    if block.temp_attn is not None:
        total += branch + self_attention(block.temp_attn, tokens, temporal_pairs, rotated, False)
    for table in (block.adaLN_modulation, block.adaLN_modulation_temporal):
        if table is not None:
            total += modulation(table, rows)
    return replace(total, entry=width)


def modulation(layers: nn.Sequential, rows: float) -> Part:
    """SiLU and a linear layer on one row a frame."""
    layer = layers[1]
    assert isinstance(layer, nn.Linear)
    return linear(layer, rows) + Part(working=rows * (layer.in_features + layer.out_features))


def sparse_res_block(block: SparseResBlock, voxels_in: float, voxels: float, neighbours: float, rows: float) -> Part:
    """`voxels_in`: where norm and skip run; `voxels`: where the convolutions run, with `neighbours` a voxel."""
    outer, inner = block.conv1.conv.weight.shape[-1], block.conv1.conv.weight.shape[0]
    total = Part(flops=2 * voxels * neighbours * inner * (outer + inner), entry=voxels_in * outer)
    if isinstance(block.skip_connection, nn.Linear):
        total += linear(block.skip_connection, voxels_in)
    total += modulation(block.emb_layers, rows)
    # Norm and SiLU ahead of the first convolution, its input; norm, its output and scale, SiLU, the second's input.
    return total + Part(full=2 * voxels_in * outer + voxels * inner, working=voxels * (outer + 4 * inner))


def dense_convolution(layer: nn.Conv3d | nn.Conv2d, cells: float) -> Part:
    """`cells` of the output; its input is counted by whoever makes it."""
    taps = math.prod(layer.kernel_size)
    return Part(flops=2 * cells * taps * layer.in_channels * layer.out_channels)


def dense_block(block: nn.Module, cells: float) -> Part:
    """A block of the structure VAE on `cells` voxels of its input, all frames together."""
    if isinstance(block, ResBlock3d):
        outer, inner = block.conv1.in_channels, block.conv1.out_channels
        total = dense_convolution(block.conv1, cells) + dense_convolution(block.conv2, cells)
        if isinstance(block.skip_connection, nn.Conv3d):
            total += dense_convolution(block.skip_connection, cells)
        kept = Part(full=cells * (2 * outer + inner), working=cells * (outer + 2 * inner), entry=cells * outer)
        return total + kept
    assert isinstance(block, Downsample3d | Upsample3d)
    entry = cells * block.conv.in_channels
    outputs = cells / 8 if isinstance(block, Downsample3d) else cells
    return dense_convolution(block.conv, outputs) + Part(working=entry, entry=entry)
