"""What must hold for any weights: videos are independent, any frame count runs, zero condition equals none."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from voxels import random_voxels

from ss4d.cameras import orbit_camera
from ss4d.gaussians import rasterize
from ss4d.models import create_model
from ss4d.sparse import SparseTensor

SPARSE_FLOW: dict[str, Any] = {
    "resolution": 16,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 24,
    "cond_channels": 12,
    "num_blocks": 2,
    "num_heads": 2,
    "patch_size": 2,
    "io_block_channels": [12],
    "qk_rms_norm": True,
}
CONV_TYPES: dict[str, dict[str, Any]] = {
    "3D_1D": {"conv_type": "3D_1D", "io_block_channels_t": [24]},
    "3D_4D": {"conv_type": "3D_4D", "io_block_channels_t": [24]},
    "4D": {"conv_type": "4D"},
    "non": {"conv_type": "non"},
    "noskip": {"conv_type": "3D_1D", "io_block_channels_t": [24], "use_skip_connection": False},
    "share_mod": {"conv_type": "3D_1D", "io_block_channels_t": [24], "share_mod": True},
    "per_frame": {"conv_type": "3D", "expand_self_attn": False},
    "no_ends": {"conv_type": "3D", "io_block_channels": None, "patch_size": 1},
}
STRUCTURE_FLOW: dict[str, Any] = {
    "resolution": 4,
    "in_channels": 3,
    "out_channels": 3,
    "model_channels": 24,
    "cond_channels": 12,
    "num_blocks": 2,
    "num_heads": 2,
    "patch_size": 2,
    "qk_rms_norm": True,
}
VAE: dict[str, Any] = {"resolution": 16, "model_channels": 24, "latent_channels": 4, "num_blocks": 2, "num_heads": 2}
VAE |= {"pe_mode": "rope_t", "window_size": 4, "use_fp16": False}
GAUSSIANS = {
    "lr": {"_xyz": 1.0, "_features_dc": 1.0, "_opacity": 1.0, "_scaling": 1.0, "_rotation": 0.1},
    "perturb_offset": True,
    "voxel_size": 1.5,
    "num_gaussians": 4,
    "2d_filter_kernel_size": 0.1,
    "3d_filter_kernel_size": 0.0009,
    "scaling_bias": 0.004,
    "opacity_bias": 0.1,
    "scaling_activation": "softplus",
}


def build(name: str, **args: Any) -> nn.Module:
    """A model with no parameter left at zero, so that every part has an effect."""
    model = create_model(name, **args).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("variant", CONV_TYPES)
@pytest.mark.parametrize("frames", [[4, 4], [5, 3], [1, 1], [3, 6]])
def test_sparse_flow_treats_each_video_as_if_alone(variant: str, frames: list[int]):
    model = build("SLatFlow4DModel", **{**SPARSE_FLOW, **CONV_TYPES[variant]})
    x, longest = random_voxels(frames, side=8, density=0.1, channels=4), max(frames)
    t, cond = 1000 * torch.rand(2, longest), torch.randn(2, longest, 5, 12)
    together = model(x, t, cond)
    assert together.geometry is x.geometry and together.feats.std() > 0
    for video, count in enumerate(frames):
        alone = model(x.video(video), t[video : video + 1, :count], cond[video : video + 1, :count])
        close(alone.feats, together.video(video).feats)


@torch.no_grad()
@pytest.mark.parametrize("variant", CONV_TYPES)
def test_sparse_flow_runs_with_empty_frames(variant: str):
    model = build("SLatFlow4DModel", **{**SPARSE_FLOW, **CONV_TYPES[variant]})
    x = random_voxels([5], side=8, density=0.1, channels=4)
    kept = ~torch.isin(x.coords[:, 1], torch.tensor([1, 4]))  # one in the middle, the last one
    x = SparseTensor(x.feats[kept], x.coords[kept], num_frames=5)
    out = model(x, 1000 * torch.rand(1, 5), torch.randn(1, 5, 5, 12))
    assert len(out) == len(x) and bool(out.feats.isfinite().all())


@torch.no_grad()
def test_a_trailing_empty_frame_counts_even_if_the_tensor_does_not_say_so():
    model = build("SLatFlow4DModel", **{**SPARSE_FLOW, **CONV_TYPES["3D_1D"]})
    x = random_voxels([3], side=8, density=0.1, channels=4)
    t, cond = 1000 * torch.rand(1, 4), torch.randn(1, 4, 5, 12)
    silent = model(SparseTensor(x.feats, x.coords), t, cond)
    declared = model(SparseTensor(x.feats, x.coords, num_frames=4), t, cond)
    close(silent.feats, declared.feats)


@torch.no_grad()
@pytest.mark.parametrize(
    "options",
    [
        {"window_size": 4},
        {"window_size": None},
        {"expand_self_attn": False},
        {"insert_temporal": True, "expand_self_attn": False},
        {"share_mod": True, "window_size": 2},
        {"patch_size": 1, "window_size": 3},
    ],
)
@pytest.mark.parametrize("frames", [1, 2, 5, 7])
def test_structure_flow_treats_each_video_as_if_alone(options: dict, frames: int):
    model = build("SparseStructureFlow4DModel", **{**STRUCTURE_FLOW, **options})
    x, t, cond = (
        torch.randn(2, frames, 3, 4, 4, 4),
        1000 * torch.rand(2, frames),
        torch.randn(2, frames, 5, 12),
    )
    together = model(x, t, cond)
    assert together.shape == x.shape and together.std() > 0
    close(model(x[1:], t[1:], cond[1:]), together[1:])


@torch.no_grad()
def test_without_temporal_alignment_frames_are_alone():
    x, t, cond = torch.randn(1, 3, 3, 4, 4, 4), 1000 * torch.rand(1, 3), torch.randn(1, 3, 5, 12)
    for aligned in (True, False):
        model = build("SparseStructureFlow4DModel", **STRUCTURE_FLOW, expand_self_attn=aligned)
        clip = model(x, t, cond)[0]
        apart = model(*(v.reshape(3, 1, *v.shape[2:]) for v in (x, t, cond)))[:, 0]
        assert torch.allclose(clip, apart, atol=1e-4) is not aligned


@torch.no_grad()
def test_no_condition_equals_a_condition_of_zeros():
    x, t = torch.randn(1, 3, 3, 4, 4, 4), 1000 * torch.rand(1, 3)
    dense = build("SparseStructureFlow4DModel", **STRUCTURE_FLOW)
    close(dense(x, t, None), dense(x, t, torch.zeros(1, 3, 5, 12)))
    sparse = build("SLatFlow4DModel", **{**SPARSE_FLOW, **CONV_TYPES["3D_1D"]})
    voxels = random_voxels([3], side=8, density=0.1, channels=4)
    close(sparse(voxels, t, None).feats, sparse(voxels, t, torch.zeros(1, 3, 5, 12)).feats)


@torch.no_grad()
@pytest.mark.parametrize("attn_mode", ["swin", "windowed", "full"])
@pytest.mark.parametrize("frames", [[6, 6], [5, 2], [1, 3]])
def test_sparse_vae_treats_each_video_as_if_alone(attn_mode: str, frames: list[int]):
    encoder = build("SLatEncoder", in_channels=6, attn_mode=attn_mode, **VAE)
    x = random_voxels(frames, side=8, density=0.1, channels=6)
    together = encoder(x).mean
    for video in range(2):
        close(encoder(x.video(video)).mean.feats, together.video(video).feats)


@torch.no_grad()
def test_gaussian_decoder_keeps_empty_frames_and_puts_gaussians_around_their_voxels():
    decoder = build("SLatGaussianDecoder", representation_config=GAUSSIANS, **VAE)
    x = random_voxels([4, 2], side=16, density=0.02, channels=4)
    kept = ~((x.coords[:, 0] == 0) & (x.coords[:, 1] == 3))
    x = SparseTensor(x.feats[kept], x.coords[kept], num_frames=[4, 2])
    first, second = decoder(x)
    counts = x.geometry.frame_segments(4).lengths
    assert first.num_gaussians == [4 * n for n in counts[:4]] and first.num_gaussians[3] == 0
    assert second.num_gaussians == [4 * n for n in counts[4:6]]
    frame = x.coords[(x.coords[:, 0] == 1) & (x.coords[:, 1] == 1), 2:]
    centre = ((frame + 0.5) / 16 - 0.5).repeat_interleave(4, dim=0)
    assert (second[1].xyz - centre).abs().max() <= 0.5 * 1.5 / 16
    torch.testing.assert_close(second[1].rotation.norm(dim=1), torch.ones(len(frame) * 4))


@torch.no_grad()
@pytest.mark.parametrize("activation", ["softplus", "exp"])
def test_gaussians_of_a_new_decoder_have_the_scale_that_it_was_given(activation: str):
    config = GAUSSIANS | {"scaling_activation": activation, "scaling_bias": 0.03, "3d_filter_kernel_size": 0.04}
    decoder = create_model("SLatGaussianDecoder", representation_config=config, **VAE).eval()  # last layer is zero
    (sequence,) = decoder(SparseTensor(torch.zeros(1, 4), torch.tensor([[0, 0, 8, 8, 8]], dtype=torch.int32)))
    torch.testing.assert_close(sequence[0].scale, torch.full((4, 3), 0.05))  # sqrt(0.03^2 + 0.04^2)


@torch.no_grad()
def test_the_screen_filter_of_a_checkpoint_reaches_the_rasteriser():
    """One voxel, one Gaussian of scale s and opacity o: seen from distance d, its centre has alpha o v / (v + k)."""
    for kernel in (0.1, 0.7):
        config = GAUSSIANS | {"num_gaussians": 1, "perturb_offset": False, "2d_filter_kernel_size": kernel}
        config |= {"3d_filter_kernel_size": 0.0, "scaling_bias": 0.01, "opacity_bias": 0.8}
        decoder = create_model("SLatGaussianDecoder", representation_config=config, **VAE).eval()  # last layer is zero
        (sequence,) = decoder(SparseTensor(torch.zeros(1, 4), torch.tensor([[0, 0, 8, 8, 8]], dtype=torch.int32)))
        centre = [0.5 / 16] * 3
        image = rasterize(sequence[0], orbit_camera(0, 0, radius=2.0, fov_deg=40.0, target=centre), 33)
        variance = (0.5 / math.tan(math.radians(20)) * 33 * 0.01 / 2) ** 2  # pixels^2
        assert float(image.alpha[0, 16, 16]) == pytest.approx(0.8 * variance / (variance + kernel), rel=1e-4)


def test_posterior_samples_have_the_stated_spread():
    encoder = build("SLatEncoder", in_channels=6, **VAE)
    with torch.no_grad():
        posterior = encoder(random_voxels([2], side=8, density=0.3, channels=6))
        draws = torch.stack([posterior.sample().feats for _ in range(400)])
    std = (0.5 * posterior.logvar.feats).exp()
    assert abs((draws.std(0) / std).mean() - 1) < 0.01
    assert ((draws.mean(0) - posterior.mean.feats).abs() < 5 * std / 20).float().mean() > 0.999


def test_activation_checkpointing_changes_no_gradient():
    gradients = []
    for use_checkpoint in (False, True):
        torch.manual_seed(0)
        model = build("SLatFlow4DModel", **{**SPARSE_FLOW, **CONV_TYPES["3D_1D"]}, use_checkpoint=use_checkpoint)
        x = random_voxels([4], side=8, density=0.1, channels=4)
        model(x, 1000 * torch.rand(1, 4), torch.randn(1, 4, 5, 12)).feats.square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_half_precision_torso_keeps_norms_and_ends_in_float32():
    model = create_model("SLatFlow4DModel", **{**SPARSE_FLOW, **CONV_TYPES["3D_1D"]}, use_fp16=True)
    types = {key: value.dtype for key, value in model.state_dict().items()}
    assert types["blocks.0.self_attn.to_qkv.weight"] == types["input_blocks.0.conv1.conv.weight"] == torch.float16
    for key in ("input_layer.weight", "out_layer.weight", "t_embedder.mlp.0.weight", "blocks.0.norm2.weight"):
        assert types[key] == torch.float32
    assert types["blocks.0.self_attn.q_rms_norm.gamma"] == torch.float32
    x = random_voxels([3], side=8, density=0.1, channels=4)
    with torch.no_grad():
        assert model(x, torch.rand(1, 3), torch.randn(1, 3, 5, 12)).feats.dtype == torch.float32


def decoder_of(**representation: Any) -> nn.Module:
    config = representation or {"num_gaussians": 2}
    return create_model("GaussianDecoder", representation_config=config, **VAE)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: create_model("SLatFlow4DModle", **SPARSE_FLOW), "did you mean SLatFlow4DModel"),
        (lambda: create_model("SLatFlow4DModel", **SPARSE_FLOW, con_type="4D"), "did you mean conv_type"),
        (lambda: create_model("SLatFlow4DModel", resolution=8), "needs the arguments model_channels"),
        (lambda: create_model("SLatFlow4DModel", **SPARSE_FLOW), "io_block_channels_t"),
        (
            lambda: create_model("SLatFlow4DModel", **{**SPARSE_FLOW, "conv_type": "5D"}),
            "choose one of 3D_1D",
        ),
        (
            lambda: create_model("StructureFlow", **{**STRUCTURE_FLOW, "num_heads": 5}),
            "do not divide into 5 heads",
        ),
        (lambda: create_model("StructureFlow", **{**STRUCTURE_FLOW, "resolution": 5}), "patches of 2"),
        (lambda: create_model("StructureFlow", **{**STRUCTURE_FLOW, "patch_size": 0}), "patch_size = 0 must be"),
        (lambda: create_model("StructureFlow", **{**STRUCTURE_FLOW, "model_channels": 30}), "a head has 15"),
        (lambda: create_model("StructureFlow", **{**STRUCTURE_FLOW, "window_size": 0}), "window_size = 0 must be"),
        (
            lambda: create_model("SparseFlow", **SPARSE_FLOW, io_block_channels_t=[48]),
            "io_block_channels_t = .48. must be model_channels, .24.",
        ),
        (lambda: decoder_of(), "representation_config lacks voxel_size, lr"),
        (lambda: decoder_of(**GAUSSIANS, voxel_siz=2), "voxel_siz is unknown: did you mean voxel_size"),
        (lambda: decoder_of(**{**GAUSSIANS, "voxel_size": 1.0}), "voxel_size = 1.0 must be above 1"),
        (lambda: decoder_of(**{**GAUSSIANS, "lr": {"_xyz": 1.0}}), "lr lacks _features_dc"),
        (lambda: decoder_of(**{**GAUSSIANS, "opacity_bias": 1}), "opacity_bias = 1.0 must be above 0 and below 1"),
    ],
)
def test_impossible_models_are_refused(call: Any, message: str):
    with pytest.raises(ValueError, match=message):
        call()


def test_shapes_that_do_not_fit_are_refused():
    dense = create_model("StructureFlow", **STRUCTURE_FLOW)
    x, t = torch.randn(1, 2, 3, 4, 4, 4), torch.rand(1, 2)
    with pytest.raises(ValueError, match="latents must be"):
        dense(x[:, :, :2], t, None)
    with pytest.raises(ValueError, match="t must be"):
        dense(x, t[:, :1], None)
    with pytest.raises(ValueError, match="cond must be"):
        dense(x, t, torch.randn(1, 1, 5, 12))
    sparse = create_model("SLatFlow4DModel", **{**SPARSE_FLOW, **CONV_TYPES["3D_1D"]})
    voxels = random_voxels([3], side=8, density=0.1, channels=4)
    with pytest.raises(ValueError, match="4 channels per voxel"):
        sparse(voxels.replace(voxels.feats[:, :3]), t, None)
    with pytest.raises(ValueError, match="t must be"):
        sparse(voxels, t, None)
    for model, clip in ((dense, x), (sparse, random_voxels([2], side=8, density=0.1, channels=4))):
        with pytest.raises(ValueError, match=r"pixels must be .* B, T = .1, 2., got shape .1, 3, 4, 8, 8"):
            model(clip, t, None, torch.rand(1, 3, 4, 8, 8))
    decoder: Any = create_model("GaussianDecoder", representation_config=GAUSSIANS, **VAE)
    with pytest.raises(ValueError, match="not 2: pass them one by one"):
        next(decoder.frames(random_voxels([3, 3], side=8, density=0.1, channels=4)))


@pytest.mark.parametrize("options", [{}, {"attn_mode": "windowed"}, {"attn_mode": "full"}, {"pe_mode": "ape"}])
def test_frames_that_flow_through_the_gaussian_decoder_equal_those_decoded_at_once(options):
    decoder = build("SLatGaussianDecoder", representation_config=GAUSSIANS, **{**VAE, "num_blocks": 3, **options})
    voxels = random_voxels([11], side=16, density=0.02, channels=4)
    kept = voxels.coords[:, 1] != 5  # a frame without voxels
    z = SparseTensor(voxels.feats[kept], voxels.coords[kept], num_frames=11)
    with torch.no_grad():
        at_once, streamed = decoder(z)[0], list(decoder.frames(z))  # type: ignore[operator]
    assert [len(frame) for frame in streamed] == at_once.num_gaussians
    for a, b in zip(at_once, streamed, strict=True):
        for name in ("xyz", "scale", "rotation", "opacity", "sh"):
            torch.testing.assert_close(getattr(a, name), getattr(b, name), atol=2e-6, rtol=1e-5)


def test_a_new_structure_decoder_expects_as_few_cells_as_a_surface_has():
    """Whatever it decodes; from a half everywhere training would begin by learning that all is empty."""
    shape = {"num_res_blocks": 1, "channels": [8, 8], "num_res_blocks_middle": 1}
    decoder = create_model("SparseStructureDecoder", out_channels=1, latent_channels=2, **shape)
    probability = decoder(torch.randn(1, 2, 2, 4, 4, 4)).sigmoid()
    assert 0.005 < probability.mean() < 0.08
