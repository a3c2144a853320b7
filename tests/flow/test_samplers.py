"""The sampler follows the released one step by step; the path's formulas invert each other."""

from __future__ import annotations

import pytest
import torch
from golden import Golden

from ss4d.flow import FlowPath, SamplerSettings, euler_sample, euler_steps, logit_normal_times

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

    def velocity(x: torch.Tensor, t: float, conditional: bool) -> torch.Tensor:
        tau = torch.tensor(1000 * t, dtype=torch.float32)
        times.append(tau)
        c = (cond if conditional else inputs["neg_cond"]).mean((1, 2))[:, None, None]
        return 0.7 * torch.tanh(x) + c * (tau / 1000) - 0.3 * x * (1 - tau / 1000)

    steps = list(euler_steps(velocity, inputs["noise"], settings))
    assert torch.equal(torch.from_numpy(settings.times()), expected["t_seq_float64"])
    assert torch.equal(torch.stack(times), expected["model_t"])
    torch.testing.assert_close(torch.stack([s.x for s in steps]), expected["pred_x_t"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.stack([s.x0 for s in steps]), expected["pred_x_0"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        euler_sample(velocity, inputs["noise"], settings), expected["samples"], rtol=1e-5, atol=1e-5
    )


def test_the_true_velocity_leads_to_the_data_in_one_step():
    path, x0, noise = FlowPath(), torch.randn(4, 3), torch.randn(4, 3)
    sample = euler_sample(lambda x, t, c: path.velocity(x0, noise), noise, SamplerSettings(steps=1, cfg_strength=0))
    torch.testing.assert_close(sample, x0 + path.sigma_min * noise, rtol=0, atol=1e-6)


def test_path_inverts():
    path, x0, noise, t = FlowPath(), torch.randn(5, 2, 3), torch.randn(5, 2, 3), torch.rand(5)
    x_t, v = path.sample(x0, noise, t), path.velocity(x0, noise)
    torch.testing.assert_close(path.data(x_t, v, t), x0, rtol=0, atol=1e-5)
    torch.testing.assert_close(path.noise(x_t, v, t), noise, rtol=0, atol=1e-5)


def test_logit_normal_times_have_the_stated_median_and_share():
    times = logit_normal_times(20000, mean=1.0, std=1.0, share_at_one=0.25)
    assert abs((times == 1).float().mean() - 0.25) < 0.02
    assert abs(times[times < 1].median() - torch.sigmoid(torch.tensor(1.0))) < 0.02


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"rescale_t": 0.0}])
def test_impossible_settings_are_refused(wrong: dict):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SamplerSettings(**wrong)
