"""Attention, embeddings and transformer blocks shared by all models."""

from ss4d.nn.attention import packed_attention
from ss4d.nn.blocks import (
    Condition,
    LayerNorm32,
    ModulatedCrossBlock,
    SelfAttentionPlan,
    SelfBlock,
    TokenLayout,
)
from ss4d.nn.embeddings import FrameRotation, TimestepEmbedder, absolute_position_embedding

__all__ = [
    "Condition",
    "FrameRotation",
    "LayerNorm32",
    "ModulatedCrossBlock",
    "SelfAttentionPlan",
    "SelfBlock",
    "TimestepEmbedder",
    "TokenLayout",
    "absolute_position_embedding",
    "packed_attention",
]
