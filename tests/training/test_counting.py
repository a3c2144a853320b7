"""Estimates of FLOPs and memory against counters on small real models."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

from ss4d.models import create_model
from ss4d.nn import attention, feed_forward
from ss4d.sparse import SparseTensor, im2col, neighbour_map, packing_plan, window_partition
from ss4d.training.counting import ModelCost, model_cost, synthetic_clip
from ss4d.training.tally import Part

VIDEOS, FRAMES, RESOLUTION, IMAGE_TOKENS, COND = 2, 6, 16, 12, 40
FLOW = {
    "model_channels": 48,
    "num_heads": 2,
    "num_blocks": 3,
    "in_channels": 4,
    "out_channels": 4,
    "cond_channels": COND,
}
SPARSE_FLOW = {**FLOW, "resolution": RESOLUTION, "io_block_channels": [24], "io_block_channels_t": [48]}
BODY = {"resolution": RESOLUTION, "model_channels": 48, "num_heads": 2, "num_blocks": 3, "use_fp16": False}
GAUSSIANS = {
    "lr": {"_xyz": 1.0, "_features_dc": 1.0, "_opacity": 1.0, "_scaling": 1.0, "_rotation": 0.1},
    "perturb_offset": True,
    "voxel_size": 1.5,
    "num_gaussians": 4,
    "2d_filter_kernel_size": 0.1,
    "3d_filter_kernel_size": 0.0009,
    "scaling_bias": 0.02,
    "opacity_bias": 0.1,
    "scaling_activation": "softplus",
}
ENCODER = {**BODY, "in_channels": 9, "latent_channels": 4}
DECODER = {**BODY, "latent_channels": 4, "representation_config": GAUSSIANS}
PATCH = {"image_size": 32, "patch_size": 4, "channels": 48, "num_blocks": 2, "num_heads": 2}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("StructureEncoder", {"in_channels": 1, "latent_channels": 4, "num_res_blocks": 1, "channels": [8, 12, 16]}),
    ("StructureDecoder", {"out_channels": 1, "latent_channels": 4, "num_res_blocks": 2, "channels": [16, 12, 8]}),
    ("StructureFlow", {**FLOW, "resolution": 8, "window_size": 4}),
    ("StructureFlow", {**FLOW, "resolution": 8, "window_size": 4, "share_mod": True, "qk_rms_norm": True}),
    ("StructureFlow", {**FLOW, "resolution": 8, "qk_rms_norm_cross": True}),
    ("StructureFlow", {**FLOW, "resolution": 8, "insert_temporal": True, "expand_self_attn": False}),
    ("SparseStructureFlowModel", {**FLOW, "resolution": 4, "patch_size": 1}),
    ("SparseEncoder", {**ENCODER, "pe_mode": "rope_t"}),
    ("SLatEncoder", {**ENCODER, "attn_mode": "full"}),
    ("GaussianDecoder", {**DECODER, "pe_mode": "rope_t"}),
    ("SparseFlow", {**SPARSE_FLOW, "qk_rms_norm": True}),
    ("SparseFlow", {**SPARSE_FLOW, "share_mod": True, "use_skip_connection": False}),
    ("SparseFlow", {**SPARSE_FLOW, "conv_type": "3D_4D"}),
    ("SparseFlow", {**SPARSE_FLOW, "conv_type": "4D", "io_block_channels_t": None}),
    ("SparseFlow", {**SPARSE_FLOW, "conv_type": "non", "io_block_channels_t": None}),
    ("SLatFlowModel", {**SPARSE_FLOW, "io_block_channels_t": None}),
    ("PatchImageEncoder", PATCH),
]
NAMES = [f"{name}-{index}" for index, (name, _) in enumerate(CASES)]


@dataclass
class Call:
    """A model with inputs to run it on, and what it is estimated to cost with autocast to 2 bytes and without."""

    model: nn.Module
    inputs: tuple[Any, ...]
    estimates: dict[int, ModelCost]


@cache
def estimated(name: str, arguments: str) -> dict[int, ModelCost]:
    """With autocast to 2 bytes, and without; `arguments` are JSON."""
    clip = synthetic_clip(FRAMES, 300, RESOLUTION)
    args = json.loads(arguments)
    return {element: model_cost(name, args, VIDEOS, clip, RESOLUTION, IMAGE_TOKENS, element) for element in (2, 4)}


def prepare(name: str, args: dict[str, Any]) -> Call:
    model, clip = create_model(name, **args), synthetic_clip(FRAMES, 300, RESOLUTION)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.05)
    estimates = estimated(name, json.dumps(args))
    second = torch.tensor([1, 0, 0, 0, 0], dtype=torch.int32)
    coords = torch.cat([clip + video * second for video in range(VIDEOS)])
    condition = torch.rand(VIDEOS, FRAMES), torch.randn(VIDEOS, FRAMES, IMAGE_TOKENS, COND)
    if name == "StructureEncoder":
        return Call(model, (torch.rand(VIDEOS, FRAMES, 1, *[RESOLUTION] * 3),), estimates)
    if name == "StructureDecoder":
        return Call(model, (torch.rand(VIDEOS, FRAMES, 4, *[RESOLUTION // 4] * 3),), estimates)
    if "Structure" in name:
        return Call(model, (torch.randn(VIDEOS, FRAMES, 4, *[args["resolution"]] * 3), *condition), estimates)
    if name == "PatchImageEncoder":
        return Call(model, (torch.rand(VIDEOS * FRAMES, 3, 32, 32),), estimates)
    channels = 9 if "Encoder" in name else 4
    x = SparseTensor(torch.randn(len(coords), channels), coords, num_frames=FRAMES)
    return Call(model, (x, *condition) if "Flow" in name else (x,), estimates)


def saved_bytes(call: Call) -> int:
    """Bytes of floating-point numbers that the forward pass keeps, each storage once, weights left out."""
    storages: dict[int, Any] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = call.model(*call.inputs)
    for parameter in [*call.model.parameters(), *call.model.buffers()]:
        storages.pop(parameter.untyped_storage().data_ptr(), None)
    assert outputs is not None
    return sum(storage.nbytes() for storage in storages.values())


@pytest.mark.parametrize(("name", "args"), CASES, ids=NAMES)
def test_flops_are_those_that_a_counter_sees(name: str, args: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(im2col, "_MOST_INPUT_CHANNELS", 0)  # on a CPU it multiplies absent neighbours besides
    monkeypatch.setattr(feed_forward, "_is_fused", lambda x: False)  # the counter does not know that product
    call = prepare(name, args)
    counter = FlopCounterMode(display=False)
    # The counter knows products and convolutions; torch's fused attention on a CPU it does not know, so that one is
    # made of products here.
    with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        call.model(*call.inputs)
    for cost in call.estimates.values():
        assert cost.flops == pytest.approx(counter.get_total_flops(), rel=1e-6)
        assert cost.parameters == sum(parameter.numel() for parameter in call.model.parameters())


@pytest.mark.parametrize("element", [4, 2])
@pytest.mark.parametrize(("name", "args"), CASES, ids=NAMES)
def test_activations_are_what_the_backward_pass_keeps(
    name: str, args: dict[str, Any], element: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = prepare(name, args)
    call.model.use_checkpoint = False  # type: ignore[assignment]  # the sparse VAE's default is on
    monkeypatch.setattr(attention, "_heads", scaled_dot_product_attention)  # one fused kernel, as on a GPU
    with torch.autocast("cpu", torch.bfloat16, enabled=element == 2):
        saved = saved_bytes(call)
    cost = call.estimates[element]
    copies = 2 * cost.parameters if element == 2 else 0  # weights as autocast's type, which it keeps as well
    assert cost.activation_bytes() + copies == pytest.approx(saved, rel=0.1)


def test_blocks_keep_their_input_where_they_are_recomputed() -> None:
    # Three blocks of 200 bytes, whose inputs have 40; ends of 200. With n recomputed: 200 + (3 - n) 200 + n 40, and
    # 200 for the one that is back.
    cost = ModelCost(1, Part(kept=200, flops=50), (Part(kept=200, entry=40, flops=100),) * 3)
    assert [cost.activation_bytes(count) for count in range(4)] == [800, 840, 680, 520]
    assert (cost.flops, cost.step_flops(2)) == (350, 3 * 350 + 200)
    flow = prepare("StructureFlow", {**FLOW, "resolution": 8, "window_size": 4}).estimates[4]
    tokens = VIDEOS * FRAMES * 4**3
    assert len(flow.blocks) == 3 and all(block.entry == 4 * 48 * tokens for block in flow.blocks)


def test_dino_needs_no_download() -> None:
    pytest.importorskip("transformers", reason="DINOv2 needs the transformers package (extra 'cuda')")
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "num_register_tokens": 4}
    config = {**sizes, "image_size": 56, "patch_size": 14}
    model, counter = create_model("DinoImageEncoder", config=config), FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):
        model(torch.rand(FRAMES, 3, 56, 56))
    clip = synthetic_clip(FRAMES, 300, RESOLUTION)
    cost = model_cost("DinoImageEncoder", {"config": config}, 1, clip, RESOLUTION, 0, 2)
    assert cost.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert cost.flops == pytest.approx(counter.get_total_flops(), rel=0.02)
    assert cost.activation_bytes() == 0


def test_dino_at_full_size_by_hand() -> None:
    # ViT-L/14 at 518 px: 1374 tokens, 24 layers of 12 C^2 weights, C = 1024, and 4 L^2 C for attention:
    # 24 (2 * 1374 * 12 * 1024^2 + 4 * 1374^2 * 1024) = 24 (34.58 + 7.73) GFLOP = 1.015 TFLOP a frame.
    clip = synthetic_clip(2, 300, RESOLUTION)
    full = model_cost("DinoImageEncoder", {"name": "dinov2_vitl14_reg"}, 3, clip, RESOLUTION, 0, 2)
    assert full.flops / 6 == pytest.approx(1.015e12, rel=0.01) and full.parameters == pytest.approx(304.4e6, rel=1e-3)
    with pytest.raises(ValueError, match="size of the image encoder 'dinov3' is not known: name one of dinov2_vits14"):
        model_cost("DinoImageEncoder", {"name": "dinov3"}, 1, clip, RESOLUTION, 0, 2)


# Means over 450 training clips of 16 frames, prepared from the toolkit's assets: voxels a frame, voxels left after
# packing by 2 in space and then in time, occupied cells under a kernel in space and in time, voxels of a frame in a
# window of 8.
MEASURED = {32: (1659, 0.245, 0.139, 15.25, 2.46, 94.3), 64: (6861, 0.242, 0.147, 15.03, 2.24, 90.6)}


@pytest.mark.parametrize("resolution", MEASURED)
def test_voxels_of_the_synthetic_clip_lie_as_those_of_real_ones(resolution: int) -> None:
    voxels, space, both, spatial, temporal, in_window = MEASURED[resolution]
    coords = synthetic_clip(16, voxels, resolution)
    assert len(coords) / 16 == pytest.approx(voxels, rel=0.01)
    assert int(coords[:, 2:].min()) >= 0 and int(coords[:, 2:].max()) < resolution
    geometry = SparseTensor(torch.zeros(len(coords), 1), coords, num_frames=16).geometry
    packed = packing_plan(geometry, "space").coarse
    assert len(packed.coords) / len(coords) == pytest.approx(space, rel=0.05)
    assert len(packing_plan(packed, "time").coarse.coords) / len(coords) == pytest.approx(both, rel=0.02)
    for kernel, expected in (((1, 3, 3, 3), spatial), ((3, 1, 1, 1), temporal)):
        assert 1 + neighbour_map(geometry, kernel).num_pairs / len(coords) == pytest.approx(expected, rel=0.06)
    lengths = window_partition(geometry, 8, 0, over_time=False).segments.lengths
    assert sum(length**2 for length in lengths) / len(coords) == pytest.approx(in_window, rel=0.1)


def test_unknown_models_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown model 'SparseFlw': did you mean SparseFlow"):
        model_cost("SparseFlw", {}, 1, synthetic_clip(1, 50, 16), 16, 0, 4)
