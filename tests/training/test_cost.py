"""Estimates of FLOPs and memory against counters on small real models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

from ss4d.models import create_model
from ss4d.nn import attention
from ss4d.sparse import SparseTensor
from ss4d.training.cost import (
    VoxelStatistics,
    Workload,
    measured_statistics,
    model_cost,
)

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


def shell() -> Tensor:
    """int32 [N, 5]: a ball's surface that drifts along x, equally large in every frame of every video."""
    axis = torch.arange(RESOLUTION)
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    radius = ((x - 6) ** 2 + (y - 7.5) ** 2 + (z - 7.5) ** 2).sqrt()
    surface = ((radius - 5).abs() < 0.6).nonzero()
    frames = [surface + torch.tensor([frame // 2, 0, 0]) for frame in range(FRAMES)]
    rows = [
        torch.cat([torch.tensor([[video, frame]]).expand(len(voxels), 2), voxels], 1)
        for video in range(VIDEOS)
        for frame, voxels in enumerate(frames)
    ]
    return torch.cat(rows).int()


@dataclass
class Call:
    """A model with inputs to run it on, and the work that this is."""

    model: nn.Module
    inputs: tuple[Any, ...]
    work: Workload


def prepare(name: str, args: dict[str, Any]) -> Call:
    model, coords = create_model(name, **args), shell()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.05)
    geometry = SparseTensor(torch.zeros(len(coords), 1), coords, num_frames=FRAMES).geometry
    voxels = len(coords) / (VIDEOS * FRAMES)
    work = Workload(VIDEOS, FRAMES, RESOLUTION, voxels, IMAGE_TOKENS, VoxelStatistics.measure(geometry))
    condition = torch.rand(VIDEOS, FRAMES), torch.randn(VIDEOS, FRAMES, IMAGE_TOKENS, COND)
    if name == "StructureEncoder":
        return Call(model, (torch.rand(VIDEOS, FRAMES, 1, *[RESOLUTION] * 3),), work)
    if name == "StructureDecoder":
        return Call(model, (torch.rand(VIDEOS, FRAMES, 4, *[RESOLUTION // 4] * 3),), work)
    if "Structure" in name:
        return Call(model, (torch.randn(VIDEOS, FRAMES, 4, *[args["resolution"]] * 3), *condition), work)
    if name == "PatchImageEncoder":
        return Call(model, (torch.rand(VIDEOS * FRAMES, 3, 32, 32),), work)
    channels = 9 if "Encoder" in name else 4
    x = SparseTensor(torch.randn(len(coords), channels), coords, num_frames=FRAMES)
    return Call(model, (x, *condition) if "Flow" in name else (x,), work)


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
def test_flops_are_those_that_a_counter_sees(name: str, args: dict[str, Any]) -> None:
    call = prepare(name, args)
    counter = FlopCounterMode(display=False)
    # The counter knows products and convolutions; torch's fused attention on a CPU it does not know, so that one is
    # made of products here.
    with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        call.model(*call.inputs)
    cost = model_cost(name, args, call.work)
    assert cost.flops == pytest.approx(counter.get_total_flops(), rel=0.02)
    assert cost.parameters == sum(parameter.numel() for parameter in call.model.parameters())


@pytest.mark.parametrize("size", [2, 4, 6])
def test_flops_of_windows_of_other_sizes_are_near(size: int) -> None:
    args = {**ENCODER, "window_size": size}
    call, counter = prepare("SparseEncoder", args), FlopCounterMode(display=False)
    with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        call.model(*call.inputs)
    assert model_cost("SparseEncoder", args, call.work).flops == pytest.approx(counter.get_total_flops(), rel=0.1)


def test_a_window_holds_no_more_than_the_frame() -> None:
    work = Workload(1, 4, 64, voxels=100)
    whole = model_cost("SparseEncoder", {**ENCODER, "attn_mode": "full"}, work)
    large = model_cost("SparseEncoder", {**ENCODER, "attn_mode": "windowed", "window_size": 64}, work)
    assert large.flops == whole.flops


@pytest.mark.parametrize("element_size", [4, 2])
@pytest.mark.parametrize(("name", "args"), CASES, ids=NAMES)
def test_activations_are_what_the_backward_pass_keeps(
    name: str, args: dict[str, Any], element_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = prepare(name, args)
    call.model.use_checkpoint = False  # type: ignore[assignment]  # the sparse VAE's default is on
    monkeypatch.setattr(attention, "_heads", scaled_dot_product_attention)  # one fused kernel, as on a GPU
    with torch.autocast("cpu", torch.bfloat16, enabled=element_size == 2):
        saved = saved_bytes(call)
    cost = model_cost(name, args, call.work)
    copies = 2 * cost.parameters if element_size == 2 else 0  # weights as autocast's type, which it keeps as well
    assert cost.activation_bytes(element_size) + copies == pytest.approx(saved, rel=0.25)


def test_dino_is_counted_without_being_built() -> None:
    pytest.importorskip("transformers", reason="DINOv2 needs the transformers package (extra 'cuda')")
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "num_register_tokens": 4}
    for swiglu in (False, True):
        config = {**sizes, "image_size": 56, "patch_size": 14, "use_swiglu_ffn": swiglu}
        model, counter = create_model("DinoImageEncoder", config=config), FlopCounterMode(display=False)
        with counter, sdpa_kernel(SDPBackend.MATH):
            model(torch.rand(VIDEOS * FRAMES, 3, 56, 56))
        cost = model_cost("DinoImageEncoder", {"config": config}, Workload(VIDEOS, FRAMES, RESOLUTION))
        assert cost.parameters == sum(parameter.numel() for parameter in model.parameters())
        assert cost.flops == pytest.approx(counter.get_total_flops(), rel=0.02)
        assert cost.activation_bytes(2) == 0
    # ViT-L/14 at 518 px: 1374 tokens, 24 layers of 12 C^2 weights, C = 1024, and 4 L^2 C for attention:
    # 24 (2 * 1374 * 12 * 1024^2 + 4 * 1374^2 * 1024) = 24 (34.58 + 7.73) GFLOP = 1.015 TFLOP a frame.
    full = model_cost("DinoImageEncoder", {"name": "dinov2_vitl14_reg"}, Workload(1, 32, 64))
    assert full.flops / 32 == pytest.approx(1.015e12, rel=0.01) and full.parameters == pytest.approx(304.4e6, rel=1e-3)
    with pytest.raises(ValueError, match="size of the image encoder 'dinov3' is not known"):
        model_cost("DinoImageEncoder", {"name": "dinov3"}, Workload(1, 1, 64))


def test_statistics_of_a_cube_that_stands_still() -> None:
    corner = torch.cartesian_prod(*[torch.arange(2)] * 3)
    rows = [torch.cat([torch.tensor([[0, frame]]).expand(8, 2), corner], 1) for frame in range(2)]
    coords = torch.cat(rows).int()
    found = VoxelStatistics.measure(SparseTensor(torch.zeros(16, 1), coords, num_frames=2).geometry)
    assert found.packed == {(0, 0): 1, (1, 0): 2 / 16, (1, 1): 1 / 16}
    assert found.neighbours[(0, 0), (1, 3, 3, 3)] == 8 and found.neighbours[(0, 0), (3, 3, 3, 3)] == 16
    assert found.neighbours[(1, 0), (3, 1, 1, 1)] == 2 and found.neighbours[(1, 1), (3, 1, 1, 1)] == 1
    assert found.windows == {0: 8, 4: 8}


def test_what_was_not_measured_is_refused() -> None:
    assert measured_statistics(16) is measured_statistics(32) and measured_statistics(128) is measured_statistics(64)
    work = Workload(1, 4, 64, voxels=100)
    with pytest.raises(ValueError, match=r"at level \(2, 0\)"):
        args = {**SPARSE_FLOW, "patch_size": 4, "io_block_channels": [12, 24]}
        model_cost("SparseFlow", args, work)
    with pytest.raises(ValueError, match="unknown model 'SparseFlw': did you mean SparseFlow"):
        model_cost("SparseFlw", {}, work)
