"""Points that cover a cube or a sphere evenly (Hammersley set, from van der Corput's radical inverse)."""

from __future__ import annotations


def radical_inverse(index: int, base: int) -> float:
    """The digits of `index` in `base`, mirrored at the point, in [0, 1): sum_k d_k base^(-k-1) for sum_k d_k base^k."""
    value, digit = 0.0, 1.0
    while index:
        digit /= base
        index, remainder = divmod(index, base)
        value += digit * remainder
    return value
