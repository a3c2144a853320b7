"""The schedule and what AdamW takes are what was asked for; nothing of it is ignored."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_runs import fit, logged, overrides, resolve
from torch import nn

from ss4d.models import create_model
from ss4d.training.optimization import GradientClipper, adamw
from ss4d.training.phases import read_phases
from ss4d.training.run import run

STEPS = ["train.steps=4", "train.learning_rate=1e-3", "train.final_learning_rate=1e-4"]


def test_the_last_step_has_the_final_learning_rate(clip_folder: Path, tmp_path: Path):
    run_dir = fit("structure_vae", clip_folder, tmp_path, *STEPS)
    half = 1e-4 + 0.5 * 9e-4 * (1 + math.cos(math.pi / 2))
    assert logged(run_dir, "learning_rate") == pytest.approx([1e-3, 1e-3, half, 1e-4], rel=1e-4)


def test_betas_epsilon_and_weight_decay_reach_adamw():
    lines = ["experiment=structure_vae/tiny", "train.betas=[0.5,0.6]", "train.epsilon=0.1", "train.weight_decay=0.2"]
    settings = read_phases(resolve(lines))[0].train
    ours, plain = nn.Linear(3, 2), nn.Linear(3, 2)
    plain.load_state_dict(ours.state_dict())
    rate = settings.learning_rate
    optimizers = [
        adamw(ours.parameters(), settings),
        torch.optim.AdamW(plain.parameters(), rate, betas=(0.5, 0.6), eps=0.1, weight_decay=0.2),
    ]
    for model, optimizer in zip((ours, plain), optimizers, strict=True):
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(1, 3)).square().sum().backward()
            optimizer.step()
    assert torch.equal(ours.weight, plain.weight)
    other = adamw(nn.Linear(3, 2).parameters(), replace(settings, betas=(0.9, 0.99)))
    assert other.param_groups[0]["betas"] == (0.9, 0.99)


def test_what_is_frozen_by_name_stays_as_it_was(clip_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    freeze = "train.freeze=[encoder.*,decoder.out_layer.*]"
    run_dir = fit("structure_vae", clip_folder, tmp_path, *STEPS, freeze)
    torch.manual_seed(0)
    config = resolve(overrides("structure_vae", clip_folder, run_dir))
    learning = total = 0
    for name in ("encoder", "decoder"):
        model = create_model(config.models[name].name, **config.models[name].args)
        trained = load_file(run_dir / f"ckpts/{name}.safetensors")
        for key, value in model.named_parameters():
            frozen = name == "encoder" or key.startswith("out_layer.")
            total, learning = total + value.numel(), learning + (0 if frozen else value.numel())
            if frozen:
                assert torch.equal(value, trained[key]), key
        if name == "decoder":
            assert not torch.equal(model.state_dict()["input_layer.weight"], trained["input_layer.weight"])
    assert f"{learning:,} of {total:,} parameters learn" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r'train\.freeze = \[\] instead of \["encoder\.\*", "decoder\.out'):
        fit("structure_vae", clip_folder, tmp_path, *STEPS, "train.steps=5")


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("encodr.*", r"train\.freeze: no parameter fits encodr\.\*: names are such as encoder\."),
        ("encoder.input_layer.wight", r"did you mean encoder\.input_layer\.weight\?"),
        ("'*'", r"train\.freeze = \['\*'\] leaves no parameter to learn"),
    ],
)
def test_a_pattern_that_freezes_nothing_or_everything_is_refused(
    pattern: str, message: str, clip_folder: Path, tmp_path: Path
):
    with pytest.raises(ValueError, match=message):
        fit("structure_vae", clip_folder, tmp_path, *STEPS, f"train.freeze=[{pattern}]")
    assert not (tmp_path / "structure_vae").exists()


def test_gradient_clip_null_clips_nothing():
    weight = nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3e6, 4e6])
    assert GradientClipper(None, None).clip([weight], scale=1.0) == pytest.approx(5e6)
    assert weight.grad.tolist() == [3e6, 4e6]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["frames=[4]"],
            r"frames = \[4\] would be ignored, for every phase has frames of its own: set phases\.a\.frames",
        ),
        (["batch_size=2"], r"batch_size = 2 would be ignored, for every phase has batch_size of its own"),
        (["data.max_stride=2"], r"data\.max_stride = 2 would be ignored, .*: set phases\.a\.data\.max_stride"),
        (["data.frames=[4]"], r"phases\.a sets frames = \[1\], but data\.frames = \[4\] is given as well: give one of"),
        (["train.freeze=[a]"], r"phases\.a\.train\.freeze .* must be the same|train\.freeze, which must be the same"),
    ],
)
def test_what_phases_set_for_themselves_is_never_ignored(lines: list[str], message: str, tmp_path: Path):
    phase = "frames:[1],batch_size:1,data:{max_stride:1},train:{steps:1,freeze:%s}"
    phases = [f"+phases.{name}={{{phase % freeze}}}" for name, freeze in (("a", "[x]"), ("b", "[y]"))]
    if "freeze" not in lines[0]:
        phases = [text.replace("[y]", "[x]") for text in phases]
    with pytest.raises(ValueError, match=message):
        lines = [line for line in lines if "freeze" not in line]
        run(resolve(["experiment=structure_vae/paper", "train.steps=???", *phases, *lines, "dry_run=true"]))


def test_what_some_phases_set_for_themselves_is_said():
    lines = ["experiment=structure_flow/tiny", "frames=[4]"]
    with pytest.warns(UserWarning, match=r"frames holds in the phases single, varied; frames8, frames16 set their own"):
        phases = read_phases(resolve(lines))
    assert [list(phase.data.frames) for phase in phases] == [[4], [4], [8], [16]]


def test_a_warm_up_without_an_end_is_said():
    with pytest.warns(UserWarning, match=r"train\.warmup_steps = 9 leaves none of 5 steps for the schedule after it"):
        read_phases(resolve(["experiment=structure_vae/paper", "train.steps=5", "train.warmup_steps=9"]))


def test_weights_of_the_loss_may_differ_from_phase_to_phase(clip_folder: Path, tmp_path: Path):
    phases = [
        f"+phases.{name}={{train:{{steps:2}},objective:{{kl_weight:{weight}}}}}"
        for name, weight in (("a", 0), ("b", 3))
    ]
    run_dir = fit("structure_vae", clip_folder, tmp_path, "train.steps=???", *phases)
    loss, entropy, dice, kl = (logged(run_dir, name) for name in ("loss", "bce", "dice", "kl"))
    rest = [total - a - b for total, a, b in zip(loss, entropy, dice, strict=True)]
    assert rest == pytest.approx([0, 0, 3 * kl[2], 3 * kl[3]], abs=1e-4) and min(kl) > 0.01


def test_what_is_no_number_stays_the_same_in_all_phases():
    line = "+phases.varied.objective={positional_init:false}"
    with pytest.raises(
        ValueError, match=r"^phases\.varied sets objective\.positional_init; a phase may set its numbers alone$"
    ):
        read_phases(resolve(["experiment=structure_flow/tiny", line]))
