"""Parts of the Blender side that need no Blender."""

from __future__ import annotations

import pytest
from gltf_builder import GltfBuilder, cube

from dataset_toolkits.blender.errors import JobError
from dataset_toolkits.blender.gltf import count_triangles
from dataset_toolkits.blender.sampling import Sampling


def test_consecutive_frames_stop_at_the_end_of_the_clip():
    sampling = Sampling("consecutive", frames=36, fps=24)
    assert sampling.times(0.5, 0.5 + 3 / 24) == pytest.approx([0.5, 0.5 + 1 / 24, 0.5 + 2 / 24, 0.5 + 3 / 24])
    assert sampling.times(0.0, 10.0) == pytest.approx([i / 24 for i in range(36)])


def test_spread_frames_include_both_ends():
    assert Sampling("spread", frames=5, fps=24).times(1.0, 3.0) == pytest.approx([1.0, 1.5, 2.0, 2.5, 3.0])


@pytest.mark.parametrize("mode", ["consecutive", "spread"])
def test_clip_without_length_has_one_frame(mode):
    assert Sampling(mode, frames=8, fps=24).times(2.0, 2.0) == [2.0]


def test_triangles_are_counted_for_every_node_that_shows_a_mesh(tmp_path):
    builder = GltfBuilder()
    mesh = cube(builder)
    builder.node("one", mesh=mesh)
    builder.node("two", mesh=mesh)
    builder.json["meshes"][0]["primitives"].append({"attributes": {"POSITION": builder.array([[0, 0, 0]] * 6)}})
    builder.json["meshes"][0]["primitives"].append(
        {"attributes": {"POSITION": builder.array([[0, 0, 0]] * 6)}, "mode": 5}
    )
    assert count_triangles(builder.write(tmp_path / "a.glb")) == 2 * (12 + 2 + 4)


def test_damaged_header_is_named(tmp_path):
    builder = GltfBuilder()
    builder.node("one", mesh=cube(builder))
    path = builder.write(tmp_path / "a.glb")
    content = path.read_bytes()
    for damaged in (content[:30], content[:-20], b"glTF" + bytes(100), b"no glTF at all"):
        path.write_bytes(damaged)
        with pytest.raises(JobError, match="is damaged"):
            count_triangles(path)
