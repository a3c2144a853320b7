"""Cost of each model of the registry, from its name and arguments: nothing is loaded, nothing allocated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ss4d.models.compnet import CompNet, SparseResBlock
from ss4d.models.image_encoder import DINO_HUB_IDS, PatchImageEncoder
from ss4d.models.registry import create_model
from ss4d.models.sparse_flow import SparseFlow
from ss4d.models.sparse_vae import GaussianDecoder, SparseTransformer
from ss4d.models.structure_flow import StructureFlow
from ss4d.models.structure_vae import Downsample3d, StructureDecoder, StructureEncoder, Upsample3d
from ss4d.nn import ModulatedCrossBlock, SelfBlock, TimestepEmbedder
from ss4d.training.cost import layers
from ss4d.training.cost.parts import Cost, Part, Workload
from ss4d.training.cost.voxels import Level, frames_seen

# Width and depth of DINOv2; the giant's feed-forward is a SwiGLU.
DINO_SIZES = {"small": (384, 12), "base": (768, 12), "large": (1024, 24), "giant": (1536, 40)}


def model_cost(name: str, args: Mapping[str, Any], work: Workload) -> Cost:
    """Cost of a forward pass of the model that `create_model(name, **args)` builds.

    Sparse models are counted on voxels as scattered as `work.statistics` says, all videos equally large.

    Raises:
        ValueError: as `create_model`; a DINOv2 of unknown size; packing that nothing was measured for.
    """
    if name == "DinoImageEncoder":
        return _dino(args, work)
    with torch.device("meta"):
        model = create_model(name, **args)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    for kind, count in _COUNTERS.items():
        if isinstance(model, kind):
            ends, blocks = count(model, work)
            return Cost(parameters, ends, tuple(blocks))
    raise ValueError(f"the cost of {name} cannot be estimated: add it to {__name__}")


def _structure_flow(model: StructureFlow, work: Workload) -> tuple[Part, list[Part]]:
    per_frame = (model.resolution // model.patch_size) ** 3
    tokens, frames = work.rows * per_frame, work.frames
    window, cond_tokens = model.window_size or frames, work.rows * work.image_tokens
    torso, blocks = [], _modulated_blocks(model)
    for index, block in enumerate(blocks):
        shift = window // 2 if index % 2 and model.window_size else 0
        seen = frames_seen(frames, window, shift) if model.expand_self_attn else 1
        part = layers.modulated_block(
            block,
            tokens,
            work.rows,
            cond_tokens,
            self_pairs=tokens * seen * per_frame,
            cross_pairs=tokens * work.image_tokens,
            temporal_pairs=tokens * frames * per_frame,
            rotated=model.rotate and frames > 1,
            sparse=False,
        )
        torso.append(part)
    ends = _ends(model.input_layer, model.out_layer, tokens) + _time(model, work.rows)
    return ends + _condition(blocks[0], cond_tokens), torso


def _sparse_flow(model: SparseFlow, work: Workload) -> tuple[Part, list[Part]]:
    down, ends_level = _compnet(model, work, (0, 0), up=False)
    up, _ = _compnet(model, work, ends_level, up=True)
    level = (ends_level[0], model.temporal_levels)  # conv_type "non" packs frames between the two
    tokens, rows = _voxels(work, level), work.videos * _frames(work, level)
    cond_tokens, blocks = work.rows * work.image_tokens, _modulated_blocks(model)
    torso = [
        layers.modulated_block(
            block,
            tokens,
            rows,
            cond_tokens,
            self_pairs=tokens**2 / (work.videos if model.expand_self_attn else rows),
            cross_pairs=tokens * cond_tokens / rows,
            rotated=model.rotate,
            sparse=True,
        )
        for block in blocks
    ]
    ends = _ends(model.input_layer, model.out_layer, _voxels(work, (0, 0))) + _time(model, work.rows)
    return ends + _condition(blocks[0], cond_tokens), [*down, *torso, *up]


def _compnet(model: CompNet, work: Workload, level: Level, up: bool) -> tuple[list[Part], Level]:
    """The convolutional blocks on one side of the torso, and the level they end on."""
    parts, sign = [], -1 if up else 1
    names = ("out_blocks_t", "out_blocks") if up else ("input_blocks", "input_blocks_t")
    for block in (block for name in names for block in getattr(model, name, [])):
        assert isinstance(block, SparseResBlock)
        axes, before = block.up if up else block.down, level
        level = (level[0] + sign * ("space" in axes), level[1] + sign * ("time" in axes))
        kt, kx, ky, kz = (1, *block.conv1.conv.weight.shape[1:-1])[-4:]
        neighbours = work.statistics.neighbours.get((level, (kt, kx, ky, kz)))
        if neighbours is None:
            raise ValueError(f"neighbours of a {kt} x {kx} x {ky} x {kz} kernel at level {level} were not measured")
        voxels, rows = _voxels(work, level), work.videos * _frames(work, level)
        outer = _voxels(work, before) if up else voxels
        parts.append(layers.sparse_res_block(block, outer, voxels, neighbours, rows))
    return parts, level


def _modulated_blocks(model: StructureFlow | SparseFlow) -> list[ModulatedCrossBlock]:
    return [block for block in model.blocks if isinstance(block, ModulatedCrossBlock)]


def _condition(block: ModulatedCrossBlock, cond_tokens: float) -> Part:
    """Image tokens, kept once for all blocks."""
    return Part(working=cond_tokens * block.cross_attn.to_kv.in_features)


def _frames(work: Workload, level: Level) -> int:
    """Of a video, after packing."""
    return -(-work.frames // 2 ** level[1])


def _voxels(work: Workload, level: Level) -> float:
    """Voxels of the batch after packing."""
    if level not in work.statistics.packed:
        raise ValueError(f"how many voxels are left at level {level} (packings of space and time) was not measured")
    return work.rows * work.voxels * work.statistics.packed[level]


def _sparse_transformer(model: SparseTransformer, work: Workload) -> tuple[Part, list[Part]]:
    tokens, blocks = _voxels(work, (0, 0)), []
    windowed, frames, voxels = model.attn_mode != "full", float(work.frames), work.voxels
    for index, block in enumerate(model.blocks):
        assert isinstance(block, SelfBlock)
        shifted = model.attn_mode == "swin" and index % 2 == 1
        if windowed:
            size = model.window_size
            frames = frames_seen(work.frames, size, size // 2 if shifted else 0)
            voxels = min(work.voxels, work.statistics.in_window(size, shifted))
        pairs = tokens * voxels * (frames if model.expand_self_attn else 1)
        rotated = model.rotate and model.expand_self_attn
        blocks.append(layers.self_block(block, tokens, pairs, rotated, windowed))
    ends = _ends(model.input_layer, model.out_layer, tokens)
    if isinstance(model, GaussianDecoder):
        ends += Part(full=tokens * 4 * model.out_layer.out_features)  # gains and activations of the Gaussians
    return ends, blocks


def _structure_vae(model: StructureEncoder | StructureDecoder, work: Workload) -> tuple[Part, list[Part]]:
    encoder = isinstance(model, StructureEncoder)
    scales = sum(isinstance(block, Downsample3d | Upsample3d) for block in model.blocks)
    cells: float = work.rows * (work.resolution if encoder else work.resolution // 2**scales) ** 3
    first, last = model.input_layer, model.out_layer[-1]
    assert isinstance(last, nn.Conv3d)
    ends = layers.dense_convolution(first, cells) + Part(working=cells * first.in_channels)
    order = [*model.blocks, *model.middle_block] if encoder else [*model.middle_block, *model.blocks]
    blocks = []
    for block in order:
        blocks.append(layers.dense_block(block, cells))
        cells *= 1 / 8 if isinstance(block, Downsample3d) else 8 if isinstance(block, Upsample3d) else 1
    ends += layers.dense_convolution(last, cells)
    return ends + Part(full=2 * cells * last.in_channels, working=cells * last.in_channels), blocks


def _patch_encoder(model: PatchImageEncoder, work: Workload) -> tuple[Part, list[Part]]:
    per_image, width = model.position.shape
    tokens = work.rows * per_image
    total = layers.dense_convolution(model.patch, tokens)
    total += Part(working=work.rows * 3 * model.image_size**2, full=tokens * width)
    for block in model.blocks:
        assert isinstance(block, SelfBlock)
        total += layers.self_block(block, tokens, tokens * per_image)
    return total, []


def _dino(args: Mapping[str, Any], work: Workload) -> Cost:
    """By formula, since its library builds it from a download; no activations, it is never trained."""
    config = args.get("config")
    if config is None:
        name = args.get("name", "dinov2_vitl14_reg")
        size = DINO_HUB_IDS.get(name, name).rpartition("-")[2]
        if size not in DINO_SIZES:
            raise ValueError(
                f"the size of the image encoder '{name}' is not known: name one of {', '.join(DINO_HUB_IDS)}"
            )
        width, depth = DINO_SIZES[size]
        config = {"hidden_size": width, "num_hidden_layers": depth, "use_swiglu_ffn": size == "giant"}
    width, depth, patch = config["hidden_size"], config["num_hidden_layers"], config.get("patch_size", 14)
    registers, hidden = config.get("num_register_tokens", 4), int(width * config.get("mlp_ratio", 4))
    patches = (config.get("image_size", 518) // patch) ** 2
    tokens, first = 1 + registers + patches, hidden
    if config.get("use_swiglu_ffn", False):
        hidden = (int(hidden * 2 / 3) + 7) // 8 * 8
        first = 2 * hidden
    products = 4 * width**2 + width * (first + hidden)  # q, k, v, output; the two of the feed-forward
    biases = 4 * width + first + width
    embedding = 3 * patch**2 * width + width + (1 + 1 + registers + patches + 1) * width  # class, mask; positions
    parameters = embedding + depth * (products + biases + 6 * width) + 2 * width  # norms, layer scales; last norm
    per_image = 2 * patches * 3 * patch**2 * width + depth * (2 * tokens * products + 4 * tokens**2 * width)
    return Cost(parameters, Part(flops=work.rows * per_image))


def _ends(first: nn.Linear, last: nn.Linear, tokens: float) -> Part:
    """First layer; norm and last layer."""
    kept = Part(working=tokens * (first.in_features + last.in_features), full=tokens * last.in_features)
    return layers.linear(first, tokens) + layers.linear(last, tokens) + kept


def _time(model: StructureFlow | SparseFlow, rows: float) -> Part:
    """Embedding of the diffusion time, and its modulation where all blocks share one."""
    first, last = model.t_embedder.mlp[0], model.t_embedder.mlp[2]
    assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
    total = layers.linear(first, rows) + layers.linear(last, rows)
    total += Part(working=rows * (2 * TimestepEmbedder.num_frequencies + 2 * first.out_features))
    return total if model.adaLN_modulation is None else total + layers.modulation(model.adaLN_modulation, rows)


_COUNTERS: dict[type[nn.Module], Any] = {
    StructureFlow: _structure_flow,
    SparseFlow: _sparse_flow,
    SparseTransformer: _sparse_transformer,
    StructureEncoder: _structure_vae,
    StructureDecoder: _structure_vae,
    PatchImageEncoder: _patch_encoder,
}
