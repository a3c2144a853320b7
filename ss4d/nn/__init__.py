"""Attention, embeddings and transformer blocks shared by all models."""

from ss4d.nn.attention import packed_attention
from ss4d.nn.attention_layers import Condition, SelfAttentionPlan
from ss4d.nn.blocks import CrossBlockOptions, ModulatedCrossBlock, SelfBlock, num_heads_of
from ss4d.nn.embeddings import FrameRotation, TimestepEmbedder, absolute_position_embedding
from ss4d.nn.memo import Memo
from ss4d.nn.modulation import TokenLayout
from ss4d.nn.norms import LayerNorm32

__all__ = [
    "Condition",
    "CrossBlockOptions",
    "FrameRotation",
    "LayerNorm32",
    "Memo",
    "ModulatedCrossBlock",
    "SelfAttentionPlan",
    "SelfBlock",
    "TimestepEmbedder",
    "TokenLayout",
    "absolute_position_embedding",
    "num_heads_of",
    "packed_attention",
]
