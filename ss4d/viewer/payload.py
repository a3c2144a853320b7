"""Gaussians of a frame as few bytes, and bytes as text that an HTML page can hold.

A frame is planes of bytes, one a channel, compressed by deflate; the player (`viewer/src/payload.ts`) undoes each
step. Positions are the cell of a 128^3 grid over the clip's cube and a remainder within the cell; Gaussians are
sorted by cell along a Z-order curve, so that cells are stored as small differences. A rotation of the principal
axes by one of the 24 rotations of the cube leaves the Gaussian as it is when its scales move along, so the one
nearest to the identity is stored; it fits three numbers of small range.
"""

from __future__ import annotations

import dataclasses
import itertools
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ss4d.gaussians.gaussians import Gaussians
from ss4d.gaussians.ply import multiply_quaternions

Floats = NDArray[np.float64]
Bytes = NDArray[np.uint8]

GRID_BITS = 7  # cells along one side of the clip's cube: 2 ** GRID_BITS
POSITION_BITS = 5  # of the remainder within a cell, per axis
SCALE_BITS = 6  # of the logarithm
ROTATION_BITS = 5
OPACITY_BITS = 6
COLOUR_BITS = 7
ROTATION_RANGE = float(np.tan(np.pi / 8))  # of x / w, y / w, z / w of the rotation nearest to the identity
COLOUR_MAX = 2.0  # brighter is shown as that: one Gaussian would make the colours of all others coarse
FAR_SHARE, FAR = 0.005, 1.0  # of the centres at either end may lie further out than the extent of the others
SCALE_MIN = 1e-5  # world units, far below a pixel; smaller scales would only widen the range
CUBE_MARGIN = 1e-6  # relative; keeps the outermost Gaussian inside the last cell
# Bytes that an HTML parser changes within a script element: NUL, carriage return, and what may open a tag.
UNSAFE = np.array([0x00, 0x0D, 0x3C], np.uint8)


@dataclass
class Ranges:
    """The least and largest values of a clip, between which its frames are quantised."""

    origin: list[float]  # [3] lowest corner of the cube that holds all centres
    size: float  # its side, world units
    scale: list[float]  # least and largest natural logarithm of a scale
    opacity: list[float]  # least and largest
    colour: list[float]  # least and largest, sRGB with 0 as black and 1 as white

    def to_json(self) -> dict[str, Any]:
        """What `viewer/src/payload.ts` calls Ranges."""
        bits = {"grid": GRID_BITS, "position": POSITION_BITS, "scale": SCALE_BITS, "rotation": ROTATION_BITS}
        bits |= {"opacity": OPACITY_BITS, "colour": COLOUR_BITS}
        return {**dataclasses.asdict(self), "rotation": [-ROTATION_RANGE, ROTATION_RANGE], "bits": bits}


def clip_ranges(frames: Sequence[Gaussians]) -> Ranges:
    """The ranges of all frames together; frames without Gaussians are passed over."""
    bounds = [_bounds(frame) for frame in frames if len(frame)]
    if not bounds:
        return Ranges([-0.5] * 3, 1.0, [0.0, 0.0], [0.0, 0.0], [0.0, 0.0])
    low, high = (np.stack(part) for part in zip(*bounds, strict=True))
    low, high = low.min(0), high.max(0)
    size = max(float((high - low)[:3].max()), 1e-6) * (1 + CUBE_MARGIN)
    origin = (low + high)[:3] / 2 - size / 2
    return Ranges(origin.tolist(), size, *([float(low[axis]), float(high[axis])] for axis in (3, 4, 5)))


def _bounds(frame: Gaussians) -> tuple[Floats, Floats]:
    """Least and largest of x, y, z, the logarithm of scales, opacity and colour, each [6]."""
    values = [frame.scale.clamp_min(SCALE_MIN).log(), frame.opacity, frame.rgb.clamp(0, COLOUR_MAX)]
    low, high = (np.array([float(getattr(v, end)()) for v in values]) for end in ("min", "max"))
    corners = reach(frame.xyz.double().numpy())
    return np.concatenate([corners[0], low]), np.concatenate([corners[1], high])


def reach(centres: Floats) -> tuple[Floats, Floats]:
    """Least and largest x, y, z [3] of centres [M, 3], of which a few far out do not count: they are shown nearer, as
    the others would be coarse."""
    low, high = np.quantile(centres, [FAR_SHARE, 1 - FAR_SHARE], axis=0)
    margin = FAR * max(float((high - low).max()), 1e-6)
    return np.maximum(centres.min(0), low - margin), np.minimum(centres.max(0), high + margin)


def encode_frame(gaussians: Gaussians, voxels: NDArray[np.integer], ranges: Ranges) -> bytes:
    """The planes of a frame's M Gaussians and N occupied voxels (integers [N, 3] in 0 .. 127), compressed."""
    cells = 2**GRID_BITS
    position = (gaussians.xyz.double().numpy() - np.array(ranges.origin)) / ranges.size * cells
    cell = np.clip(np.floor(position), 0, cells - 1).astype(np.int64)
    code = z_order(cell)
    order = np.argsort(code, kind="stable")
    scale, rotation = nearest_to_identity(gaussians.scale.double().numpy(), gaussians.rotation.double().numpy())
    remainder = np.clip((position - cell) * 2**POSITION_BITS, 0, 2**POSITION_BITS - 1).astype(np.uint8)
    channels = [
        remainder,
        quantise(np.log(np.maximum(scale, SCALE_MIN)), ranges.scale, SCALE_BITS),
        quantise(rotation, [-ROTATION_RANGE, ROTATION_RANGE], ROTATION_BITS),
        quantise(gaussians.opacity.double().numpy(), ranges.opacity, OPACITY_BITS),
        quantise(gaussians.rgb.double().numpy(), ranges.colour, COLOUR_BITS),
    ]
    planes = [
        difference_planes(code[order]),
        *(channel[order].T.tobytes() for channel in channels),
        difference_planes(np.sort(z_order(voxels.astype(np.int64)))),
    ]
    header = np.array([len(gaussians), len(voxels)], "<u4").tobytes()
    # Runs of zeros are all that repeats; a search for longer matches costs time and space.
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15, 8, zlib.Z_RLE)
    return compressor.compress(header + b"".join(planes)) + compressor.flush()


def quantise(values: Floats, bounds: Sequence[float], bits: int) -> Bytes:
    """Values [M, C] between the two bounds as the nearest of 2 ** bits levels that lie evenly from one to the other."""
    low, high = bounds
    levels = 2**bits - 1
    return np.clip(np.rint((values - low) * (levels / max(high - low, 1e-12))), 0, levels).astype(np.uint8)


def z_order(cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """Cells [M, 3] as numbers whose bits are those of x, y and z in turn: neighbours in space get near numbers."""
    code = np.zeros(len(cells), np.int64)
    for bit, axis in itertools.product(range(GRID_BITS), range(3)):
        code |= ((cells[:, axis] >> bit) & 1) << (3 * bit + axis)
    return code


def difference_planes(codes: NDArray[np.int64]) -> bytes:
    """Ascending codes below 2 ** 24 as differences, low bytes first, then the middle, then the high ones."""
    return np.diff(codes, prepend=0).astype("<u4").view(np.uint8).reshape(-1, 4)[:, :3].T.tobytes()


def cube_rotations() -> list[tuple[list[int], Floats]]:
    """The 24 rotations that take the axes to axes: the axis that each old one becomes, and the quaternion."""
    half = np.sqrt(0.5)
    quaternions = [
        *([1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]),
        *([0.5, *signs] for signs in itertools.product([0.5, -0.5], repeat=3)),
        *(np.eye(4)[0] * half + sign * half * np.eye(4)[axis] for axis in (1, 2, 3) for sign in (1, -1)),
        *(half * np.eye(4)[a] + sign * half * np.eye(4)[b] for a, b in ((1, 2), (1, 3), (2, 3)) for sign in (1, -1)),
    ]
    axes = np.concatenate([np.zeros((3, 1)), np.eye(3)], axis=1)
    result = []
    for quaternion in np.array(quaternions, np.float64):
        turned = multiply_quaternions(multiply_quaternions(quaternion, axes), quaternion * [1, -1, -1, -1])[:, 1:]
        result.append((np.abs(turned).argmax(1).tolist(), quaternion))
    return result


def nearest_to_identity(scale: Floats, rotation: Floats) -> tuple[Floats, Floats]:
    """Scales [M, 3] and (x, y, z) / w [M, 3] of the equal Gaussians whose rotations are nearest to the identity."""
    turns = cube_rotations()
    # The real part of rotation * turn is the dot product with the turn's conjugate.
    real = rotation @ np.stack([quaternion * [1, -1, -1, -1] for _, quaternion in turns], axis=1)
    best = np.abs(real).argmax(1)
    nearest = multiply_quaternions(rotation, np.stack([quaternion for _, quaternion in turns])[best])
    axes = np.array([axes for axes, _ in turns])[best]
    return np.take_along_axis(scale, axes, axis=1), nearest[:, 1:] / nearest[:, :1]


def to_text(data: bytes) -> str:
    """Bytes as characters of seven bits each, for a script element of a UTF-8 page.

    The three that an HTML parser would change become U+0080, U+0081 and U+0082, two bytes each, so a byte of data
    takes 1.17 bytes of the page (base64: 1.33). The last character is filled with zero bits.
    """
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    groups = np.pad(bits, (0, -len(bits) % 7)).reshape(-1, 7)
    values = np.packbits(groups, axis=1)[:, 0] >> 1
    for index, unsafe in enumerate(UNSAFE):
        values[values == unsafe] = 0x80 + index
    return values.tobytes().decode("latin-1")
