"""The surface of a clip as one animated glTF file, in which frames follow each other as a flip book."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ss4d.export.glb import INDICES, TRIANGLES, VERTICES, Glb, to_linear, to_uint16
from ss4d.export.surface import Mesh, extract_surface
from ss4d.gaussians import GaussianSequence
from ss4d.gaussians.ply import TO_Y_UP

SHORT_INDEX_MAX = 65534  # 65535 restarts a primitive
UNLIT = "KHR_materials_unlit"  # the colours have the light in them already


def write_mesh(sequence: GaussianSequence, path: Path, fps: float, faces: int = 20_000, grid: int = 160) -> None:
    """Write the surfaces of all frames to a .glb file.

    Each frame is a node; an animation steps its scale between 0 and 1. Programs that play no animations show the
    first frame, since the others rest at 0.

    Args:
        fps: frames a second.
        faces, grid: see `extract_surface`.

    Raises:
        ValueError: another suffix, fewer than 4 faces or 8 cells, or no frame has a surface.
    """
    if path.suffix.lower() != ".glb":
        raise ValueError(f"Meshes are written as .glb, but the path is {path}.")
    if faces < 4 or grid < 8:
        raise ValueError(f"A mesh takes at least 4 faces and 8 cells, but --faces is {faces} and --grid {grid}.")
    file = Glb()
    material = {
        "name": "baked colours",
        "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0},
        "extensions": {UNLIT: {}},
    }
    file.document |= {"extensionsUsed": [UNLIT], "scene": 0, "materials": [material]}
    nodes: list[dict[str, Any]] = []
    meshes: list[dict[str, Any]] = []
    for index, frame in enumerate(sequence):
        node: dict[str, Any] = {"name": f"frame {index}"}
        surface = extract_surface(frame, faces, grid)
        if len(surface.faces):
            node["mesh"] = len(meshes)
            meshes.append({"name": f"frame {index}", "primitives": [add_primitive(file, surface)]})
        if index:
            node["scale"] = [0.0, 0.0, 0.0]
        nodes.append(node)
    if not meshes:
        raise ValueError("The result has no part that is dense enough for a surface.")
    file.document |= {"scenes": [{"nodes": list(range(len(nodes)))}], "nodes": nodes, "meshes": meshes}
    if len(nodes) > 1:
        file.document["animations"] = [flip_book(file, len(nodes), fps)]
    file.write(path)


def add_primitive(file: Glb, surface: Mesh) -> dict[str, Any]:
    """The triangles of a frame, y up."""
    indices = surface.faces.reshape(-1)
    colour = np.pad(to_linear(surface.colours), ((0, 0), (0, 1)), constant_values=1.0)
    turn = TO_Y_UP.T.astype(np.float32)
    return {
        "attributes": {
            "POSITION": file.accessor(surface.vertices @ turn, VERTICES, bounds=True),
            "NORMAL": file.accessor(surface.normals @ turn, VERTICES),
            "COLOR_0": file.accessor(to_uint16(colour), VERTICES, normalized=True),
        },
        "indices": file.accessor(indices.astype(np.uint16 if indices.max() <= SHORT_INDEX_MAX else np.uint32), INDICES),
        "material": 0,
        "mode": TRIANGLES,
    }


def flip_book(file: Glb, count: int, fps: float) -> dict[str, Any]:
    """An animation of `count` nodes, each of scale 1 for its 1 / fps seconds and of scale 0 otherwise."""
    samplers, channels = [], []
    for index in range(count):
        shown = {index / fps: 1.0, (index + 1) / fps: 0.0}
        if index:
            shown[0.0] = 0.0
        if index == count - 1:
            shown[count / fps] = 1.0  # at the very end the last frame stands
        else:
            shown[count / fps] = 0.0  # all end at the same time
        times = sorted(shown)
        scales = np.repeat(np.array([[shown[time]] for time in times], np.float32), 3, axis=1)
        samplers.append(
            {
                "input": file.accessor(np.array(times, np.float32), bounds=True),
                "output": file.accessor(scales),
                "interpolation": "STEP",
            }
        )
        channels.append({"sampler": index, "target": {"node": index, "path": "scale"}})
    return {"name": "clip", "samplers": samplers, "channels": channels}
