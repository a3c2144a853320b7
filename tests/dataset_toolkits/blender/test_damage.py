"""Damaged glTF through the Blender side: one sentence each, whatever the importer makes of it, and no hang."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import pytest
from damage import damaged_glb
from gltf_builder import GltfBuilder, cube, wall
from PIL import Image

from dataset_toolkits.blender.process import BlenderError, BlenderProcess

SAMPLING: dict[str, Any] = {"mode": "spread", "frames": 3, "fps": 24.0}


def whole_file(path: Path) -> bytes:
    """A textured wall, a morphing cube, a skinned one, and clips of both."""
    builder = GltfBuilder()
    png = io.BytesIO()
    Image.new("RGB", (2, 2), "red").save(png, "PNG")
    builder.json["images"] = [{"bufferView": builder.view(png.getvalue()), "mimeType": "image/png"}]
    builder.json["textures"] = [{"source": 0}]
    material = builder.material(pbrMetallicRoughness={"baseColorTexture": {"index": 0}})
    uv = builder.array([[0, 1], [1, 1], [1, 0], [0, 0]])
    builder.node("wall", mesh=wall(builder, material, TEXCOORD_0=uv))
    offset = builder.array([[0, 1, 0]] * 8)
    weights = {
        "JOINTS_0": builder.array([[0, 0, 0, 0]] * 8, "uint8"),
        "WEIGHTS_0": builder.array([[1, 0, 0, 0]] * 8),
    }
    joint = builder.node("joint")
    builder.json["skins"] = [{"joints": [joint]}]
    morphing = builder.node("morphing", mesh=cube(builder, targets=[{"POSITION": offset}]), translation=[3, 0, 0])
    builder.node("skinned", mesh=cube(builder, attributes=weights), skin=0)
    builder.animation("turn", joint, "rotation", [0.0, 1.0], [[0, 0, 0, 1], [0, 1, 0, 0]])
    builder.animation("lift", morphing, "weights", [0.0, 1.0], [0.0, 2.0])
    return builder.write(path).read_bytes()


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path, blender: BlenderProcess) -> None:
    whole = whole_file(tmp_path / "a.glb")
    start = whole.index(b"\x89PNG")
    (tmp_path / "a.glb").write_bytes(whole[:start] + b"none" + whole[start + 4 :])
    arguments: dict[str, Any] = {"hide_nodes": [], "clips": [], "clips_per_asset": 2, "max_triangles": 10_000}
    with pytest.raises(BlenderError, match=r"a\.glb: the picture .* is missing or damaged"):
        list(blender.run("pose", path=str(tmp_path / "a.glb"), sampling=SAMPLING, folder=str(tmp_path), **arguments))


def test_damaged_files_are_one_sentence(tmp_path: Path, blender: BlenderProcess) -> None:
    path, said = tmp_path / "a.glb", []
    whole = whole_file(path)

    def pose() -> list[dict[str, Any]]:
        arguments: dict[str, Any] = {"hide_nodes": [], "clips": [], "clips_per_asset": 2, "max_triangles": 10_000}
        return list(blender.run("pose", path=str(path), sampling=SAMPLING, folder=str(tmp_path), **arguments))

    assert [result["problem"] for result in pose()[1:]] == [None, None]
    for seed in range(60):
        path.write_bytes(damaged_glb(whole, seed))
        started = time.perf_counter()
        try:
            assert all(set(result) & {"triangles", "problem"} for result in pose())
        except BlenderError as error:
            said.append(str(error))
        assert time.perf_counter() - started < 30, f"seed {seed}"
    assert len(said) > 20 and not [text for text in said if "\n" in text or "Traceback" in text]
