"""`python -m dataset_toolkits all` with Blender, over good and bad assets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gltf_builder import CUBE_TRIANGLES, CUBE_VERTICES, GltfBuilder

from dataset_toolkits.blender.process import BlenderProcess
from ss4d.data.format import read_table
from ss4d.data.views import ViewArchive

REPOSITORY = Path(__file__).resolve().parents[2]
OPTIONS = [
    *("pose.frames=2", "pose.sampling=spread", "pose.max_triangles=1000"),
    *("render.engine=BLENDER_WORKBENCH", "render.size=128", "render.views=12", "render.cond_size=32"),
    "voxelize.resolutions=[16]",
]


def animated(path: Path, vertices: np.ndarray = CUBE_VERTICES, scale: float = 1.0, animate: bool = True) -> None:
    builder = GltfBuilder()
    node = builder.node("box", mesh=builder.mesh(vertices, CUBE_TRIANGLES))
    if animate:
        builder.animation("Slide", node, "translation", [0, 1], [[0, 0, 0], [0, 0, 0.5]])
        builder.animation("Shrink", node, "scale", [0, 1], [[scale] * 3, [scale] * 3])
    builder.write(path)


def bad_assets(folder: Path) -> None:
    folder.mkdir()
    animated(folder / "good ünd schön.glb")
    animated(folder / "corrupt.glb")
    content = bytearray((folder / "corrupt.glb").read_bytes())
    content[20:60] = b"?" * 40
    (folder / "corrupt.glb").write_bytes(content)
    no_triangles = GltfBuilder()
    no_triangles.node("nothing")
    no_triangles.write(folder / "empty.glb")
    animated(folder / "still.glb", animate=False)
    animated(folder / "not_a_number.glb", np.where(CUBE_VERTICES > 0, np.nan, CUBE_VERTICES))
    animated(folder / "flat.glb", scale=0.0)
    huge = GltfBuilder()
    node = huge.node("huge", mesh=huge.mesh(CUBE_VERTICES, np.tile(CUBE_TRIANGLES, 100)))
    huge.animation("Slide", node, "translation", [0, 1], [[0, 0, 0], [0, 0, 1]])
    huge.write(folder / "huge.glb")


@pytest.mark.slow
def test_bad_assets_are_named_and_cost_nothing_else(tmp_path: Path, blender: BlenderProcess) -> None:
    folder, root = tmp_path / "assets of mine, é", tmp_path / "data set ü"
    bad_assets(folder)
    command = [sys.executable, "-m", "dataset_toolkits", "all", "--root", str(root), "--workers", "2"]
    result = subprocess.run(
        [*command, f"collect.folder={folder}", *OPTIONS],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    poses = {row["name"]: row for row in read_table(root, "pose")}
    failed = {name: row["error"] for name, row in poses.items() if row["status"] == "failed"}
    assert result.returncode == len(failed), result.stderr
    assert "corrupt" in failed and "triangle" in failed["empty"]
    assert "1,200" in failed["huge"] or "1200" in failed["huge"]

    curated = {(row["asset"], row["clip"]): row for row in read_table(root, "curate")}
    accepted = [key for key, row in curated.items() if row["accepted"]]
    (good,) = [name for name in poses if name.startswith("good_")]
    assert accepted == [("flat", "Slide"), (good, "Slide")]  # of `flat` the clip that scales it to nothing is out
    reasons = {asset: row["reasons"] for (asset, clip), row in curated.items() if clip in (None, "Shrink")}
    assert "no animation" in reasons["still"]
    assert "motion" in reasons[good]  # its other clip stands still
    assert "one place" in reasons["flat"]
    assert "finite" in reasons.get("not_a_number", "") or "finite" in failed.get("not_a_number", "")

    rows = read_table(root, "features")
    assert len(rows) == 2
    for row in rows:
        assert row["status"] == "done" and row["seen_16"] > 0 and row["foreground_16"] >= 0.99
        assert ViewArchive(root / "render" / f"{row['clip_name']}.zip").view(0, 1)[..., 3].max() == 255
    page = (root / "report" / "index.html").read_text()
    assert "corrupt" in page and not any((root / "tmp").iterdir())

    again = subprocess.run([*command], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert "0 made" in again.stderr + again.stdout
