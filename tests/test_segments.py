"""Runs of tokens in groups."""

from __future__ import annotations

import pytest
import torch

from ss4d.segments import Segments


@pytest.mark.parametrize(
    "lengths, tokens, spans",
    [
        ([3, 3, 3], 6, [(0, 2), (2, 3)]),
        ([3, 3, 3], None, [(0, 3)]),
        ([9, 1, 0, 2, 9], 4, [(0, 1), (1, 4), (4, 5)]),  # a run of more tokens stays whole
        ([0, 0], 4, [(0, 2)]),
        ([], 4, []),
    ],
)
def test_spans(lengths: list[int], tokens: int | None, spans: list[tuple[int, int]]):
    segments = Segments(lengths)
    assert list(segments.spans(tokens)) == spans
    parts = [segments.between(*span) for span in spans]
    assert [length for _, part in parts for length in part.lengths] == lengths
    assert [i for rows, _ in parts for i in range(rows.start, rows.stop)] == list(range(sum(lengths)))
    assert all(rows.stop - rows.start == part.total for rows, part in parts)


def test_offsets_reach_a_device_once():
    segments = Segments([2, 0, 3])
    whole = segments.between(0, 3)[1]
    assert segments.cumulative(torch.device("cpu")).tolist() == [0, 2, 2, 5]
    assert whole.cumulative(torch.device("cpu")) is segments.cumulative(torch.device("cpu"))
