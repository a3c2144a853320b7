"""Gaussians in the PLY layout of 3D Gaussian Splatting, which common viewers and editors read.

Binary little endian float32 columns: x y z nx ny nz f_dc_0..2 opacity scale_0..2 rot_0..3, with zero normals,
the logit of the opacity, the natural logarithm of the scale and the quaternion (w, x, y, z), its largest
component positive. `axes` says which way is up in the file: "y_up" (what released SS4D writes) turns our z-up
world by (x, y, z) -> (x, -z, y); "z_up" keeps it. The header says which in a comment, and `kernel_size` in another.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from ss4d.files import publish
from ss4d.gaussians.gaussians import KERNEL_SIZE, Gaussians

Axes = Literal["y_up", "z_up"]
Array = NDArray[np.float64]

COLUMNS = (
    *("x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)
TO_Y_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
TO_Y_UP_QUATERNION = np.array([np.sqrt(0.5), np.sqrt(0.5), 0.0, 0.0])  # the same turn, by +90 degrees about x
OPACITY_MARGIN = 1e-7  # keeps the logit of an opacity that rounded to 0 or 1 finite
SCALE_MIN = 1e-30
AXES_COMMENT = "comment ss4d axes "
KERNEL_COMMENT = "comment ss4d kernel_size "
PLY_TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "<i2", "ushort": "<u2", "int": "<i4", "uint": "<u4"},
    **{"float": "<f4", "double": "<f8", "int8": "i1", "uint8": "u1", "int16": "<i2", "uint16": "<u2"},
    **{"int32": "<i4", "uint32": "<u4", "float32": "<f4", "float64": "<f8"},
}
HEADER_LINES_MAX = 1000


def write_ply(gaussians: Gaussians, path: str | os.PathLike[str], axes: Axes = "y_up") -> None:
    """Write Gaussians to `path`, atomically.

    Raises ValueError where a value is not finite or `axes` is unknown.

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
    check_axes(axes)
    g = gaussians.detach().to("cpu")
    xyz, rotation, scale, opacity, sh = (t.double().numpy() for t in (g.xyz, g.rotation, g.scale, g.opacity, g.sh))
    if not all(np.isfinite(a).all() for a in (xyz, rotation, scale, opacity, sh)):
        raise ValueError(f"Gaussians with values that are not finite cannot be written to {path}.")
    if axes == "y_up":
        xyz = xyz @ TO_Y_UP.T
        rotation = multiply_quaternions(TO_Y_UP_QUATERNION, rotation)
    opacity = np.clip(opacity, OPACITY_MARGIN, 1 - OPACITY_MARGIN)
    table = np.concatenate(
        [
            *(xyz, np.zeros_like(xyz), sh[:, 0], np.log(opacity) - np.log1p(-opacity)),
            *(np.log(np.maximum(scale, SCALE_MIN)), canonical_quaternions(rotation)),
        ],
        axis=1,
    )
    header = [
        *("ply", "format binary_little_endian 1.0", f"{AXES_COMMENT}{axes}", f"{KERNEL_COMMENT}{g.kernel_size}"),
        f"element vertex {len(g)}",
        *(f"property float {name}" for name in COLUMNS),
        "end_header\n",
    ]
    path = Path(path)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, suffix=".tmp", delete=False) as file:
        try:
            file.write("\n".join(header).encode("ascii"))
            file.write(table.astype("<f4").tobytes())
            file.close()
            publish(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def read_ply(path: str | os.PathLike[str], axes: Axes = "y_up") -> Gaussians:
    """Read degree-0 Gaussians (float32, CPU), turned from the file's `axes` to our z-up world.

    Columns beyond ours (higher spherical harmonics, say) are dropped. `kernel_size` is 0.1 where the file does not
    say. Raises ValueError where the file is no such PLY, is truncated, or says in its header that its axes are others.

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
    check_axes(axes)
    with open(path, "rb") as file:
        header = read_header(file, path)
        size = header.count * header.dtype.itemsize
        data = file.read(size)
    if header.axes is not None and header.axes != axes:
        raise ValueError(f"{path} was written with axes {header.axes!r}; read it with axes={header.axes!r}.")
    if len(data) < size:
        raise ValueError(f"{path} is truncated: {header.count} Gaussians take {size} bytes, but {len(data)} are there.")
    table = np.frombuffer(data, header.dtype)
    column = {name: table[name].astype(np.float64) for name in COLUMNS if name not in ("nx", "ny", "nz")}

    def stack(*names: str) -> Array:
        return np.stack([column[name] for name in names], axis=1)

    xyz = stack("x", "y", "z")
    rotation = stack("rot_0", "rot_1", "rot_2", "rot_3")
    if axes == "y_up":
        xyz = xyz @ TO_Y_UP
        rotation = multiply_quaternions(TO_Y_UP_QUATERNION * [1, -1, -1, -1], rotation)
    opacity = 1 / (1 + np.exp(-stack("opacity")))
    sh = stack("f_dc_0", "f_dc_1", "f_dc_2")[:, None]
    scale = np.exp(stack("scale_0", "scale_1", "scale_2"))
    arrays = (xyz, scale, canonical_quaternions(rotation), opacity, sh)
    tensors = (torch.from_numpy(np.ascontiguousarray(a, np.float32)) for a in arrays)
    return Gaussians(*tensors, kernel_size=header.kernel_size)


@dataclass(frozen=True)
class Header:
    """What a PLY file says about itself, `axes` and `kernel_size` in comments of ours."""

    count: int  # Gaussians
    dtype: np.dtype  # of one record
    axes: str | None  # None where the file does not say
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
    axes, kernel = (
        next((line[len(prefix) :] for line in lines if line.startswith(prefix)), None)
        for prefix in (AXES_COMMENT, KERNEL_COMMENT)
    )
    dtype = np.dtype([(words[2], PLY_TYPES[words[1]]) for words in properties])
    return Header(int(first[2]), dtype, axes, KERNEL_SIZE if kernel is None else float(kernel))


def check_axes(axes: str) -> None:
    """ValueError unless `axes` is known."""
    if axes not in ("y_up", "z_up"):
        raise ValueError(f"axes must be 'y_up' or 'z_up', but it is {axes!r}.")


def multiply_quaternions(first: Array, second: Array) -> Array:
    """Hamilton product of quaternions [..., 4] (w, x, y, z): the rotation `second`, then `first`."""
    w, v = first[..., :1], first[..., 1:]
    s, u = second[..., :1], second[..., 1:]
    real = w * s - (v * u).sum(-1, keepdims=True)
    return np.concatenate([real, w * u + s * v + np.cross(v, u)], axis=-1)


def canonical_quaternions(quaternions: Array) -> Array:
    """The same rotations as unit quaternions [M, 4] whose largest component is positive."""
    norm = np.linalg.norm(quaternions, axis=1, keepdims=True)
    largest = np.take_along_axis(quaternions, np.abs(quaternions).argmax(1)[:, None], axis=1)
    return quaternions * np.where(largest < 0, -1.0, 1.0) / np.maximum(norm, 1e-12)
