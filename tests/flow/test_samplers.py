"""The sampler follows the released one step by step; the true velocity leads to the data."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
import torch
from golden import Golden
from torch import Tensor
from voxels import random_voxels

from ss4d.flow import (
    FlowPath,
    ImageCondition,
    SamplerSettings,
    logit_normal_times,
    sample,
    sampling_steps,
    velocity,
)
from ss4d.flow.long_clips import TimeWindow
from ss4d.models import create_model
from ss4d.nn import Memo
from ss4d.sparse import SparseTensor

RUNS = ["euler", "euler_cond1", "cfg5", "interval7p5", "interval5_all"]


@pytest.mark.parametrize("run", RUNS)
def test_golden_sampler(run: str):
    golden = Golden.load("g_samplers")
    inputs, expected, params = golden.group("in."), golden.outputs(run), golden.info["runs"][run]["params"]
    cond = inputs["cond1"].expand(3, -1, -1) if run == "euler_cond1" else inputs["cond"]
    settings = SamplerSettings(
        steps=params["steps"],
        rescale_t=params["rescale_t"],
        cfg_strength=params.get("cfg_strength", 0.0),
        cfg_interval=tuple(params.get("cfg_interval", (0.0, 1.0))),
    )
    times = []

    def at(x: Tensor, t: float, conditional: bool) -> torch.Tensor:
        tau = torch.tensor(1000 * t, dtype=torch.float32)
        times.append(tau)
        c = (cond if conditional else inputs["neg_cond"]).mean((1, 2))[:, None, None]
        return 0.7 * torch.tanh(x) + c * (tau / 1000) - 0.3 * x * (1 - tau / 1000)

    steps = list(sampling_steps(at, inputs["noise"], settings))
    assert torch.equal(torch.from_numpy(settings.times()), expected["t_seq_float64"])
    assert torch.equal(torch.stack(times), expected["model_t"])
    torch.testing.assert_close(torch.stack(steps), expected["pred_x_t"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(steps[-1], expected["samples"], rtol=1e-5, atol=1e-5)


class Oracle:
    """A flow that knows the velocity to one sample; notes the times and conditions it is asked at."""

    def __init__(self, target: Tensor):
        self.target = target
        self.asked: list[tuple[Tensor, Tensor | None, Tensor | None]] = []

    def __call__(self, x: Any, t: Tensor, tokens: Tensor | None, pixels: Tensor | None) -> Any:
        self.asked.append((t, tokens, pixels))
        return x.replace(self.target) if isinstance(x, SparseTensor) else self.target


@pytest.mark.parametrize("sparse", [False, True])
def test_the_true_velocity_leads_to_the_data_in_one_step(sparse: bool):
    path, condition = FlowPath(), ImageCondition(torch.randn(1, 3, 5, 4))
    voxels = random_voxels([3], side=3, density=0.5, channels=2)
    noise: Any = voxels if sparse else torch.randn(1, 3, 2, 4, 4, 4)
    values = voxels.feats if sparse else noise
    x0 = torch.randn_like(values)
    flow = Oracle(path.velocity(x0, values))
    out: Any = sample(flow, noise, condition, SamplerSettings(steps=1, cfg_strength=0))
    torch.testing.assert_close(out.feats if sparse else out, x0 + path.sigma_min * values, rtol=0, atol=1e-6)
    ((t, tokens, pixels),) = flow.asked
    assert t.shape == (1, 3) and bool((t == 1000).all()) and tokens is condition.tokens and pixels is None


def test_guidance_asks_without_the_image_where_it_acts():
    flow, noise = Oracle(torch.zeros(1, 2, 1, 2, 2, 2)), torch.randn(1, 2, 1, 2, 2, 2)
    condition = ImageCondition(torch.randn(1, 2, 5, 4), torch.rand(1, 2, 4, 8, 8))
    settings = SamplerSettings(steps=2, cfg_strength=1.0, cfg_interval=(0.6, 1.0), rescale_t=1.0)
    sample(flow, noise, condition, settings)
    assert [(float(t[0, 0]), tokens is not None, pixels is not None) for t, tokens, pixels in flow.asked] == [
        (1000.0, True, True),
        (1000.0, False, False),
        (500.0, True, True),
    ]


@pytest.mark.parametrize("rescale_t", [0.1, 0.2, 1.0, 3.0])
def test_the_first_step_is_guided_and_starts_at_the_start(rescale_t: float):
    """0.1 / (1 + (0.1 - 1)), for one, is rounded to a little more than 1."""
    for start in (1.0, 0.7):
        settings = SamplerSettings(10, 3.0, cfg_interval=(0.5, start), rescale_t=rescale_t, start=start)
        times = settings.times()
        assert times[0] == pytest.approx(start) and times[-1] == 0 and (np.diff(times) < 0).all()
        assert settings.guides(times[0])


def test_each_video_has_its_own_time():
    flow = Oracle(torch.zeros(2, 3, 1, 2, 2, 2))
    velocity(flow, torch.zeros(2, 3, 1, 2, 2, 2), torch.tensor([0.25, 0.5]), None)
    assert flow.asked[0][0].tolist() == [[250.0] * 3, [500.0] * 3]


def test_logit_normal_times_have_the_stated_median_and_share():
    times = logit_normal_times(20000, mean=1.0, std=1.0, share_at_one=0.25)
    assert abs((times == 1).float().mean() - 0.25) < 0.02
    assert abs(times[times < 1].median() - torch.sigmoid(torch.tensor(1.0))) < 0.02


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"rescale_t": 0.0}])
def test_impossible_settings_are_refused(wrong: dict):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SamplerSettings(**wrong)


def test_what_is_given_goes_before_the_settings_even_a_guidance_of_zero():
    settings = SamplerSettings(steps=7, cfg_strength=5.0, rescale_t=2.0)
    assert settings.override() == settings
    assert settings.override(guidance=0.0) == SamplerSettings(steps=7, cfg_strength=0.0, rescale_t=2.0)
    assert settings.override(steps=3) == SamplerSettings(steps=3, cfg_strength=5.0, rescale_t=2.0)


def test_a_window_is_given_the_tokens_and_pictures_of_its_own_frames():
    numbers = torch.arange(10.0).view(1, 10, 1, 1)
    condition = ImageCondition(numbers, numbers[..., None].expand(1, 10, 4, 2, 2))
    part = condition.of(TimeWindow(4, 8, torch.ones(4)))
    assert part.images is not None
    assert part.tokens[0, :, 0, 0].tolist() == part.images[0, :, 0, 0, 0].tolist() == [4, 5, 6, 7]


def test_windows_share_what_may_be_kept():
    memos: list[Memo] = []

    def flow(x: Tensor, *_: object, memo: Memo) -> Tensor:
        memos.append(memo)
        return x

    settings, condition = SamplerSettings(steps=1, cfg_strength=0.0), ImageCondition(torch.zeros(1, 26, 1, 1))
    sample(flow, torch.zeros(1, 26, 1, 1, 1, 1), condition, settings, keep=1000, window=16)  # two windows
    assert [memo.left for memo in memos] == [500, 500] and memos[0] is not memos[1]


@pytest.mark.parametrize("budget", [2**20, 5000])  # all three layers fit; two, of 2304 bytes each, do
def test_what_is_kept_of_the_condition_between_steps_changes_nothing(budget: int):
    """Both flows, guided; with a budget the projections of image tokens are computed once or, beyond it, each time."""
    args: dict[str, Any] = {"in_channels": 2, "out_channels": 2, "model_channels": 24, "cond_channels": 5}
    args |= {"num_blocks": 3, "num_heads": 2, "resolution": 4, "qk_rms_norm": True, "qk_rms_norm_cross": True}
    settings = SamplerSettings(steps=3, cfg_strength=2.0, cfg_interval=(0.5, 1.0))
    condition = ImageCondition(torch.randn(1, 3, 4, 5))
    structure = create_model("StructureFlow", **args)
    sparse = create_model("SparseFlow", **args, io_block_channels=[24], io_block_channels_t=[24])
    voxels = random_voxels([3], side=4, density=0.5, channels=2)
    for flow, noise in ((structure, torch.randn(1, 3, 2, 4, 4, 4)), (sparse, voxels)):
        for parameter in flow.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        calls: list[Any] = []
        for block in flow.blocks:  # type: ignore[union-attr]
            block.cross_attn.to_kv.register_forward_hook(lambda *call, into=calls: into.append(call))
        ends: list[Any] = []
        for keep in (0, budget):
            calls.clear()
            ends.append(sample(flow, noise, condition, settings, keep=keep))
        assert len(calls) == (3 if budget > 10**6 else 3 + 2)
        plain, kept = (end.feats if isinstance(end, SparseTensor) else end for end in ends)
        torch.testing.assert_close(kept, plain, rtol=1e-5, atol=1e-6)


def test_a_step_is_forgotten_when_the_next_is_made():
    seen: list[weakref.ref] = []

    class Flow:
        def __call__(self, x: torch.Tensor, *_: object) -> torch.Tensor:
            seen.append(weakref.ref(x))
            assert sum(state() is not None for state in seen) <= 3
            return x * 0.5

    noise = torch.randn(1, 2, 2, 4, 4, 4)
    sample(Flow(), noise, ImageCondition(torch.randn(1, 2, 4, 5)), SamplerSettings(steps=12, cfg_strength=0.0))
    assert len(seen) == 12


def test_guidance_shares_the_first_self_attention():
    """With room to keep it, the branch without the image takes it from the one with; never from other latents."""
    args: dict[str, Any] = {"in_channels": 2, "out_channels": 2, "model_channels": 24, "cond_channels": 5}
    flow = create_model("StructureFlow", **args, num_blocks=2, num_heads=2, resolution=4)
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    calls: list[Any] = []
    flow.blocks[0].self_attn.register_forward_hook(lambda *call: calls.append(call))  # type: ignore[index, union-attr]
    x, other, tokens = torch.randn(1, 3, 2, 4, 4, 4), torch.randn(1, 3, 2, 4, 4, 4), torch.randn(1, 3, 4, 5)
    condition, memo = ImageCondition(tokens), Memo(2**20)
    asked = [(x, 0.5, condition), (x, 0.5, None), (x, 0.5, None), (x, 0.4, condition), (other, 0.4, None)]
    asked += [(x, 0.4, condition), (x, 0.3, None)]
    with torch.no_grad():
        plain = [velocity(flow, latents, t, given) for latents, t, given in asked]
        calls.clear()
        shared = [velocity(flow, latents, t, given, memo) for latents, t, given in asked]
    assert len(calls) == len(asked) - 1
    torch.testing.assert_close(shared, plain, rtol=1e-5, atol=1e-6)


def test_sampling_from_an_estimate_walks_from_its_time_to_zero():
    """x at `start` is the path's own point, so a flow that knows the data leads back to it."""
    torch.manual_seed(0)
    data, noise = torch.randn(2, 3), torch.randn(2, 3)
    settings = SamplerSettings(steps=4, cfg_strength=0.0, rescale_t=3.0, start=0.6)
    assert settings.times()[0] == 0.6 and settings.times()[-1] == 0
    first = settings.first(noise, data)
    torch.testing.assert_close(first, 0.4 * data + 0.6 * noise, atol=1e-4, rtol=0)
    *_, end = sampling_steps(lambda x, t, conditional: noise - data, first, settings)
    torch.testing.assert_close(end, data, atol=1e-4, rtol=0)
    assert torch.equal(settings.first(noise), noise)
    with pytest.raises(ValueError, match=r"start = 0.0 must lie above 0 and at most at 1"):
        SamplerSettings(start=0.0)
