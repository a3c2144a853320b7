"""The stage pose, with Blender, on small files whose motion is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gltf_builder import CUBE_TRIANGLES, CUBE_VERTICES, GltfBuilder, cube
from safetensors.numpy import load_file

from dataset_toolkits.blender.process import BlenderProcess
from dataset_toolkits.collect import CollectOptions, collect
from dataset_toolkits.pose import PoseOptions, PoseStage, measure
from ss4d.data.format import Row
from ss4d.data.posed_clip import read_posed_clip

HALF_BOX = np.array([[-0.5] * 3, [0.5] * 3])


def sliding_cube(path: Path) -> Path:
    """Two clips: `Slide` goes 2 units to the front (z in glTF) in a second, `Rise` 1 unit up in half a second."""
    builder = GltfBuilder()
    node = builder.node("box", mesh=cube(builder))
    builder.animation("Slide", node, "translation", [0, 1], [[0, 0, 0], [0, 0, 2]])
    builder.animation("Rise", node, "translation", [0, 0.5], [[0, 0, 0], [0, 1, 0]])
    return builder.write(path)


def pose(folder: Path, root: Path, **options: object) -> list[Row]:
    """Rows of the only file in `folder`."""
    collect(root, CollectOptions(folder=str(folder)))
    stage = PoseStage(root, PoseOptions(**options))  # type: ignore[arg-type]
    try:
        (item,) = stage.items()
        return list(stage.run(item).rows)
    finally:
        stage.close()


@pytest.fixture
def assets(tmp_path: Path, blender: BlenderProcess) -> Path:
    folder = tmp_path / "assets"
    folder.mkdir()
    return folder


def test_a_clip_is_posed_as_the_file_says(assets: Path, tmp_path: Path) -> None:
    sliding_cube(assets / "cube.glb")
    rows = {row["clip"]: row for row in pose(assets, tmp_path, frames=3, sampling="spread")}
    assert set(rows) == {"Slide", "Rise"}
    assert load_file(tmp_path / "pose" / "cube.safetensors")["triangles"].shape == (12, 3)
    slide = read_posed_clip(tmp_path, "cube", "Slide")
    boxes = np.stack([slide.vertices.min(1), slide.vertices.max(1)], axis=1)
    np.testing.assert_allclose(boxes, [HALF_BOX - np.array([0, y, 0]) for y in (0, 1, 2)], atol=1e-5)
    np.testing.assert_allclose(slide.times, [0, 0.5, 1])
    row = rows["Slide"]
    assert (row["frames"], row["triangles"], row["finite"], row["problem"]) == (3, 12, True, None)
    np.testing.assert_allclose(row["low"], [-0.5, -2.5, -0.5], atol=1e-5)
    assert row["seconds"] == pytest.approx(1)
    assert row["frame_side"] == pytest.approx(1, abs=1e-5)
    assert row["motion"] == pytest.approx((1 + 0 + 1) / 3 / 3, abs=1e-5)  # mean distance over the longest side, 3
    rise = read_posed_clip(tmp_path, "cube", "Rise")
    np.testing.assert_allclose(rise.vertices[:, :, 2].max(1), [0.5, 1.0, 1.5], atol=1e-5)


def test_an_asset_without_animation_has_one_row_without_a_clip(assets: Path, tmp_path: Path) -> None:
    builder = GltfBuilder()
    builder.node("box", mesh=cube(builder))
    builder.write(assets / "still.glb")
    (row,) = pose(assets, tmp_path)
    assert row["clip"] is None and row["clip_name"] == "still"


def test_measurements_of_a_known_motion() -> None:
    vertices = np.stack([CUBE_VERTICES, CUBE_VERTICES + np.array([0, 0, 4])]).astype(np.float32)
    found = measure(vertices, CUBE_TRIANGLES.reshape(-1, 3).astype(np.int32))
    assert (found.low, found.high) == ([-0.5] * 3, [0.5, 0.5, 4.5])
    assert (found.frame_side, found.motion, found.degenerate) == (1.0, pytest.approx(2 / 5), 0.0)
    flat = np.array([[0, 1, 1], [0, 1, 3]], np.int32)
    assert measure(vertices, flat).degenerate == 0.5
