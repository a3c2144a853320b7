"""Learning rate, clipping, loss scale and averages against values worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from small_runs import resolve
from torch import nn

from ss4d.training.optimization import HISTORY, GradientClipper, LossScale, WeightAverage, adamw, learning_rate
from ss4d.training.phases import read_phases
from ss4d.training.settings import TrainSettings


@pytest.fixture(scope="module")
def settings() -> TrainSettings:
    config = resolve(["experiment=structure_flow/tiny", "phases=null", "train.steps=111", "train.warmup_steps=10"])
    train = read_phases(config)[0].train
    return replace(train, steps=111, warmup_steps=10, learning_rate=1.0, final_learning_rate=0.2)


def test_learning_rate_warms_up_and_follows_a_cosine(settings: TrainSettings):
    assert learning_rate(settings, 0) == pytest.approx(0.1)
    assert learning_rate(settings, 9) == learning_rate(settings, 10) == 1.0
    assert learning_rate(settings, 60) == pytest.approx(0.6)  # half way
    assert learning_rate(settings, 110) == pytest.approx(0.2)  # the last of 111 steps
    for steps, expected in {11: [1.0, 0.2], 12: [1.0, 1.0, 0.2], 10: [1.0]}.items():
        short = replace(settings, steps=steps)
        assert [learning_rate(short, step) for step in range(9, steps)] == pytest.approx(expected)


def parameter(gradient: list[float]) -> nn.Parameter:
    result = nn.Parameter(torch.zeros(len(gradient)))
    result.grad = torch.tensor(gradient)
    return result


def test_gradients_are_unscaled_and_clipped_together():
    a, b = parameter([30.0]), parameter([40.0])
    assert GradientClipper(1.0, None).clip([a, b], scale=10.0) == pytest.approx(5.0)
    assert a.grad is not None and b.grad is not None
    assert [a.grad.item(), b.grad.item()] == pytest.approx([0.6, 0.8], rel=1e-5)
    small = parameter([0.3])
    GradientClipper(1.0, None).clip([small], scale=1.0)
    assert small.grad is not None and small.grad.item() == pytest.approx(0.3)


def test_adaptive_clipping_takes_a_percentile_of_recent_norms():
    clipper = GradientClipper(100.0, 90, history=[float(n) for n in range(1, HISTORY + 1)])
    assert clipper.threshold() == 100.0  # the fixed limit is lower
    clipper.history = [n / HISTORY for n in range(HISTORY)]
    assert clipper.threshold() == pytest.approx(0.9)
    clipper.history = clipper.history[: HISTORY // 10 - 1]
    assert clipper.threshold() == 100.0  # too few to say


def test_the_history_of_norms_is_of_those_before_clipping():
    clipper = GradientClipper(1.0, None)
    clipper.clip([parameter([60.0, 80.0])], scale=1.0)
    assert clipper.history == [pytest.approx(100.0)]


def test_good_steps_are_counted_anew_after_an_overflow():
    scale = LossScale(8.0, fixed=False, good_steps=999)
    scale.update(False)
    scale.update(True)
    assert scale.value == 4.0 and scale.good_steps == 1


def test_an_overflow_halves_the_loss_scale_and_leaves_gradients_alone():
    clipper, scale, broken = GradientClipper(1.0, None), LossScale.of("fp16"), parameter([math.inf])
    norm = clipper.clip([broken], scale.value)
    scale.update(math.isfinite(norm))
    assert scale.value == 2.0**15 and clipper.history == []
    for _ in range(1000):
        scale.update(True)
    assert scale.value == 2.0**16
    fixed = LossScale.of("bf16")
    fixed.update(False)
    assert fixed.value == 1.0


def test_the_average_follows_the_weights_and_can_stand_in_for_them():
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(0.0)
        average = WeightAverage(model)
        model.weight.fill_(1.0)
        average.update(model, decay=0.9, step=1000)
        assert average.tensors["weight"].item() == pytest.approx(0.1)
        average.update(model, decay=0.9999, step=0)  # warming up: decay 1 / 10
        assert average.tensors["weight"].item() == pytest.approx(0.91)
    average.swap(model)
    assert model.weight.item() == pytest.approx(0.91) and average.tensors["weight"].item() == 1.0
    average.swap(model)
    assert model.weight.item() == 1.0


def test_adamw_with_its_state_made_ahead_is_adamw(settings: TrainSettings):
    ahead, plain = nn.Linear(3, 2), nn.Linear(3, 2)
    plain.load_state_dict(ahead.state_dict())
    optimizers = [
        adamw(ahead.parameters(), settings),
        torch.optim.AdamW(plain.parameters(), 1.0, betas=(0.9, 0.99), weight_decay=settings.weight_decay),
    ]
    for seed in range(3):
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
        for model, optimizer in zip((ahead, plain), optimizers, strict=True):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
    assert torch.equal(ahead.weight, plain.weight)
