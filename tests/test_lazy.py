"""Sequences whose items are made when they are asked for."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from ss4d.lazy import LazySequence


def test_items_are_made_when_they_are_asked_for_and_not_before():
    made: list[int] = []

    def square(number: int) -> int:
        made.append(number)
        return number**2

    squares = LazySequence(5, square)
    part = squares[1:4][::-1].map(lambda value: -value)
    assert len(squares) == 5 and len(part) == 3 and made == []
    assert squares[-1] == 16 and squares[np.int64(2)] == 4 and made == [4, 2]
    assert list(part) == [-9, -4, -1] and list(squares) == [0, 1, 4, 9, 16]
    with pytest.raises(IndexError):
        squares[5]


def test_a_copy_has_the_items_themselves():
    squares = LazySequence(4, lambda number: number**2)
    assert pickle.loads(pickle.dumps(squares)) == copy.deepcopy(squares) == [0, 1, 4, 9]
