"""Losses, times and dropout against numbers worked out by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import MODELS
from torch import Tensor, nn
from voxels import random_voxels

from ss4d.data import FeatureBatch
from ss4d.data.artifact import VoxelRows, collate_voxels
from ss4d.data.latents import SparseLatentBatch, StructureLatents
from ss4d.data.occupancy import Occupancy
from ss4d.gaussians import Gaussians, GaussianSequence
from ss4d.metrics.lpips import LPIPS
from ss4d.models import create_model
from ss4d.models.base import Posterior, SparsePosterior
from ss4d.sparse import SparseTensor
from ss4d.training.objectives import Objective, create_objective, objective_options, sparse_vae
from ss4d.training.objectives.dice import dice_loss, silhouette_dice_loss

SIGMA = 1e-5  # least noise of the path
VAE_ARGS: dict[str, Any] = {"latent_channels": 4, "num_res_blocks": 1, "num_res_blocks_middle": 1, "channels": [4, 4]}


def built(name: str, **options: Any) -> Objective:
    """An objective with small models."""
    models = {
        "structure_flow": {"flow": "sparse_structure_flow_model", "image_encoder": "image_encoder"},
        "sparse_flow": {"flow": "slat_flow_model", "image_encoder": "image_encoder"},
    }[name]
    made = {key: create_model(MODELS[stem][0], **MODELS[stem][1]) for key, stem in models.items()}
    return create_objective(made, objective_options({"name": name, **options}))


class Recorded(nn.Module):
    """A flow that predicts `value` everywhere, and keeps what it was given."""

    def __init__(self, value: float):
        super().__init__()
        self.value = value
        self.given: list[Any] = []

    def forward(self, x: Any, times: Tensor, *given: Tensor) -> Any:
        self.given.append((x, times, *given))
        if isinstance(x, Tensor):
            return torch.full_like(x, self.value)
        return x.replace(torch.full_like(x.feats, self.value))


def test_the_flow_loss_is_the_error_of_the_velocity():
    objective, flow = built("structure_flow"), Recorded(0.25)
    objective.models["flow"] = flow
    x0 = torch.randn(3, 2, 4, 8, 8, 8)
    loss = objective(StructureLatents(x0, torch.rand(3, 2, 4, 32, 32)), torch.Generator().manual_seed(3))
    ((x, times, *_),) = flow.given
    t = times[:, 0].double() / 1000  # of a model runs to 1000, and is the same in all frames of a clip
    assert torch.equal(times, times[:, :1].expand(-1, 2)) and len(set(t.tolist())) == 3
    t = t[:, None, None, None, None, None]
    noise = (x.double() - (1 - t) * x0) / (SIGMA + (1 - SIGMA) * t)
    assert abs(noise.mean()) < 0.05 and noise.std() == pytest.approx(1, abs=0.05)
    expected = (0.25 - ((1 - SIGMA) * noise - x0)).square().mean()
    assert float(loss.total) == pytest.approx(float(expected), rel=1e-4)


class FirstChannel(nn.Module):
    """A decoder of structure latents: a cell is occupied where the first channel is positive."""

    def forward(self, z: Tensor) -> Tensor:
        return 40 * z[:, :, :1]


class Exact(nn.Module):
    """A flow that knows x_0: its velocity points there from wherever it is."""

    def __init__(self, x0: Tensor):
        super().__init__()
        self.x0 = x0

    def forward(self, x: Tensor, times: Tensor, *given: Tensor) -> Tensor:
        t = times[:, :, None, None, None, None].clamp(min=1e-3) / 1000
        return (x - self.x0) / t


def test_dice_of_grids_and_of_their_silhouettes():
    left, right = torch.full((2, 1, 4, 4, 4), -50.0), torch.zeros(2, 1, 4, 4, 4)
    left[:, :, :2, :, 1] = 50  # 8 cells, 4 of them shared
    right[:, :, 1:3, :, 1] = 1
    assert float(dice_loss(left, right)) == pytest.approx(1 - 9 / 17)
    assert float(dice_loss(50 * (2 * right - 1), right)) == pytest.approx(0, abs=1e-6)
    deeper = torch.roll(right, 1, dims=2)  # along x: its silhouette along x is the same, along y and z as the cells
    moved = 50 * (2 * deeper - 1)
    along_y, along_z = 1 - 3 / 5, 1 - 9 / 17  # 2 and 8 cells, half of them shared
    assert float(silhouette_dice_loss(moved, right)) == pytest.approx((0 + along_y + along_z) / 3)


def test_the_occupancy_of_the_estimate_counts_where_the_condition_is_kept():
    x0 = torch.randn(4, 1, 4, 8, 8, 8)
    batch = StructureLatents(x0, torch.rand(4, 1, 4, 32, 32))

    def dice(flow: nn.Module, drop: float) -> tuple[float, float]:
        options = {"occupancy_weight": 0.5, "occupancy_share": 0.5, "drop_condition": drop}
        objective = built("structure_flow", structure_decoder="given", **options)
        objective.models["flow"], objective.frozen["structure_decoder"] = flow, FirstChannel()
        loss = objective(batch, torch.Generator().manual_seed(0))
        found = float(loss.metrics["dice"])
        assert float(loss.total) == pytest.approx(float(loss.metrics["velocity_error"]) + 0.5 * found)
        assert float(loss.metrics["loss"]) == float(loss.total)
        return found, float(loss.total)

    assert dice(Exact(x0), drop=0.0)[0] < 0.02  # cells near the threshold and noise at t = 0 are left
    # Nothing is found where everything is: overlap 0.
    assert dice(Exact(torch.full_like(x0, -5.0)), drop=0.0)[0] > 0.9
    assert dice(Exact(torch.full_like(x0, -5.0)), drop=1.0)[0] == 0


@pytest.mark.parametrize("sizes", [(2, 30), (2, 30, 0), (0, 30)])
def test_every_clip_of_voxels_counts_alike(sizes: tuple[int, ...]):
    """Not every voxel: the error is averaged in a clip first, and latents are normalised channel by channel. A clip
    without voxels does not count."""
    objective, flow = built("sparse_flow"), Recorded(0.0)
    objective.models["flow"] = flow
    mean, std = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.0, 2.0, 1.0, 2.0])
    objective.normalisation = SimpleNamespace(mean=mean, std=std)  # type: ignore[assignment]
    rows = []
    for size in sizes:
        cells = torch.arange(size)
        coords = torch.stack([0 * cells, cells % 16, cells // 16, 0 * cells], dim=1).int()
        rows.append(VoxelRows(coords, torch.randn(size, 4), 1))
    batch = SparseLatentBatch(collate_voxels(rows), torch.rand(len(sizes), 1, 4, 32, 32))
    loss = objective(batch, torch.Generator().manual_seed(0))
    ((x, times, *_),) = flow.given
    errors = []
    for video, (row, values) in enumerate(zip(rows, x.feats.double().split(sizes), strict=True)):
        x0, t = (row.values - mean) / std, float(times[video, 0]) / 1000
        noise = (values - (1 - t) * x0) / (SIGMA + (1 - SIGMA) * t)
        errors += [float(((1 - SIGMA) * noise - x0).square().mean())] if sizes[video] else []
    assert float(loss.total) == pytest.approx(sum(errors) / len(errors), rel=1e-4)


def test_the_condition_is_dropped_for_whole_windows_as_often_as_said():
    objective = built("structure_flow", drop_condition=0.3)
    generator, dropped = torch.Generator().manual_seed(0), 0
    for _ in range(40):
        cond = objective.condition(torch.rand(50, 2, 4, 32, 32), generator)  # type: ignore[operator]
        gone = cond.tokens.flatten(1).abs().sum(1) == 0
        assert torch.equal(gone, cond.pixels.flatten(1).abs().sum(1) == 0)
        dropped += int(gone.sum())
    assert dropped / 2000 == pytest.approx(0.3, abs=4 * math.sqrt(0.3 * 0.7 / 2000))


def test_times_are_logit_normal_with_a_share_at_one():
    objective = built("structure_flow", time_mean=1.0, time_std=0.5, time_share_at_one=0.2)
    t = objective.times(20000, torch.Generator().manual_seed(0))  # type: ignore[operator]
    assert float((t == 1).float().mean()) == pytest.approx(0.2, abs=0.012)
    logits = torch.logit(t[t < 1].double())
    assert float(logits.mean()) == pytest.approx(1.0, abs=0.02) and float(logits.std()) == pytest.approx(0.5, abs=0.02)


class Fixed(nn.Module):
    def __init__(self, value: Any):
        super().__init__()
        self.value = value

    def forward(self, _: Any) -> Any:
        return self.value


def test_the_structure_vae_is_entropy_dice_and_divergence():
    """Two cells of which one is occupied, at probabilities 0.8 and 0.4."""
    made = {
        "encoder": create_model("SparseStructureEncoder", **VAE_ARGS, in_channels=1),
        "decoder": create_model("SparseStructureDecoder", **VAE_ARGS, out_channels=1),
    }
    objective = create_objective(made, objective_options({"name": "structure_vae", "kl_weight": 0.5}))
    logits = torch.logit(torch.tensor([0.8, 0.4])).reshape(1, 1, 1, 1, 1, 2)
    posterior = Posterior(torch.tensor([2.0, 0.0]), torch.tensor([0.0, math.log(4)]))
    objective.models["encoder"], objective.models["decoder"] = Fixed(posterior), Fixed(logits)
    batch = Occupancy(torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 1, 1, 2))
    loss = objective(batch, torch.Generator())
    entropy = -(math.log(0.8) + math.log(0.6)) / 2
    dice = 1 - (2 * 0.8 + 1) / (1.2 + 1 + 1)
    kl = ((2**2) / 2 + (4 - 1 - math.log(4)) / 2) / 2  # of a shifted and of a widened normal
    assert float(loss.total) == pytest.approx(entropy + dice + 0.5 * kl, rel=1e-5)
    assert float(loss.metrics["iou"]) == 1.0


def test_the_sparse_vae_decodes_latents_drawn_from_the_posterior():
    decoded: list[Tensor] = []

    class Decoder(nn.Module):
        def forward(self, latents: SparseTensor) -> list[GaussianSequence]:
            decoded.append(latents.feats)
            return [GaussianSequence([])]

    options = objective_options({"name": "sparse_vae", "encoder": "none"})
    name, args = MODELS["slat_decoder_gs"]
    objective = sparse_vae.SparseVAEObjective({"decoder": create_model(name, **args)}, options)
    voxels = random_voxels([1], side=16, density=0.5, channels=4)
    mean, logvar = torch.full_like(voxels.feats, 3.0), torch.full_like(voxels.feats, math.log(4))
    posterior = SparsePosterior(voxels.replace(mean), voxels.replace(logvar))
    objective.frozen["encoder"], objective.models["decoder"] = Fixed(posterior), Decoder()
    for seed in (0, 1):
        objective(FeatureBatch(voxels, [[]]), torch.Generator().manual_seed(seed))
        assert float(decoded[seed].mean()) == pytest.approx(3, abs=0.1)
        assert float(decoded[seed].std()) == pytest.approx(2, abs=0.1)
    assert not torch.equal(*decoded)


def test_the_sparse_vae_is_of_pictures_divergence_volume_and_opacity(monkeypatch: pytest.MonkeyPatch):
    """Uniform pictures 0.2 apart, whose SSIM is that of their means alone."""
    colour, target = torch.full((3, 16, 16), 0.5), torch.full((3, 16, 16), 0.7)
    monkeypatch.setattr(sparse_vae, "_rendering_and_target", lambda *_: (colour, target))
    options = objective_options(
        {"name": "sparse_vae", "kl_weight": 0.1, "volume_weight": 100.0, "opacity_weight": 0.01, "encoder": "none"}
    )
    name, args = MODELS["slat_decoder_gs"]
    objective = sparse_vae.SparseVAEObjective({"decoder": create_model(name, **args)}, options)
    gaussians = Gaussians(
        xyz=torch.zeros(2, 3),
        scale=torch.tensor([[0.1, 0.1, 0.1], [0.2, 0.1, 0.1]]),
        rotation=torch.tensor([[1.0, 0, 0, 0]]).expand(2, 4),
        opacity=torch.tensor([[0.9], [0.5]]),
        sh=torch.zeros(2, 1, 3),
    )
    views: Any = [[None, None]]
    loss = objective._rendering_loss(views, torch.tensor(3.0), [GaussianSequence([gaussians] * 2)], torch.Generator())
    constant = 0.01**2
    ssim = (2 * 0.5 * 0.7 + constant) / (0.5**2 + 0.7**2 + constant)
    volume, opacity = np.mean([0.001, 0.002]), np.mean([0.1**2, 0.5**2])
    expected = 0.2 + 0.2 * (1 - ssim) + 0.1 * 3.0 + 100 * volume + 0.01 * opacity
    assert float(loss.total) == pytest.approx(expected, rel=1e-4)
    assert float(loss.metrics["psnr"]) == pytest.approx(-10 * math.log10(0.04), rel=1e-5)


def test_the_divergence_of_half_precision_posteriors_is_not_rounded():
    mean, logvar = torch.full((1, 1000, 4), 0.02), torch.full((1, 1000, 4), -0.02)
    mean, logvar = mean.bfloat16(), logvar.bfloat16()
    exact = 0.5 * (mean.double() ** 2 + logvar.double().exp() - 1 - logvar.double()).mean()
    assert float(Posterior(mean, logvar).kl()) == pytest.approx(float(exact), rel=1e-3)


def test_lpips_adds_its_distances_and_keeps_little_for_the_backward_pass(monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    lpips = LPIPS("alex").requires_grad_(False).eval()
    for name, parameter in lpips.named_parameters():
        if name.startswith("lin"):
            torch.nn.init.uniform_(parameter)
    colour, target = torch.rand(3, 64, 64, requires_grad=True), torch.rand(3, 64, 64)
    monkeypatch.setattr(sparse_vae, "_rendering_and_target", lambda *_: (colour, target))
    options = objective_options(
        {"name": "sparse_vae", "ssim_weight": 0.0, "lpips_weight": 0.5, "volume_weight": 0.0, "opacity_weight": 0.0}
    )
    name, args = MODELS["slat_decoder_gs"]
    objective = sparse_vae.SparseVAEObjective({"decoder": create_model(name, **args)}, options)
    objective.frozen["lpips"] = lpips
    gaussians = Gaussians(*(torch.rand(2, *shape) for shape in ((3,), (3,), (4,), (1,), (1, 3))))
    views: Any = [[None]]

    def loss_and_bytes_kept() -> tuple[Any, int]:
        kept: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            sequences = [GaussianSequence([gaussians])]
            loss = objective._rendering_loss(views, torch.tensor(0.0), sequences, torch.Generator())
        return loss, sum(kept.values())

    loss, with_lpips = loss_and_bytes_kept()
    (got,) = torch.autograd.grad(loss.total, colour)
    distance = lpips(colour[None], target[None])[0]
    (expected,) = torch.autograd.grad((colour - target).abs().mean() + 0.5 * distance, colour)
    assert float(loss.metrics["lpips"]) == pytest.approx(float(distance))
    torch.testing.assert_close(got, expected)
    del objective.frozen["lpips"]
    assert with_lpips - loss_and_bytes_kept()[1] < 4 * 4 * colour.numel()  # its features would be ten times as much
