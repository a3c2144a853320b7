"""What Blender makes of clips: every kind of motion, every format, against positions worked out by hand."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gltf_builder import CUBE_TRIANGLES, CUBE_VERTICES, GltfBuilder, cube
from safetensors import safe_open

from dataset_toolkits.blender.process import BlenderError, blender_python
from dataset_toolkits.engine.records import write_table
from dataset_toolkits.engine.stage import Item
from dataset_toolkits.names import safe_name
from dataset_toolkits.pose import PoseOptions, PoseStage, clip_names
from ss4d.data.format import Row

HALF = np.sqrt(0.5)
CUBE = CUBE_VERTICES @ np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])  # z up
EXPORT = """
import bpy, sys
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.ops.import_scene.gltf(filepath=sys.argv[1])
scene = bpy.context.scene
scene.frame_start, scene.frame_end = 0, 24
if sys.argv[2].endswith(".fbx"):
    bpy.ops.export_scene.fbx(filepath=sys.argv[2])
else:
    bpy.ops.wm.usd_export(filepath=sys.argv[2], export_animation=True)
"""


USD = """#usda 1.0
(
    defaultPrim = "root"
    startTimeCode = 0
    endTimeCode = 48
    timeCodesPerSecond = RATE
    metersPerUnit = 1
    upAxis = "Z"
)
def Xform "root"
{
    double3 xformOp:translate.timeSamples = { 0: (0, 0, 0), 48: (1, 0, 0) }
    uniform token[] xformOpOrder = ["xformOp:translate"]
    def Mesh "triangle"
    {
        int[] faceVertexCounts = [3]
        int[] faceVertexIndices = [0, 1, 2]
        point3f[] points = [(0, 0, 0), (1, 0, 0), (0, 0, 1)]
    }
}
"""


def two_cubes() -> GltfBuilder:
    """`left`, around x = -2, that spins by half a turn or grows, and `right`, around x = 2, that slides along +x, with
    `rider` on it."""
    builder = GltfBuilder()
    left = builder.node("left", mesh=cube(builder), translation=[-2, 0, 0])
    right = builder.node("right", mesh=0, translation=[2, 0, 0])
    builder.node("rider", parent=right, mesh=0, translation=[0, 2, 0])
    builder.animation("spin", left, "rotation", [0.0, 0.5, 1.0], [[0, 0, 0, 1], [0, HALF, 0, HALF], [0, 1, 0, 0]])
    builder.animation("slide", right, "translation", [0.0, 1.0], [[2, 0, 0], [3, 0, 0]])
    builder.animation("grow", left, "scale", [0.5, 1.0], [[1, 1, 1], [1, 3, 1]])
    return builder


class Posed:
    """What the stage makes of one file."""

    def __init__(self, root: Path, path: Path, blender, hide_nodes=(), clips=(), **options: Any):
        stage = PoseStage(root, PoseOptions(**{"sampling": "spread", "frames": 5, **options}))
        stage.__dict__["_blender"] = blender
        inputs = {"sha256": "-", "hide_nodes": list(hide_nodes), "clips": list(clips)}
        item = Item(safe_name(path.stem), inputs, {"path": str(path)})
        self.rows = list(stage.run(item).rows)
        with safe_open(stage.artifact(item.name), framework="np") as file:
            self.clips = json.loads(file.metadata()["clips"])
            self.triangles = file.get_tensor("triangles")
            self.vertices = {clip: file.get_tensor(f"vertices_{i}") for i, clip in enumerate(self.clips)}

    @property
    def row(self) -> dict[str, Row]:
        return {row["clip"]: row for row in self.rows}


def same_points(actual: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> bool:
    """Whether two sets of points are the same, whatever their order."""
    distances = np.linalg.norm(actual[:, None] - expected[None], axis=-1)
    return distances.min(axis=0).max() < tolerance and distances.min(axis=1).max() < tolerance


def cube_at(x: float, y: float = 0.0, z: float = 0.0) -> np.ndarray:
    return CUBE + np.array([x, y, z])


def spun(degrees: float) -> np.ndarray:
    """The left cube, turned counter-clockwise seen from above."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return CUBE @ np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]]).T + [-2, 0, 0]


def test_names_of_clips_are_safe_and_differ():
    assert clip_names("fox", ["Armature|Run", "walk"]) == ["fox__Armature_Run", "fox__walk"]
    assert clip_names("fox", [None]) == ["fox"]
    assert len(set(clip_names("fox", ["a|b", "a/b", "a_b"]))) == 3


def test_options_are_checked():
    with pytest.raises(ValueError, match=r"pose.sampling is one of consecutive, spread, not random"):
        PoseOptions(sampling="random")
    with pytest.raises(ValueError, match=r"pose.frames is above 0, not 0"):
        PoseOptions(frames=0)


def test_items_are_the_collected_assets(tmp_path, blender):
    asset = {"hide_nodes": ["prop"], "clips": ["run"], "path": "x.glb", "sha256": "00"}
    write_table(tmp_path, "collect", [asset | {"name": n, "status": s} for n, s in (("a", "done"), ("b", "failed"))])
    (item,) = PoseStage(tmp_path, PoseOptions()).items()
    assert item.name == "a"
    assert item.inputs == {"sha256": "00", "hide_nodes": ["prop"], "clips": ["run"]}


def test_every_clip_moves_its_own_nodes_and_leaves_the_others_at_rest(tmp_path, blender):
    posed = Posed(tmp_path, two_cubes().write(tmp_path / "cubes.glb"), blender)
    assert posed.clips == ["spin", "slide", "grow"]
    assert posed.triangles.shape == (36, 3)
    right, rider = cube_at(2, 0, 0), cube_at(2, 0, 2)
    for frame, degrees in enumerate((0, 45, 90, 135, 180)):
        assert same_points(posed.vertices["spin"][frame], np.concatenate([spun(degrees), right, rider]))
        step = np.array([frame / 4, 0, 0])
        assert same_points(posed.vertices["slide"][frame], np.concatenate([spun(0), right + step, rider + step]))
        grown = CUBE * [1, 1, 1 + frame / 2] + [-2, 0, 0]
        assert same_points(posed.vertices["grow"][frame], np.concatenate([grown, right, rider]))
    assert posed.row["spin"]["seconds"] == pytest.approx(1.0)
    assert posed.row["grow"]["seconds"] == pytest.approx(0.5)


def test_consecutive_frames_start_with_the_clip(tmp_path, blender):
    path = two_cubes().write(tmp_path / "cubes.glb")
    posed = Posed(
        tmp_path, path, blender, sampling="consecutive", frames=3, fps=10.0, clips=["slide", "nowhere", "spin"]
    )
    lifted = posed.vertices["slide"][:, :, 0].max(axis=1)
    np.testing.assert_allclose(lifted, [2.5, 2.6, 2.7], atol=1e-5)
    assert posed.clips == ["slide", "spin"]
    assert posed.row["nowhere"]["problem"] == "not in the file"
    assert (posed.row["nowhere"]["finite"], posed.row["nowhere"]["low"]) == (False, None)
    assert [row["problem"] for row in posed.rows] == [None, "not in the file", None]


def test_only_the_first_clips_are_taken(tmp_path, blender):
    path = two_cubes().write(tmp_path / "cubes.glb")
    assert Posed(tmp_path, path, blender, clips_per_asset=2).clips == ["spin", "slide"]


def test_hidden_nodes_take_their_children_along(tmp_path, blender):
    path = two_cubes().write(tmp_path / "cubes.glb")
    posed = Posed(tmp_path, path, blender, hide_nodes=["right"], clips=["spin"])
    assert same_points(posed.vertices["spin"][0], spun(0))
    with pytest.raises(BlenderError, match="the nodes to hide are not in the file: wrong"):
        Posed(tmp_path, path, blender, hide_nodes=["wrong"])


def test_nodes_are_hidden_by_the_names_that_the_file_gives_them(tmp_path, blender):
    """Blender numbers the second of two alike, and cuts long ones."""
    builder, long = two_cubes(), "a node of a file that an exporter has named after all the folders it came from"
    for name, x in (("sword", 5), ("sword", 7), (long, 9)):
        builder.node(name, mesh=0, translation=[x, 0, 0])
    path = builder.write(tmp_path / "cubes.glb")
    shown = Posed(tmp_path, path, blender, hide_nodes=["right"], clips=["spin"])
    assert len(shown.vertices["spin"][0]) > len(spun(0))
    posed = Posed(tmp_path, path, blender, hide_nodes=["right", "sword", long], clips=["spin"])
    assert same_points(posed.vertices["spin"][0], spun(0))


@pytest.mark.parametrize("scene", [None, 0, 1])
def test_only_the_default_scene_is_shown(tmp_path, blender, scene):
    """The first one where none is named; nodes of other scenes and of none are left out."""
    builder = two_cubes()
    other = builder.node("other", mesh=0, translation=[9, 0, 0])
    builder.node("child of other", parent=other, mesh=0, translation=[1, 0, 0])
    builder.node("orphan", mesh=0, translation=[20, 0, 0])
    builder.json["scenes"] = [{"nodes": [0, 1]}, {"nodes": [other]}]
    del builder.json["scene"]
    if scene is not None:
        builder.json["scene"] = scene
    posed = Posed(tmp_path, builder.write(tmp_path / "cubes.glb"), blender, frames=1, clips=["slide"])
    first = np.concatenate([spun(0), cube_at(2), cube_at(2, 0, 2)])
    assert same_points(posed.vertices["slide"][0], np.concatenate([cube_at(9), cube_at(10)]) if scene == 1 else first)


def test_a_file_without_scenes_is_shown_whole(tmp_path, blender):
    builder = two_cubes()
    del builder.json["scene"], builder.json["scenes"]
    posed = Posed(tmp_path, builder.write(tmp_path / "cubes.glb"), blender, frames=1, clips=["slide"])
    assert len(posed.triangles) == 36


@pytest.mark.parametrize("moved", ["node", "animation"])
def test_what_lies_far_out_keeps_its_accuracy(tmp_path, blender, moved):
    """1,000 km from the origin single precision knows steps of 6 cm."""
    builder = two_cubes()
    far = [1e6, 0.0, -2e6]
    root = builder.node("root", **({"translation": far} if moved == "node" else {}))
    builder.json["nodes"][root]["children"] = [0, 1]
    builder.json["scenes"][0]["nodes"] = [root]
    if moved == "animation":
        for animation in builder.json["animations"]:
            sampler = {"input": builder.array([0.0, 1.0]), "output": builder.array([far, far])}
            animation["channels"].append({"sampler": 1, "target": {"node": root, "path": "translation"}})
            animation["samplers"].append(sampler)
    posed = Posed(tmp_path, builder.write(tmp_path / "cubes.glb"), blender)
    place = np.array([1e6, 2e6, 0.0])
    right, rider = cube_at(2, 0, 0), cube_at(2, 0, 2)
    for frame, degrees in enumerate((0, 45, 90, 135, 180)):
        spin = posed.vertices["spin"][frame]
        assert spin.dtype == np.float64 and same_points(spin - place, np.concatenate([spun(degrees), right, rider]))
    assert posed.row["spin"]["low"] == pytest.approx([1e6 - 2.7071, 2e6 - 0.7071, -0.5], abs=1e-3)


def test_morph_targets_and_shared_skins_move(tmp_path, blender):
    builder = GltfBuilder()
    offset = builder.array(np.tile([0, 1, 0], (8, 1)))
    node = builder.node("morphing", mesh=cube(builder, targets=[{"POSITION": offset}]))
    builder.animation("lift", node, "weights", [0.0, 1.0], [0.0, 2.0])
    joint = builder.node("joint")
    weights = {
        "JOINTS_0": builder.array([[0, 0, 0, 0]] * 8, "uint8"),
        "WEIGHTS_0": builder.array([[1, 0, 0, 0]] * 8),
    }
    bind = np.eye(4)
    bind[0, 3] = -5
    builder.json["skins"] = [{"joints": [joint], "inverseBindMatrices": builder.array([bind])}]
    builder.node("skinned", mesh=cube(builder, attributes=weights), skin=0)
    builder.animation("turn", joint, "rotation", [0.0, 1.0], [[0, 0, 0, 1], [0, 1, 0, 0]])
    posed = Posed(tmp_path, builder.write(tmp_path / "a.glb"), blender, frames=3)
    assert same_points(posed.vertices["lift"][1], np.concatenate([cube_at(0, 0, 1), cube_at(-5, 0, 0)]))
    assert same_points(posed.vertices["lift"][2], np.concatenate([cube_at(0, 0, 2), cube_at(-5, 0, 0)]))  # beyond 1
    assert same_points(posed.vertices["turn"][2], np.concatenate([CUBE, cube_at(5, 0, 0)]))


def test_joints_without_weights_do_not_tear_the_mesh(tmp_path, blender):
    """Their inverse bind matrices often have another scale, as in files of Sketchfab."""
    builder = GltfBuilder()
    armature = builder.node("armature")
    root = builder.node("root", parent=armature)
    spine = builder.node("spine", parent=root, scale=[100, 100, 100])
    head = builder.node("head", parent=spine, translation=[0, 0.01, 0])
    weights = {
        "JOINTS_0": builder.array([[1, 2, 0, 0]] * 8, "uint8"),
        "WEIGHTS_0": builder.array([[0.5, 0.5, 0, 0]] * 8),
    }
    down = np.diag([0.01, 0.01, 0.01, 1])
    up = down.copy()
    up[1, 3] = -0.01
    binds = builder.array([np.eye(4), down, up])
    builder.json["skins"] = [{"joints": [root, spine, head], "inverseBindMatrices": binds}]
    builder.node("skinned", parent=armature, mesh=cube(builder, attributes=weights), skin=0)
    builder.animation("nod", head, "rotation", [0.0, 1.0], [[0, 0, 0, 1], [HALF, 0, 0, HALF]])
    posed = Posed(tmp_path, builder.write(tmp_path / "a.glb"), blender, frames=2)
    quarter = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])  # about x
    turned = (CUBE - [0, 0, 1]) @ quarter.T + [0, 0, 1]
    assert same_points(posed.vertices["nod"][0], CUBE)
    assert same_points(posed.vertices["nod"][1], (CUBE + turned) / 2)


def test_path_with_spaces_and_other_letters(tmp_path, blender):
    folder = tmp_path / "été 2024 猫"
    folder.mkdir()
    assert Posed(tmp_path, two_cubes().write(folder / "a b.glb"), blender, frames=1).clips[0] == "spin"


def test_positions_that_are_not_finite_are_a_problem_of_every_clip(tmp_path, blender):
    builder = two_cubes()
    broken = CUBE_VERTICES.copy()
    broken[3, 1] = np.nan
    builder.node("broken", mesh=builder.mesh(broken, CUBE_TRIANGLES))
    posed = Posed(tmp_path, builder.write(tmp_path / "nan.glb"), blender)
    assert [row["problem"] for row in posed.rows] == ["not finite"] * 3
    assert posed.clips == []


def test_motion_that_is_not_finite_is_a_problem_of_its_clip(tmp_path, blender):
    builder = two_cubes()
    builder.animation("burst", 0, "translation", [0.0, 1.0], [[0, 0, 0], [np.inf, 0, 0]])
    posed = Posed(tmp_path, builder.write(tmp_path / "inf.glb"), blender)
    assert [row["problem"] for row in posed.rows] == [None, None, None, "not finite"]


def test_refused_files(tmp_path, blender):
    def error(path: Path, **options) -> str:
        with pytest.raises(BlenderError) as caught:
            Posed(tmp_path, path, blender, **options)
        return str(caught.value)

    path = two_cubes().write(tmp_path / "cubes.glb")
    assert "36 triangles, more than pose.max_triangles=20" in error(path, max_triangles=20)
    path.write_bytes(path.read_bytes()[:500])
    assert "is damaged" in error(path)
    assert "shows no triangles" in error(two_cubes().write(path), hide_nodes=["left", "right"])
    (tmp_path / "bad.fbx").write_bytes(b"Kaydara FBX Binary  \x00\x1a\x00" + bytes(40))
    assert "empty or damaged" in error(tmp_path / "bad.fbx")
    (tmp_path / "bad.usdc").write_bytes(b"PXR-USDC" + bytes(100))
    assert "Blender cannot read" in error(tmp_path / "bad.usdc")


def test_ten_million_triangles_are_refused_by_the_header(tmp_path, blender):
    builder = two_cubes()
    builder.json["accessors"][1]["count"] = 30_000_000
    with pytest.raises(BlenderError, match=r"\d+,000,0\d\d triangles, more than pose.max_triangles=1,000,000"):
        Posed(tmp_path, builder.write(tmp_path / "huge.glb"), blender)


@pytest.mark.parametrize("far", [0.0, 1e4])
@pytest.mark.parametrize(("suffix", "clip"), [(".fbx", "left|spin"), (".usdc", "default")])
def test_other_formats_are_posed_alike(tmp_path, blender, suffix, clip, far):
    builder = two_cubes()
    root = builder.node("root", translation=[far, 0, 0])
    builder.json["nodes"][root]["children"] = [0, 1]
    builder.json["scenes"][0]["nodes"] = [root]
    builder.json["animations"] = builder.json["animations"][:1]
    path = tmp_path / f"cubes{suffix}"
    glb = builder.write(tmp_path / "cubes.glb")
    subprocess.run([blender_python(), "-I", "-c", EXPORT, glb, path], check=True, capture_output=True)
    posed = Posed(tmp_path, path, blender)
    assert posed.clips == [clip]
    assert posed.row[clip]["seconds"] == pytest.approx(1.0, abs=1e-3)
    right, rider = cube_at(2, 0, 0), cube_at(2, 0, 2)
    for frame, degrees in enumerate((0, 45, 90, 135, 180)):
        expected = np.concatenate([spun(degrees), right, rider])
        assert same_points(posed.vertices[clip][frame] - [far, 0, 0], expected, tolerance=0.02)


@pytest.mark.parametrize("rate", [48.0, 23.976])
def test_time_codes_of_usd_are_seconds_at_the_rate_of_the_file(tmp_path, blender, rate):
    """A triangle that moves by one in 48 time codes."""
    path = tmp_path / "slide.usda"
    path.write_text(USD.replace("RATE", str(rate)))
    posed = Posed(tmp_path, path, blender)
    assert posed.row["default"]["seconds"] == pytest.approx(48 / rate, rel=1e-3)
    np.testing.assert_allclose(posed.vertices["default"][:, 0, 0], [0, 0.25, 0.5, 0.75, 1], atol=1e-3)
