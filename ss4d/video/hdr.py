"""HDR pictures (PQ and HLG, Rec. ITU-R BT.2100), and those of a wide gamut, as the sRGB that the models know.

Reference white (Rep. ITU-R BT.2408: 203 cd/m2 in PQ, 75 % of the signal in HLG) becomes SDR white. What is up to 80 %
as bright is kept exactly; what is brighter, highlights included, is compressed smoothly into the rest. The curve is the
same for every frame, so that nothing flickers.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

PQ, HLG = 16, 18  # transfer characteristics as numbered by Rec. ITU-T H.273
REFERENCE_WHITE = 203.0  # cd/m2
KNEE = 0.8  # linear light, 1 is SDR white
BT2020_TO_BT709 = np.array(
    [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]], np.float32
)
P3_TO_BT709 = np.array(
    [[1.224940, -0.224940, 0.0], [-0.042057, 1.042057, 0.0], [-0.019638, -0.078636, 1.098274]], np.float32
)
WIDE_GAMUTS = {9: BT2020_TO_BT709, 12: P3_TO_BT709}  # by primaries as numbered by H.273; 12 is Display P3
LEVELS = 2**16


def to_srgb(rgb: NDArray[np.uint8], primaries: int) -> NDArray[np.uint8]:
    """uint8 [H, W, 3], an SDR picture in wide primaries -> uint8 [H, W, 3], sRGB; what that cannot show is clipped."""
    code = np.arange(256) / 255
    light = np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4).astype(np.float32)[rgb]
    light = (light @ WIDE_GAMUTS[primaries].T).clip(0, 1)
    return _srgb_code()[(light * (LEVELS - 1)).round().astype(np.uint16)]


def tone_map(rgb: NDArray[np.uint16], transfer: int) -> NDArray[np.uint8]:
    """uint16 [H, W, 3] in BT.2020 primaries, coded by PQ or HLG -> uint8 [H, W, 3], sRGB."""
    light = (_pq_light() if transfer == PQ else _hlg_light())[rgb]
    light = np.maximum(light @ BT2020_TO_BT709.T, 0)
    peak = np.maximum(light.max(axis=-1, keepdims=True), 1e-6)
    compressed = 1 - (1 - KNEE) ** 2 / (peak + 1 - 2 * KNEE)  # leaves the knee with slope 1 and tends to 1
    light *= np.where(peak <= KNEE, 1, compressed / peak)
    return _srgb_code()[(light * (LEVELS - 1)).round().astype(np.uint16)]


@cache
def _pq_light() -> NDArray[np.float32]:
    """SMPTE ST 2084: code -> linear light, 1 is reference white."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    power = np.linspace(0, 1, LEVELS) ** (1 / m2)
    return (10000 / REFERENCE_WHITE * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)).astype(np.float32)


@cache
def _hlg_light() -> NDArray[np.float32]:
    """ARIB STD-B67: code -> linear light, 1 is reference white (75 % of the signal).

    The light of the scene, as SDR cameras code it: the conversion that Rep. ITU-R BT.2408 calls scene-referred.
    """
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    code = np.linspace(0, 1, LEVELS)
    light = np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)
    return (light / np.interp(0.75, code, light)).astype(np.float32)


@cache
def _srgb_code() -> NDArray[np.uint8]:
    """Linear light in 65536 steps -> sRGB."""
    light = np.linspace(0, 1, LEVELS)
    code = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return (255 * code).round().astype(np.uint8)
