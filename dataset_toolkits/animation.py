"""Evaluating glTF animation curves (glTF 2.0 section 3.11 and appendix C) at many times at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dataset_toolkits.gltf import GltfDocument, GltfError, JsonObject

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Channel:
    """One animated property of one node.

    `values` is [K, D] for LINEAR and STEP, [K, 3, D] (in-tangent, value, out-tangent) for CUBICSPLINE.
    """

    node: int
    path: str  # "translation", "rotation", "scale" or "weights"
    interpolation: str  # "LINEAR", "STEP" or "CUBICSPLINE"
    times: FloatArray
    values: FloatArray

    def sample(self, times: FloatArray) -> FloatArray:
        """Values [T, D] at `times` [T] in seconds, held constant outside the key times."""
        return sample_curve(self.times, self.values, times, self.interpolation, self.path == "rotation")


@dataclass(frozen=True)
class Clip:
    """A named animation; `start` and `end` are the first and last key time in seconds."""

    name: str
    channels: tuple[Channel, ...]
    start: float
    end: float

    def times(self, num_frames: int) -> FloatArray:
        """`num_frames` times spread evenly over the clip, first and last key included."""
        return np.linspace(self.start, self.end, num_frames)


def sample_curve(
    key_times: FloatArray,
    values: FloatArray,
    times: FloatArray,
    interpolation: str = "LINEAR",
    is_rotation: bool = False,
) -> FloatArray:
    """Evaluate one curve; see `Channel` for the layout. Rotations are quaternions (x, y, z, w)."""
    times = np.clip(times, key_times[0], key_times[-1])
    after = np.clip(np.searchsorted(key_times, times, side="right"), 1, max(len(key_times) - 1, 1))
    before = after - 1
    after = np.minimum(after, len(key_times) - 1)
    if interpolation == "STEP":
        # The last key is reached only at the very end; elsewhere the key before `times` holds.
        return values[np.where(times >= key_times[after], after, before)]
    duration = key_times[after] - key_times[before]
    fraction = np.divide(times - key_times[before], duration, out=np.zeros_like(times), where=duration > 0)
    fraction = fraction[:, None]
    if interpolation == "CUBICSPLINE":
        result = _hermite(values, before, after, fraction, duration[:, None])
        return _normalised(result) if is_rotation else result
    if is_rotation:
        return _slerp(values[before], values[after], fraction)
    return (1 - fraction) * values[before] + fraction * values[after]


def read_clips(document: GltfDocument) -> dict[str, Clip]:
    """All animations of a file by name, unnamed ones as `animation_<index>`."""
    clips = {}
    for index, animation in enumerate(document.items("animations")):
        channels = tuple(
            _read_channel(document, animation, channel)
            for channel in animation["channels"]
            if "node" in channel["target"]
        )
        if channels:
            name = animation.get("name", f"animation_{index}")
            start = min(channel.times[0] for channel in channels)
            end = max(channel.times[-1] for channel in channels)
            clips[name] = Clip(name, channels, float(start), float(end))
    return clips


def _read_channel(document: GltfDocument, animation: JsonObject, channel: JsonObject) -> Channel:
    sampler = animation["samplers"][channel["sampler"]]
    interpolation = sampler.get("interpolation", "LINEAR")
    if interpolation not in ("LINEAR", "STEP", "CUBICSPLINE"):
        raise GltfError(f"unknown interpolation {interpolation!r}; glTF knows LINEAR, STEP and CUBICSPLINE")
    times = document.accessor(sampler["input"]).astype(np.float64)
    values = document.accessor(sampler["output"]).astype(np.float64)
    # Morph weights are stored as one flat list, all targets of a key together.
    shape = (len(times), 3, -1) if interpolation == "CUBICSPLINE" else (len(times), -1)
    path = channel["target"]["path"]
    return Channel(channel["target"]["node"], path, interpolation, times, values.reshape(shape))


def _hermite(
    values: FloatArray,
    before: NDArray[np.int64],
    after: NDArray[np.int64],
    fraction: FloatArray,
    duration: FloatArray,
) -> FloatArray:
    start, out_tangent = values[before, 1], values[before, 2] * duration
    end, in_tangent = values[after, 1], values[after, 0] * duration
    square, cube = fraction**2, fraction**3
    return (
        (2 * cube - 3 * square + 1) * start
        + (cube - 2 * square + fraction) * out_tangent
        + (3 * square - 2 * cube) * end
        + (cube - square) * in_tangent
    )


def _slerp(start: FloatArray, end: FloatArray, fraction: FloatArray) -> FloatArray:
    cosine = (start * end).sum(-1, keepdims=True)
    end = np.where(cosine < 0, -end, end)  # take the short way round
    angle = np.arccos(np.clip(np.abs(cosine), 0.0, 1.0))
    sine = np.sin(angle)
    nearly_equal = sine < 1e-6
    safe = np.where(nearly_equal, 1.0, sine)
    start_weight = np.where(nearly_equal, 1 - fraction, np.sin((1 - fraction) * angle) / safe)
    end_weight = np.where(nearly_equal, fraction, np.sin(fraction * angle) / safe)
    return _normalised(start_weight * start + end_weight * end)


def _normalised(quaternions: FloatArray) -> FloatArray:
    return quaternions / np.maximum(np.linalg.norm(quaternions, axis=-1, keepdims=True), 1e-12)
