"""What the tests of exports compare: pictures, and Gaussians that another program read."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ss4d.cameras import orbit_camera
from ss4d.gaussians import Gaussians, rasterize
from ss4d.gaussians.ply import TURNS, multiply_quaternions

LOSSLESS, QUANTISED = 40.0, 30.0  # dB
TOOLS = Path(__file__).parent / "export" / "node_modules"
NUMPY_TYPES = {5121: "u1", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}


def z_up(xyz: np.ndarray, scale: np.ndarray, wxyz: np.ndarray, opacity: np.ndarray, sh: np.ndarray) -> Gaussians:
    """Gaussians of a y-up file in our world."""
    turned = xyz @ np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])
    rotation = multiply_quaternions(TURNS["-y"][1], wxyz.astype(np.float64))
    arrays = (turned, scale, rotation, opacity.reshape(-1, 1), sh.reshape(-1, 1, 3))
    return Gaussians(*(torch.from_numpy(np.array(array, np.float32)) for array in arrays))


def psnr(first: Gaussians, second: Gaussians) -> float:
    """Of their pictures from a corner, 128 pixels."""
    camera = orbit_camera(30.0, 25.0)
    pictures = [rasterize(gaussians, camera, 128).colour.clamp(0, 1) for gaussians in (first, second)]
    return -10 * float(torch.log10((pictures[0] - pictures[1]).square().mean() + 1e-12))


def tool(name: str) -> str:
    """A program of npm; the test is skipped where it is not installed."""
    if not (TOOLS / name).exists() or shutil.which("node") is None:
        pytest.skip(f"needs {name}: npm ci --prefix tests/export")
    return str(TOOLS / name)


def validate(path: Path) -> list[tuple[str, str]]:
    """What the validator of Khronos has to say: code and place."""
    script = (
        f"require({json.dumps(tool('gltf-validator'))})"
        ".validateBytes(new Uint8Array(require('fs').readFileSync(process.argv[1])), {maxIssues: 0})"
        ".then((report) => console.log(JSON.stringify(report.issues.messages)))"
    )
    answer = subprocess.run(["node", "-e", script, str(path)], capture_output=True, text=True, check=True)
    return [(issue["code"], issue["pointer"]) for issue in json.loads(answer.stdout)]


def convert(source: Path, target: Path) -> None:
    """By PlayCanvas' splat-transform."""
    program = Path(tool("@playcanvas/splat-transform")) / "bin" / "cli.mjs"
    subprocess.run(["node", str(program), "-w", str(source), str(target)], capture_output=True, check=True, timeout=120)


class GlbFile:
    """The parts of a .glb file, read as the specification of glTF 2.0 says."""

    def __init__(self, path: Path) -> None:
        content = path.read_bytes()
        magic, version, size = struct.unpack_from("<4sII", content)
        assert (magic, version, size) == (b"glTF", 2, len(content))
        (length,) = struct.unpack_from("<I", content, 12)
        self.document: dict[str, Any] = json.loads(content[20 : 20 + length])
        self.data = content[28 + length :]

    def array(self, accessor: int) -> np.ndarray:
        """The values [N, C]; normalized integers as numbers from 0 to 1."""
        entry = self.document["accessors"][accessor]
        view = self.document["bufferViews"][entry["bufferView"]]
        kind, width = np.dtype(NUMPY_TYPES[entry["componentType"]]), WIDTHS[entry["type"]]
        start = view.get("byteOffset", 0) + entry.get("byteOffset", 0)
        if view.get("byteStride", width * kind.itemsize) != width * kind.itemsize:
            block = np.frombuffer(self.data, "u1", entry["count"] * view["byteStride"], view.get("byteOffset", 0))
            start = entry.get("byteOffset", 0)
            rows = block.reshape(-1, view["byteStride"])[:, start : start + width * kind.itemsize]
            values = np.ascontiguousarray(rows).view(kind)
        else:
            values = np.frombuffer(self.data, kind, entry["count"] * width, start).reshape(-1, width)
        return values / np.iinfo(kind).max if entry.get("normalized") else values
