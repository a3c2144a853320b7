"""Small glTF files for tests of the dataset toolkit."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

COMPONENTS = {"uint8": 5121, "uint16": 5123, "uint32": 5125, "float32": 5126}
TYPES = {(): "SCALAR", (2,): "VEC2", (3,): "VEC3", (4,): "VEC4", (4, 4): "MAT4"}

CUBE_VERTICES = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)], np.float32)
CUBE_TRIANGLES = np.array(
    [
        *([0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5]),  # -x, +x
        *([0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6]),  # -y, +y
        *([0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]),  # -z, +z
    ],
    np.uint16,
)


class GltfBuilder:
    """Collects a file: arrays and nodes are added, `json` is open for all else."""

    def __init__(self) -> None:
        self.json: dict[str, Any] = {
            **{"asset": {"version": "2.0"}, "bufferViews": [], "accessors": [], "meshes": [], "nodes": []},
            **{"scene": 0, "scenes": [{"nodes": []}]},
        }
        self.binary = b""

    def view(self, data: bytes) -> int:
        self.binary += b"\0" * (-len(self.binary) % 4)
        self.json["bufferViews"].append({"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(data)})
        self.binary += data
        return len(self.json["bufferViews"]) - 1

    def array(self, values: Any, dtype: str = "float32", **extra: Any) -> int:
        array = np.asarray(values, dtype)
        shape = array.shape[1:]
        if shape == (4, 4):  # stored by columns
            array = array.swapaxes(1, 2)
        self.json["accessors"].append(
            {"bufferView": self.view(array.tobytes()), "componentType": COMPONENTS[dtype]}
            | {"count": len(array), "type": TYPES[shape]}
            | extra
        )
        return len(self.json["accessors"]) - 1

    def mesh(self, vertices: NDArray[Any], triangles: NDArray[Any], **primitive: Any) -> int:
        """A mesh of one primitive; further `attributes` and the rest of the primitive as keywords."""
        attributes = {"POSITION": self.array(vertices)} | primitive.pop("attributes", {})
        indices = self.array(np.ravel(triangles), "uint16")
        self.json["meshes"].append({"primitives": [{"attributes": attributes, "indices": indices, **primitive}]})
        return len(self.json["meshes"]) - 1

    def node(self, name: str, parent: int | None = None, **content: Any) -> int:
        """A node, of the scene or below another."""
        self.json["nodes"].append({"name": name, **content})
        index = len(self.json["nodes"]) - 1
        holder = self.json["scenes"][0] if parent is None else self.json["nodes"][parent]
        holder.setdefault("nodes" if parent is None else "children", []).append(index)
        return index

    def material(self, **content: Any) -> int:
        self.json.setdefault("materials", []).append(content)
        return len(self.json["materials"]) - 1

    def animation(self, name: str, node: int, path: str, times: list[float], values: Any) -> None:
        """A clip with one linear channel."""
        sampler = {"input": self.array(times), "output": self.array(values), "interpolation": "LINEAR"}
        channel = {"sampler": 0, "target": {"node": node, "path": path}}
        self.json.setdefault("animations", []).append({"name": name, "samplers": [sampler], "channels": [channel]})

    def write(self, path: Path) -> Path:
        binary = self.binary + b"\0" * (-len(self.binary) % 4)
        content = {key: value for key, value in self.json.items() if value}
        if binary:
            content["buffers"] = [{"byteLength": len(binary)}]
        text = json.dumps(content).encode()
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<II", len(text), 0x4E4F534A) + text
        chunks += struct.pack("<II", len(binary), 0x004E4942) + binary
        path.write_bytes(struct.pack("<III", 0x46546C67, 2, 12 + len(chunks)) + chunks)
        return path


def cube(builder: GltfBuilder, **primitive: Any) -> int:
    """A unit cube around the origin, as a mesh."""
    return builder.mesh(CUBE_VERTICES, CUBE_TRIANGLES, **primitive)


def wall(builder: GltfBuilder, material: int, side: float = 1.0, **attributes: int) -> int:
    """A square that faces the front camera (z in glTF), as a mesh; corners: lower left, lower right, upper right,
    upper left."""
    corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) * side / 2
    return builder.mesh(corners, np.array([[0, 1, 2], [0, 2, 3]]), material=material, attributes=attributes)
