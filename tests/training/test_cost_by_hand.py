"""Estimates against arithmetic: the full-size flows, a step, and what to recompute."""

from __future__ import annotations

from functools import cache

import pytest

from ss4d.models.base import blocks_of
from ss4d.training.cost import PhaseCost, share_to_recompute
from ss4d.training.counting import ModelCost, model_cost, synthetic_clip
from ss4d.training.tally import Part

PAPER_FLOW = {
    "in_channels": 8,
    "out_channels": 8,
    "model_channels": 1024,
    "cond_channels": 1024,
    "num_blocks": 24,
    "num_heads": 16,
    "qk_rms_norm": True,
}


@cache
def paper_structure_flow() -> ModelCost:
    args = {**PAPER_FLOW, "resolution": 16, "patch_size": 1, "window_size": 8}
    return model_cost("SparseStructureFlow4DModel", args, 1, synthetic_clip(32, 100, 64), 64, 1374, 2)


@cache
def paper_sparse_flow() -> ModelCost:
    args = {**PAPER_FLOW, "resolution": 64, "io_block_channels": [128], "io_block_channels_t": [1024]}
    return model_cost("SLatFlow4DModel", args, 1, synthetic_clip(32, 5261, 64), 64, 1374, 2)


def test_the_full_size_structure_flow_by_hand() -> None:
    # Tokens: 32 frames * 16^3 = 131,072. C = 1024. A block, in TFLOP:
    #   products with 14 C^2 weights (q k v 3, output 1, cross q 1, cross output 1, feed-forward 8):
    #     2 * 14 * 1024^2 * 131,072                                                        =  3.848
    #   keys and values of 32 * 1374 = 43,968 image tokens: 2 * 43,968 * 1024 * 2048       =  0.184
    #   self-attention, 4 L^2 C for a segment of L tokens; a window of 8 frames has 32,768:
    #     even blocks, 4 windows:            4 * 1024 * 4 * 32,768^2                       = 17.592
    #     odd blocks, 4 8 8 8 4 frames:      4 * 1024 * (3 * 32,768^2 + 2 * 16,384^2)      = 15.393
    #   cross-attention: 4 * 1024 * 131,072 * 1374                                         =  0.738
    # even 22.362, odd 20.163; 12 of each                                                  = 510.3
    cost = paper_structure_flow()
    assert cost.flops == pytest.approx(510.3e12, rel=0.05)
    assert cost.parameters == 555_543_560  # the released weights
    # Of a block are kept, in C numbers a token: float32 for each of the three norms' inputs (3), two normed values to
    # be modulated and two updates to be gated (4), q and k before their norm and as unit vectors (4): 11; bfloat16
    # for attention (input, q k v, output, q and k after their norm: 7), cross-attention (3, and 2 an image token,
    # 43,968 / 131,072 = 0.335 as many: 0.67) and feed-forward (1 + 4 + 4): 19.67.
    #   131,072 * 1024 * (11 * 4 + 19.67 * 2) bytes = 11.19 GB a block, 268.5 GB for 24.
    assert cost.activation_bytes() == pytest.approx(268.5e9, rel=0.05)
    # With all blocks recomputed, the 24 inputs in float32 and one block: 24 * 0.537 + 11.19 = 24.1 GB, and the ends:
    # norm's input in float32, the output layer's in bfloat16 (0.8 GB), the image tokens (0.09).
    assert cost.activation_bytes(24) == pytest.approx(25.0e9, rel=0.05)
    assert cost.step_flops(24) == pytest.approx(4 * 510.3e12, rel=0.05)


def test_the_full_size_sparse_flow_by_hand() -> None:
    # Voxels: 32 * 5261 = 168,352 (paper, Table 6). Packed in space 0.242 as many: 40,741; in time too, 0.147: 24,748.
    # A block of the torso, in TFLOP:
    #   products: 2 * 14 * 1024^2 * 24,748                                                 = 0.727
    #   keys and values of 43,968 image tokens                                             = 0.184
    #   self-attention over the clip: 4 * 1024 * 24,748^2                                  = 2.509
    #   cross-attention, to the images of two frames: 4 * 1024 * 24,748 * 2748             = 0.279
    # 3.699; 24 of them                                                                    = 88.77
    # CompNet: two convolutions 2 * voxels * neighbours * (in * out + out * out), skips 2 * voxels * in * out:
    #   128 -> 128 at 168,352 (15.03 neighbours)                                           = 0.166
    #   128 -> 1024 at 40,741 (15.18): 1.459, skip 0.011                                   = 1.470
    #   1024 -> 1024 in time at 40,741 (2.46)                                              = 0.420
    #   1024 -> 1024 in time at 24,748 (2.22)                                              = 0.230
    #   2048 -> 1024 in time: first products at 24,748 (3) 0.311, then 0.210, skip 0.104   = 0.625
    #   2048 -> 1024 in time at 40,741: 0.631, skip 0.171                                  = 0.802
    #   2048 -> 128: first products at 40,741 (27) 0.577, then 0.083, skip 0.021           = 0.681
    #   256 -> 128 at 168,352: 0.249, skip 0.011                                           = 0.260
    #                                                                                        4.65
    cost = paper_sparse_flow()
    assert cost.parameters == 644_503_432  # the released weights
    assert sum(block.flops for block in cost.blocks[4:28]) == pytest.approx(88.77e12, rel=0.05)
    assert cost.flops == pytest.approx((88.77 + 4.65) * 1e12, rel=0.05)
    ends = [block.flops / 1e12 for block in (*cost.blocks[:4], *cost.blocks[28:])]
    # The synthetic clip has some more neighbours in time.
    assert ends == pytest.approx([0.166, 1.470, 0.420, 0.230, 0.625, 0.802, 0.681, 0.260], rel=0.1)


def phase(trained: dict[str, ModelCost], frozen: dict[str, ModelCost], element: int = 2, **rest: float) -> PhaseCost:
    return PhaseCost(1, 32, 131072, trained, frozen, element, **rest)  # type: ignore[arg-type]


def test_states_and_flops_of_a_step() -> None:
    # 1000 weights: 20 bytes each (weight, gradient, two moments, average), 2 more in autocast's type; 500 frozen ones
    # 4 + 2. Two blocks of 100 FLOPs beside 50: 3 * 250, one of them a fourth time; frozen 70 once.
    trained = {"flow": ModelCost(1000, Part(50, 40), (Part(100, 60, 20),) * 2)}
    frozen = {"encoder": ModelCost(500, Part(70, 99))}
    step = phase(trained, frozen, share=0.5)
    assert (step.flops, step.state_bytes) == (3 * 250 + 100 + 70, 22 * 1000 + 6 * 500)
    assert step.model_flops == 3 * 250 + 70
    assert step.activation_bytes == 40 + 60 + 20 + 60
    assert phase(trained, frozen, shards=4).state_bytes == 22 * 1000 / 4 + 6 * 500
    assert phase(trained, {}, element=4).state_bytes == 20 * 1000


def test_as_few_blocks_are_recomputed_as_the_budget_asks_for() -> None:
    # Three blocks of 200 bytes, whose inputs have 40; ends of 200: 800, 840, 680, 520 with 0 to 3 recomputed.
    cost = ModelCost(0, Part(0, 200), (Part(0, 200, 40),) * 3)
    budgets = {1000: 0, 800: 0, 799: 2, 680: 2, 679: 3, 520: 3}
    assert {budget: 3 * share_to_recompute({"model": cost}, budget) for budget in budgets} == budgets
    with pytest.raises(ValueError, match=r"with all blocks recomputed.*lower .* data\.tokens_per_batch"):
        share_to_recompute({"model": cost}, 519)


def test_the_table_says_what_was_counted() -> None:
    image = model_cost("DinoImageEncoder", {"name": "dinov2_vitl14_reg"}, 1, synthetic_clip(32, 100, 64), 64, 0, 2)
    step = phase({"flow": paper_structure_flow()}, {"image_encoder": image}, share=1.0, shards=8)
    head, *lines = str(step).splitlines()
    assert head == "1 clips of 32 frames, 131,072 tokens" and len(lines) == 4
    assert lines[1].split()[:2] == ["flow", "555,543,560"] and lines[1].endswith("24 of 24 recomputed")
    assert lines[2].split()[0] == "image_encoder" and lines[2].endswith("frozen")
    # 4 * 510.3 + 32 * 1.015 = 2,073.7 TFLOP; (555.5e6 * 22 / 8 + 304.4e6 * 6) bytes = 3.12 GiB.
    flops = float(lines[3].split()[4])
    assert lines[3].startswith("step on a device: ") and flops == pytest.approx(2073.7, rel=0.05)
    assert "states 3.12 (a share of 1 / 8)" in lines[3]


def test_a_share_of_blocks_is_that_number_of_blocks() -> None:
    assert all(blocks_of(count / blocks, blocks) == count for blocks in range(1, 65) for count in range(blocks + 1))
    assert blocks_of(0.01, 24) == 1
