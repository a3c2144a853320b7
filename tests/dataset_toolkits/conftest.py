from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

COMPONENTS = {"uint8": 5121, "int16": 5122, "uint16": 5123, "uint32": 5125, "float32": 5126}
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


class GlbBuilder:
    """Writes a small GLB: add arrays with `array`, fill in `json`, then `write`."""

    def __init__(self) -> None:
        self.json: dict[str, Any] = {"asset": {"version": "2.0"}, "bufferViews": [], "accessors": []}
        self.binary = b""

    def view(self, data: bytes) -> int:
        self.binary += b"\0" * (-len(self.binary) % 4)
        self.json["bufferViews"].append({"buffer": 0, "byteOffset": len(self.binary), "byteLength": len(data)})
        self.binary += data
        return len(self.json["bufferViews"]) - 1

    def array(self, values: NDArray[Any] | list[Any], dtype: str = "float32", **extra: Any) -> int:
        array = np.asarray(values, dtype)
        shape = array.shape[1:]
        if shape == (4, 4):
            array = array.swapaxes(1, 2)
        accessor = {
            "bufferView": self.view(array.tobytes()),
            "componentType": COMPONENTS[dtype],
            "count": len(array),
            "type": TYPES[shape],
            **extra,
        }
        self.json["accessors"].append(accessor)
        return len(self.json["accessors"]) - 1

    def animation(self, name: str, node: int, path: str, times: list[float], values: Any, interpolation: str):
        sampler = {
            "input": self.array(times),
            "output": self.array(np.asarray(values, np.float32)),
            "interpolation": interpolation,
        }
        channel = {"sampler": 0, "target": {"node": node, "path": path}}
        self.json.setdefault("animations", []).append({"name": name, "samplers": [sampler], "channels": [channel]})

    def write(self, path: Path) -> Path:
        binary = self.binary + b"\0" * (-len(self.binary) % 4)
        self.json["buffers"] = [{"byteLength": len(binary)}]
        text = json.dumps(self.json).encode()
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<II", len(text), 0x4E4F534A) + text
        chunks += struct.pack("<II", len(binary), 0x004E4942) + binary
        path.write_bytes(struct.pack("<III", 0x46546C67, 2, 12 + len(chunks)) + chunks)
        return path


@pytest.fixture
def glb() -> GlbBuilder:
    """A builder without any content."""
    return GlbBuilder()


@pytest.fixture
def cube_glb() -> GlbBuilder:
    """A builder holding one unit cube on node 0, material red, nothing animated."""
    builder = GlbBuilder()
    primitive = {
        "attributes": {"POSITION": builder.array(CUBE_VERTICES)},
        "indices": builder.array(CUBE_TRIANGLES.ravel(), "uint16"),
        "material": 0,
    }
    builder.json |= {
        "materials": [{"pbrMetallicRoughness": {"baseColorFactor": [1, 0, 0, 1]}}],
        "meshes": [{"primitives": [primitive]}],
        "nodes": [{"name": "cube", "mesh": 0}],
        "scenes": [{"nodes": [0]}],
    }
    return builder


@pytest.fixture
def cube_vertices() -> NDArray[np.float32]:
    """[8, 3] corners of the unit cube, in glTF axes."""
    return CUBE_VERTICES.copy()


@pytest.fixture
def cube_triangles() -> NDArray[np.int64]:
    """[12, 3] triangles of the unit cube, normals outwards."""
    return CUBE_TRIANGLES.astype(np.int64)


@pytest.fixture
def asset_folder(cube_glb: GlbBuilder, tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of spinning cubes with its index; ids in `broken` get a damaged file."""

    def make(ids: list[str], broken: tuple[str, ...] = ()) -> Path:
        folder = tmp_path / "assets"
        folder.mkdir()
        half = np.sqrt(0.5)
        spin = [[0, 0, 0, 1], [0, half, 0, half], [0, 1, 0, 0]]
        cube_glb.animation("spin", 0, "rotation", [0.0, 0.5, 1.0], spin, "LINEAR")
        cube_glb.animation("slide", 0, "translation", [0.0, 1.0], [[0, 0, 0], [9, 0, 0]], "LINEAR")
        cube_glb.animation("grow", 0, "scale", [0.0, 1.0], [[1, 1, 1], [1, 1.5, 1]], "LINEAR")
        objects = []
        for object_id in ids:
            file = folder / f"{object_id.replace('/', '__')}.glb"
            cube_glb.write(file)
            if object_id in broken:
                file.write_bytes(file.read_bytes()[:200])
            objects.append(
                {
                    "id": object_id,
                    "file": file.name,
                    "split": "train",
                    "category": "cube",
                    "group": object_id,
                    "licence": "CC0-1.0",
                    "author": None,
                    "source": "made here",
                    "hide_nodes": [],
                    "best_clip": "spin",
                    "clips": ["grow", "slide", "spin"],
                }
            )
        (folder / "index.json").write_text(json.dumps({"objects": objects}))
        return folder

    return make
