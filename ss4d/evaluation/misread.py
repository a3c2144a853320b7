"""Refusing pictures that would silently be read as something else than was meant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

ENOUGH = 32  # pixels from which on something is said about a picture
UNIFORM = 0.98  # share of a picture's border that has one colour, where that is a background


def frame_numbers(files: Sequence[Path]) -> list[int]:
    """The numbers of frame files, sorted as they are given: the last number in each name.

    Raises:
        ValueError: a name without a number, a number that is there twice, or a gap, which would shift all later frames.
    """
    numbers = []
    for file in files:
        found = re.findall(r"\d+", file.stem)
        if not found:
            raise ValueError(f"{file} has no number in its name: frames are 00000.png, 00001.png, ...")
        numbers.append(int(found[-1]))
    for before, after, file in zip(numbers, numbers[1:], files[1:], strict=False):
        if after == before:
            raise ValueError(f"{file} is a second frame {after}: leave one of them.")
        if after != before + 1:
            raise ValueError(f"{file.parent} has a gap: frame {before} is followed by {after}.")
    return numbers


def check_alpha(rgba: np.ndarray, origin: Path) -> None:
    """ValueError where colours [..., 4] in [0, 1] are multiplied with their alpha: none is above it, and divided by it
    they agree better with those of opaque pixels."""
    pixels = rgba.reshape(-1, 4)
    alpha, brightest = pixels[:, 3], pixels[:, :3].max(axis=1)
    partly, opaque = (alpha > 0.02) & (alpha < 0.98), alpha >= 0.98
    if min(partly.sum(), opaque.sum()) < ENOUGH or (brightest[partly] > alpha[partly] + 0.005).any():
        return
    expected = brightest[opaque].mean()
    as_it_is, divided = brightest[partly].mean(), (brightest[partly] / alpha[partly]).mean()
    if expected - as_it_is > 0.05 and abs(divided - expected) < 0.5 * (expected - as_it_is):
        raise ValueError(
            f"{origin}: colours look premultiplied, none is above its alpha: divide them by it, or write RGB over the "
            "background of the protocol."
        )


def check_background(image: Tensor, background: Tensor, origin: Path) -> None:
    """ValueError where an image [3, H, W] in [0, 1] stands on another uniform colour than `background` [3]."""
    border = np.concatenate([image[:, 0].T, image[:, -1].T, image[:, :, 0].T, image[:, :, -1].T])
    colour = np.median(border, axis=0)
    if (np.abs(border - colour).max(axis=1) < 0.02).mean() < UNIFORM:
        return
    if np.abs(colour - background.numpy()).max() > 0.1:
        found = ", ".join(f"{value:.2f}" for value in colour)
        raise ValueError(
            f"{origin} stands on the colour ({found}), but the protocol's background is "
            f"{[round(float(value), 2) for value in background]}: write RGBA, or RGB over that."
        )
