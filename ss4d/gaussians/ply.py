"""Gaussians in the PLY layout of 3D Gaussian Splatting, which common viewers and editors read.

Binary little endian float32 columns: x y z nx ny nz f_dc_0..2 opacity scale_0..2 rot_0..3, with zero normals, the logit
of the opacity, the natural logarithm of the scale and the quaternion (w, x, y, z), its largest component positive. The
layout "reference" has the 45 columns f_rest_0..44 of the reference implementation too, all zero, for readers that count
on 62 columns.

`up` says which axis points up in the file. "-y" is the default: COLMAP's axes (x right, y down, z forwards), in which
scenes of 3D Gaussian Splatting come, in which released SS4D writes, and which viewers expect. Our z-up world is turned
by (x, y, z) -> (x, -z, y). "+z" keeps our world. The header says which in a comment behind the columns, where readers
that go by line numbers do not trip over it, and `kernel_size` in another.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ss4d.files import written_atomically
from ss4d.gaussians.gaussians import KERNEL_SIZE, Gaussians

Up = Literal["-y", "+y", "+z"]
Layout = Literal["compact", "reference"]
Array = NDArray[np.float64]

COLUMNS = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)
COLOUR_END = COLUMNS.index("opacity")  # where the reference layout has the higher spherical harmonics
REST = tuple(f"f_rest_{k}" for k in range(45))
TO_Y_DOWN = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])  # a turn by +90 degrees about x
TO_Y_UP = TO_Y_DOWN.T
HALF = np.sqrt(0.5)
# From our world, in which +z is up: matrix and quaternion.
TURNS: dict[Up, tuple[Array, Array]] = {
    "-y": (TO_Y_DOWN, np.array([HALF, HALF, 0.0, 0.0])),
    "+y": (TO_Y_UP, np.array([HALF, -HALF, 0.0, 0.0])),
    "+z": (np.eye(3), np.array([1.0, 0.0, 0.0, 0.0])),
}
OPACITY_MARGIN = 1e-7  # keeps the logit of an opacity that rounded to 0 or 1 finite
SCALE_MIN = 1e-30
UP_COMMENT = "comment ss4d up "
KERNEL_COMMENT = "comment ss4d kernel_size "
UPS: dict[str, Up] = {up: up for up in TURNS}
# What earlier versions wrote; their "y_up" was this same turn, after which -y points up.
FORMER_COMMENTS: dict[str, Up] = {"comment ss4d axes y_up": "-y", "comment ss4d axes z_up": "+z"}
PLY_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "<i2", "ushort": "<u2", "int": "<i4", "uint": "<u4"},
    **{"float": "<f4", "double": "<f8", "int8": "i1", "uint8": "u1", "int16": "<i2", "uint16": "<u2"},
    **{"int32": "<i4", "uint32": "<u4", "float32": "<f4", "float64": "<f8"},
}
HEADER_LINES_MAX = 1000


def write_ply(gaussians: Gaussians, path: str | os.PathLike[str], up: Up = "-y", layout: Layout = "compact") -> None:
    """Write Gaussians to `path` atomically.

    Args:
        gaussians: M Gaussians of our z-up world.
        path: the .ply file.
        up: the axis that points up in the file.
        layout: "compact", 17 columns; "reference", 62.

    Raises:
        ValueError: a value is not finite, or `up` or `layout` is unknown.

    >>> import torch
    >>> from ss4d.gaussians import Gaussians, write_ply
    >>> ball = Gaussians(
    ...     xyz=torch.zeros(1, 3),
    ...     scale=torch.full((1, 3), 0.1),
    ...     rotation=torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
    ...     opacity=torch.full((1, 1), 0.9),
    ...     sh=torch.zeros(1, 1, 3),
    ... )
    >>> write_ply(ball, "ball.ply")
    """
    _check_up(up)
    if layout not in ("compact", "reference"):
        raise ValueError(f"layout must be 'compact' or 'reference', but it is {layout!r}.")
    g = gaussians.detach().to("cpu")
    xyz, rotation, scale, opacity, sh = (t.double().numpy() for t in (g.xyz, g.rotation, g.scale, g.opacity, g.sh))
    if not all(np.isfinite(a).all() for a in (xyz, rotation, scale, opacity, sh)):
        raise ValueError(f"Gaussians with values that are not finite cannot be written to {path}.")
    matrix, quaternion = TURNS[up]
    xyz, rotation = xyz @ matrix.T, multiply_quaternions(quaternion, rotation)
    opacity = np.clip(opacity, OPACITY_MARGIN, 1 - OPACITY_MARGIN)
    rest = REST if layout == "reference" else ()
    columns = [*COLUMNS[:COLOUR_END], *rest, *COLUMNS[COLOUR_END:]]
    table = np.concatenate(
        [
            *(xyz, np.zeros_like(xyz), sh[:, 0], np.zeros((len(g), len(rest))), np.log(opacity) - np.log1p(-opacity)),
            *(np.log(np.maximum(scale, SCALE_MIN)), canonical_quaternions(rotation)),
        ],
        axis=1,
    )
    header = [
        *("ply", "format binary_little_endian 1.0", f"element vertex {len(g)}"),
        *(f"property float {name}" for name in columns),
        *(f"{UP_COMMENT}{up}", f"{KERNEL_COMMENT}{g.kernel_size}", "end_header\n"),
    ]
    with written_atomically(Path(path)) as temporary:
        temporary.write_bytes("\n".join(header).encode("ascii") + table.astype("<f4").tobytes())


def read_ply(path: str | os.PathLike[str], up: Up | None = None) -> Gaussians:
    """Read degree-0 Gaussians (float32, CPU), turned from the file's axes to our z-up world.

    Columns beyond ours (higher spherical harmonics, say) are dropped. `kernel_size` is 0.1 where the file does
    not say.

    Args:
        path: the .ply file.
        up: the axis that points up in it; by default what the header says, and -y where it says nothing.

    Raises:
        ValueError: the file is no such PLY, is truncated, or says in its header that another axis points up.

    >>> import torch
    >>> from ss4d.gaussians import Gaussians, read_ply, write_ply
    >>> ball = Gaussians(
    ...     xyz=torch.zeros(1, 3),
    ...     scale=torch.full((1, 3), 0.1),
    ...     rotation=torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
    ...     opacity=torch.full((1, 1), 0.9),
    ...     sh=torch.zeros(1, 1, 3),
    ... )
    >>> write_ply(ball, "ball.ply")
    >>> read_ply("ball.ply").scale
    tensor([[0.1000, 0.1000, 0.1000]])
    """
    if up is not None:
        _check_up(up)
    with open(path, "rb") as file:
        header = read_header(file, path)
        size = header.count * header.dtype.itemsize
        data = file.read(min(size, os.fstat(file.fileno()).st_size - file.tell()))
    if up is not None and header.up not in (None, up):
        raise ValueError(f"{path} was written with {header.up} up, but it is read with {up} up: leave that out.")
    if len(data) < size:
        raise ValueError(f"{path} is truncated: {header.count} Gaussians take {size} bytes, but {len(data)} are there.")
    table = np.frombuffer(data, header.dtype)
    column = {name: table[name].astype(np.float64) for name in COLUMNS if name not in ("nx", "ny", "nz")}

    def stack(*names: str) -> Array:
        return np.stack([column[name] for name in names], axis=1)

    xyz = stack("x", "y", "z")
    rotation = stack("rot_0", "rot_1", "rot_2", "rot_3")
    matrix, quaternion = TURNS[up or header.up or "-y"]
    xyz, rotation = xyz @ matrix, multiply_quaternions(quaternion * [1, -1, -1, -1], rotation)
    opacity = 1 / (1 + np.exp(-stack("opacity").clip(min=-700)))  # below, exp is no number
    sh = stack("f_dc_0", "f_dc_1", "f_dc_2")[:, None]
    scale = np.exp(stack("scale_0", "scale_1", "scale_2"))
    arrays = (xyz, scale, canonical_quaternions(rotation), opacity, sh)
    with np.errstate(over="ignore"):  # what is too large for float32 is infinite
        tensors = [torch.from_numpy(np.ascontiguousarray(a, np.float32)) for a in arrays]
    return Gaussians(*tensors, kernel_size=header.kernel_size)


def has_higher_harmonics(path: str | os.PathLike[str]) -> bool:
    """Whether the colours of a file depend on the view, which `read_ply` drops: harmonics that are not 0."""
    with open(path, "rb") as file:
        header = read_header(file, path)
        table = np.frombuffer(file.read(header.count * header.dtype.itemsize), header.dtype)
    return any(bool(table[name].any()) for name in header.dtype.names or () if name.startswith("f_rest_"))


@dataclass(frozen=True)
class Header:
    """What a PLY file says about itself, `up` and `kernel_size` in comments of ours."""

    count: int  # Gaussians
    dtype: np.dtype  # of one record
    up: Up | None  # the axis that points up; None where the file does not say
    kernel_size: float  # 0.1 where the file does not say


def read_header(file: BinaryIO, path: str | os.PathLike[str]) -> Header:
    """The header; the file is left at the data."""
    if file.readline(HEADER_LINES_MAX).strip() != b"ply":
        raise ValueError(f"{path} is not a PLY file.")
    lines: list[str] = []
    while not lines or lines[-1] != "end_header":
        line = file.readline(HEADER_LINES_MAX)
        if not line or len(lines) > HEADER_LINES_MAX:
            raise ValueError(f"{path} has no complete PLY header; it is truncated or not a PLY file.")
        lines.append(line.decode("ascii", "replace").strip())
    if "format binary_little_endian 1.0" not in lines:
        raise ValueError(f"{path} is not binary little endian; convert it to the binary PLY of 3D Gaussian Splatting.")
    elements = [i for i, line in enumerate(lines) if line.startswith("element ")]
    first = lines[elements[0]].split() if elements else []
    if len(first) != 3 or first[1] != "vertex" or not first[2].isdigit():
        raise ValueError(f"{path} does not begin with a vertex element, so it holds no Gaussians that we can read.")
    following = elements[1] if len(elements) > 1 else len(lines)
    properties = [line.split() for line in lines[elements[0] + 1 : following] if line.startswith("property ")]
    if any(len(words) != 3 or words[1] not in PLY_TYPES for words in properties):
        raise ValueError(f"{path} has a vertex property that is not a plain number.")
    names = [words[2] for words in properties]
    missing = [name for name in COLUMNS if name not in names and name not in ("nx", "ny", "nz")]
    if missing or len(set(names)) != len(names):
        raise ValueError(f"{path} lacks the columns {missing} or repeats one, so it is no Gaussian Splatting PLY.")
    dtype = np.dtype([(words[2], PLY_TYPES[words[1]]) for words in properties])
    return Header(int(first[2]), dtype, _written_up(lines, path), _written_kernel_size(lines, path))


def _written_up(header: list[str], path: str | os.PathLike[str]) -> Up | None:
    for line in header:
        if line in FORMER_COMMENTS:
            return FORMER_COMMENTS[line]
        if line.startswith(UP_COMMENT):
            axis = line[len(UP_COMMENT) :]
            if axis in UPS:
                return UPS[axis]
            raise ValueError(f"{path} says that {axis!r} points up, but we read -y, +y and +z alone.")
    return None


def _written_kernel_size(header: list[str], path: str | os.PathLike[str]) -> float:
    given = next((line[len(KERNEL_COMMENT) :] for line in header if line.startswith(KERNEL_COMMENT)), KERNEL_SIZE)
    try:
        size = float(given)
    except ValueError:
        size = 0.0
    if not 0 < size < math.inf:
        raise ValueError(f"{path} says that its kernel_size is {given}: it must be a number above 0.")
    return size


def _check_up(up: str) -> None:
    """ValueError unless the axis is known."""
    if up not in UPS:
        raise ValueError(f"up must be '-y', '+y' or '+z', but it is {up!r}.")


def multiply_quaternions(first: Array, second: Array) -> Array:
    """Hamilton product of quaternions [..., 4] (w, x, y, z): the rotation `second`, then `first`."""
    w, v = first[..., :1], first[..., 1:]
    s, u = second[..., :1], second[..., 1:]
    real = w * s - (v * u).sum(-1, keepdims=True)
    return np.concatenate([real, w * u + s * v + np.cross(v, u)], axis=-1)


def canonical_quaternions(quaternions: Array) -> Array:
    """The same rotations as unit quaternions [M, 4] whose largest component is positive; none for zeros."""
    norm = np.linalg.norm(quaternions, axis=1, keepdims=True)
    largest = np.take_along_axis(quaternions, np.abs(quaternions).argmax(1)[:, None], axis=1)
    unit = quaternions * np.where(largest < 0, -1.0, 1.0) / np.maximum(norm, 1e-12)
    return np.where(norm > 0, unit, [1.0, 0.0, 0.0, 0.0])
