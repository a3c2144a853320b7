"""`dry_run` at the paper's size against numbers worked out by hand, without data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from small_runs import fit, logged, resolve, same_weights

from ss4d.training.cost import phase_cost
from ss4d.training.phases import read_phases
from ss4d.training.run import run


def cost(experiment: str, phase: int, *changes: str) -> Any:
    config = resolve([f"experiment={experiment}/paper", *changes])
    options: Any = OmegaConf.to_container(config, resolve=True)
    return phase_cost(read_phases(config)[phase], options, 8)


def test_structure_flow_at_32_frames():
    made = cost("structure_flow", 2)
    assert (made.clips, made.frames, made.tokens) == (2, 32, 2 * 32 * 16**3)
    # A token of a block: q, k, v and out 4 C^2, cross q and out 2 C^2, feed-forward 8 C^2 multiply-adds.
    channels, tokens, blocks = 1024, made.tokens, 24
    products = 2 * 14 * channels**2 * tokens
    # Self-attention in windows of 8 frames of 4096 tokens (shifted ones are 4, 8, 8, 8, 4: 6.5 + ... on average 7).
    self_attention = 4 * channels * tokens * 4096 * (8 + 7) / 2
    cross_attention = 4 * channels * tokens * 1374 + 2 * 2 * channels**2 * 1374 * 64
    forward = blocks * (products + self_attention + cross_attention)
    assert made.trained["flow"].flops == pytest.approx(forward, rel=0.05)
    assert made.trained["flow"].parameters == 555_543_560
    # Weights, gradients, two moments, average: 5 x 4 bytes over 8 GPUs, beside an autocast copy and DINOv2.
    assert made.state_bytes == pytest.approx(555.5e6 * 22 / 8 + 304e6 * 6, rel=0.05)


def test_sparse_vae_and_structure_vae():
    vae = cost("sparse_vae", 2)
    tokens = 32 * 6394
    # 12 C^2 multiply-adds a token and block, plus attention in windows.
    products = 2 * 12 * 12 * 768**2 * tokens
    assert products < vae.trained["encoder"].flops < 1.5 * products
    assert vae.trained["decoder"].parameters == 85_369_024
    structure = cost("structure_vae", 0)
    # Most of the encoder's work: 27 C^2 multiply-adds a cell and convolution; 4 at 64^3, 4 at 32^3, 8 at 16^3.
    cells = 64**3 * 4 * 32**2 + 32**3 * 4 * 128**2 + 16**3 * 8 * 512**2
    assert structure.trained["encoder"].flops == pytest.approx(4 * 2 * 27 * cells, rel=0.05)


def test_a_budget_decides_how_much_is_recomputed():
    free, tight = cost("sparse_flow", 0, "train.activation_gb=null"), cost("sparse_flow", 2, "train.activation_gb=30")
    assert free.share == 0 < tight.share <= 1
    assert tight.activation_bytes <= 30e9
    with pytest.raises(ValueError, match=r"train.activation_gb = 1.0, but with all blocks recomputed .* GB: lower"):
        cost("structure_flow", 2, "train.activation_gb=1.0")


def test_the_largest_clips_of_a_set_are_what_a_budget_is_for():
    config = resolve(["experiment=sparse_vae/paper", "train.activation_gb=56"])
    options: Any = OmegaConf.to_container(config, resolve=True)
    phases = read_phases(config)
    for phase in phases[:2]:
        typical, largest = (phase_cost(phase, options, 8, voxels) for voxels in (None, 12_000))
        assert largest.tokens == min(phase.data.tokens_per_batch, phase.data.max_clips * largest.frames * 12_000)
        assert largest.share > typical.share
        assert largest.activation_bytes <= 56e9 < typical.activation_bytes * largest.tokens / typical.tokens


def test_frozen_parameters_cost_no_gradient_and_no_moments():
    plain, frozen = (cost("sparse_vae", 0, *lines) for lines in ([], ['train.freeze=["encoder.*","decoder.out*"]']))
    encoder, decoder = frozen.trained["encoder"], frozen.trained["decoder"]
    assert (encoder.still, plain.trained["encoder"].still) == (encoder.parameters, 0)
    assert encoder.step_flops() == encoder.flops  # a forward pass alone
    assert 0 < decoder.still < decoder.parameters
    share = decoder.still / decoder.parameters
    assert decoder.step_flops() == pytest.approx((3 - share) * decoder.flops)
    # Gradient and two moments less, 4 bytes each, over the processes that share them.
    less = (encoder.still + decoder.still) * 3 * 4 / plain.shards
    assert plain.state_bytes - frozen.state_bytes == pytest.approx(less)
    assert f"{encoder.still:,} parameters do not learn" in str(frozen) and "do not learn" not in str(plain)


def test_recomputing_changes_no_weight(tmp_path: Path, clip_folder: Path):
    lines = ["train.steps=3", "train.precision=fp32"]
    for name, budget in (("plain", "null"), ("recomputed", "0.004")):
        fit("structure_flow", clip_folder, tmp_path, *lines, f"train.activation_gb={budget}", folder=name)
    assert same_weights(tmp_path / "plain", tmp_path / "recomputed")
    assert logged(tmp_path / "plain") == logged(tmp_path / "recomputed")


def test_dry_run_prints_the_schedule_and_touches_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run(resolve(["experiment=sparse_flow/paper", "dry_run=true", "data.root=/nowhere", f"run_dir={tmp_path / 'run'}"]))
    printed = capsys.readouterr().out
    assert "batch_size 2 x gpus 8 x accumulation 1 = 16 clips of up to 8 frames a step" in printed
    assert "phase frames32" in printed and "644,503,432" in printed and "TFLOP" in printed
    assert not (tmp_path / "run").exists()
