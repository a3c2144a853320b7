"""Batches by token budget: nothing is exceeded, lost, or different on another rank or after a restart."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import replace
from itertools import islice, pairwise
from typing import Any

import pytest

from ss4d.data.prepared import PreparedClip
from ss4d.data.sampler import BLOCK, BatchSettings, ClipWeights, TokenBatchSampler
from ss4d.data.training_windows import Window

SIZES = [30.0, 100.0, 55.0, 10.0, 80.0]  # tokens per frame
CLIPS = [
    PreparedClip(f"clip{i}", f"asset{i}", None, "fish" if i < 3 else "robot", 16, size) for i, size in enumerate(SIZES)
]
SETTINGS = BatchSettings(frames=[2, 4], max_stride=3, tokens_per_batch=500, max_clips=3)


def sampler(settings: BatchSettings = SETTINGS, seed: int = 7, weights: list[float] | None = None, **options: int):
    return TokenBatchSampler(CLIPS, SIZES, weights or [1.0] * len(CLIPS), settings, seed, **options)


def tokens(batch: list[Window]) -> float:
    return sum(SIZES[window.clip] * len(window.frames) for window in batch)


def test_budget_and_number_of_clips_are_kept():
    batches = list(islice(sampler(), 200))
    assert all(tokens(batch) <= 500 and 1 <= len(batch) <= 3 for batch in batches)
    assert all(len({len(window.frames) for window in batch}) == 1 for batch in batches)
    assert {len(batch[0].frames) for batch in batches} == {2, 4}
    # Batches are filled: what opens the next one would not have gone in.
    for batch, following in pairwise(batches):
        opening = SIZES[following[0].clip] * len(batch[0].frames)
        assert len(batch) == 3 or tokens(batch) + opening > 500


def test_every_pass_takes_every_clip_once():
    drawn = [window.clip for batch in islice(sampler(), 100) for window in batch]
    for start in range(0, len(drawn) - 5, 5):
        assert sorted(drawn[start : start + 5]) == [0, 1, 2, 3, 4]


def test_every_pass_over_a_large_set_takes_every_clip_once():
    """A pass of 3,000 clips makes 1,500 batches, more than a block has."""
    clips = [PreparedClip(f"clip{i}", f"asset{i}", None, "fish", 16, 10.0) for i in range(3000)]
    batches = TokenBatchSampler(clips, [10.0] * 3000, [1.0] * 3000, replace(SETTINGS, max_clips=2), 7)
    drawn = Counter(window.clip for place in range(4500) for window in batches.batch(place).copy())
    assert set(drawn.values()) == {3} and len(drawn) == 3000
    again = TokenBatchSampler(clips, [10.0] * 3000, [1.0] * 3000, replace(SETTINGS, max_clips=2), 7, start=3100)
    assert next(iter(again)) == batches.batch(3100)


def test_a_clip_beyond_the_budget_goes_alone_with_one_warning():
    batches = sampler(replace(SETTINGS, frames=[4], tokens_per_batch=250))
    with pytest.warns(UserWarning, match=r"4 frames of clip\d have about \d+ tokens, more than .* = 250") as caught:
        drawn = [batches.batch(step) for step in range(100)]
    assert len(caught) == 1
    assert all(len(batch) == 1 for batch in drawn if batch[0].clip in (1, 4))
    assert min(Counter(window.clip for batch in drawn for window in batch).values()) > 20
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampler().batch(0)


def test_two_ranks_share_what_one_process_would_draw():
    whole = iter(sampler(start=3))
    ranks = [iter(sampler(start=3, rank=rank, world_size=2)) for rank in range(2)]
    for _ in range(BLOCK):  # past the end of a block
        assert [next(ranks[0]), next(ranks[1])] == [next(whole), next(whole)]


def test_a_restart_goes_on_as_if_there_had_been_none():
    steps = iter(sampler())
    drawn = [next(steps) for _ in range(BLOCK + 20)]
    for start in (0, 3, BLOCK - 1, BLOCK, BLOCK + 7):
        resumed = iter(sampler(start=start))
        assert [next(resumed) for _ in range(10)] == drawn[start : start + 10]


def test_seeds_and_blocks_differ():
    assert sampler(seed=1).batch(0) != sampler(seed=2).batch(0)
    assert sampler().batch(0) != sampler().batch(BLOCK)


def test_seeds_and_blocks_draw_other_windows_of_the_same_clips():
    def drawn(seed: int, block: int) -> list[Window]:
        settings = replace(SETTINGS, frames=[4], max_clips=1)  # each batch one window of the only clip
        batches = TokenBatchSampler(CLIPS[:1], SIZES[:1], [1.0], settings, seed)
        return [window for place in range(8) for window in batches.batch(block * BLOCK + place)]

    assert drawn(1, 0) == drawn(1, 0)
    for other in (drawn(2, 0), drawn(1, 1)):
        assert [window.clip for window in other] == [0] * 8
        assert not {window.seed for window in other} & {window.seed for window in drawn(1, 0)}


def test_weights_are_shares_of_the_passes():
    weights = ClipWeights({"fish": 0.25}).of(CLIPS)
    assert weights == [0.25, 0.25, 0.25, 1.0, 1.0]
    batches = sampler(weights=weights)
    counts = Counter(window.clip for step in range(2 * BLOCK) for window in batches.batch(step))
    for fish in range(3):
        assert counts[fish] / counts[3] == pytest.approx(0.25, abs=0.06)
    assert counts[4] == pytest.approx(counts[3], abs=3)


def test_clips_of_one_frame_and_of_large_groups_count_less():
    clips = [PreparedClip(f"c{i}", "a", None, "fish", frames, 1.0, group) for i, (frames, group) in enumerate(GROUPS)]
    assert ClipWeights({"fish": 0.5}, static=0.25, group_cap=2).of(clips) == [0.25, 0.25, 0.25, 0.0625, 0.5]


GROUPS = [(16, "koi"), (16, "koi"), (16, "koi"), (1, "koi"), (16, None)]  # four of a group with a cap of two


def test_weights_of_absent_categories_do_nothing():
    weights = ClipWeights({"cat": 0.5})
    assert weights.of(CLIPS) == [1.0] * len(CLIPS)
    assert weights.absent(CLIPS) == ["cat"]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"category": {"fish": 0}}, r"category_weight: fish = 0 must lie in \(0, 1\]"),
        ({"category": {}, "static": 2}, "static_weight = 2 must lie"),
        ({"category": {}, "group_cap": 0.5}, "group_cap = 0.5 must be at least 1"),
    ],
)
def test_weights_that_make_no_sense_are_refused(weights: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        ClipWeights(**weights)


def test_clips_shorter_than_the_window_are_passed_over():
    clips = [replace(clip, frames=1 if index % 2 else 16) for index, clip in enumerate(CLIPS)]
    settings = replace(SETTINGS, frames=[1, 4])
    batches = list(islice(TokenBatchSampler(clips, SIZES, [1.0] * 5, settings, 7), 300))
    drawn = {length: {w.clip for b in batches for w in b if len(w.frames) == length} for length in (1, 4)}
    assert drawn == {1: {0, 1, 2, 3, 4}, 4: {0, 2, 4}}


def test_windows_longer_than_every_clip_are_refused():
    with pytest.raises(ValueError, match="frames = 20, but the longest of 5 clips has 16 frames"):
        sampler(replace(SETTINGS, frames=[20]))
