"""A binary glTF 2.0 file, put together from arrays."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ss4d.files import written_atomically
from ss4d.version import __version__

COMPONENTS = {"<f4": 5126, "|u1": 5121, "<u2": 5123, "<u4": 5125}
TYPES = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}
VERTICES, INDICES = 34962, 34963  # what a buffer view is for
POINTS, TRIANGLES = 0, 4  # modes of a primitive


class Glb:
    """A file in the making: arrays are added by `accessor`; all else is put into `document` as it stands in glTF."""

    def __init__(self) -> None:
        self.document: dict[str, Any] = {
            "asset": {"version": "2.0", "generator": f"SS4D {__version__}"},
            "bufferViews": [],
            "accessors": [],
        }
        self.data = bytearray()

    def accessor(
        self, values: NDArray[Any], target: int | None = None, bounds: bool = False, normalized: bool = False
    ) -> int:
        """Add an array [N] or [N, C] of float32, uint8, uint16 or uint32, and return the accessor's index.

        Args:
            values: of which a row takes a multiple of four bytes where `target` is VERTICES.
            target: VERTICES or INDICES; None for what animations read.
            bounds: whether to give the least and largest values, as positions and times need them.
            normalized: whether integers stand for 0 to 1.
        """
        data = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
        view: dict[str, Any] = {"buffer": 0, "byteOffset": len(self.data), "byteLength": data.nbytes}
        self.data += data.tobytes() + bytes(-data.nbytes % 4)
        if target is not None:
            view["target"] = target
        self.document["bufferViews"].append(view)
        accessor: dict[str, Any] = {
            "bufferView": len(self.document["bufferViews"]) - 1,
            "componentType": COMPONENTS[data.dtype.str],
            "count": len(data),
            "type": TYPES[data.shape[1] if data.ndim == 2 else 1],
        }
        if bounds:
            accessor |= {"min": np.atleast_1d(data.min(0)).tolist(), "max": np.atleast_1d(data.max(0)).tolist()}
        if normalized:
            accessor["normalized"] = True
        self.document["accessors"].append(accessor)
        return len(self.document["accessors"]) - 1

    def write(self, path: Path) -> None:
        """Write the file atomically."""
        # A glTF file has no empty lists and no empty buffer.
        document = {key: value for key, value in self.document.items() if value != []}
        if self.data:
            document["buffers"] = [{"byteLength": len(self.data)}]
        text = json.dumps(document, separators=(",", ":")).encode()
        chunks = [(b"JSON", text + b" " * (-len(text) % 4))]
        if self.data:
            chunks.append((b"BIN\0", bytes(self.data)))
        body = b"".join(struct.pack("<I4s", len(chunk), kind) + chunk for kind, chunk in chunks)
        with written_atomically(path) as temporary:
            temporary.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body)


def to_linear(srgb: NDArray[np.floating]) -> NDArray[np.float64]:
    """sRGB in [0, 1], clipped to it, as the linear light that COLOR_0 holds (IEC 61966-2-1)."""
    value = np.clip(np.asarray(srgb, np.float64), 0, 1)
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def to_uint16(values: NDArray[np.floating]) -> NDArray[np.uint16]:
    """Values in [0, 1] as normalized integers."""
    return np.rint(np.clip(values, 0, 1) * 65535).astype(np.uint16)
