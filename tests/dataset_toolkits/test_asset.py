from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset_toolkits.asset import Y_UP_TO_Z_UP, load_asset
from dataset_toolkits.gltf import GltfError, read_glb

HALF = float(np.sqrt(0.5))


def rotation(axis: int, degrees: float) -> np.ndarray:
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix[i, i] = matrix[j, j] = cosine
    matrix[i, j], matrix[j, i] = -sine, sine
    return matrix


def in_gltf_axes(vertices: np.ndarray) -> np.ndarray:
    return vertices @ Y_UP_TO_Z_UP


def test_gltf_front_faces_the_camera_of_azimuth_zero(cube_glb, tmp_path):
    cube_glb.json["nodes"][0]["translation"] = [1, 2, 3]
    asset = load_asset(cube_glb.write(tmp_path / "a.glb"))
    centre = asset.pose(None, np.zeros(1))[0].mean(axis=0)
    np.testing.assert_allclose(centre, [1, -3, 2], atol=1e-6)


def test_rotation_is_interpolated_along_the_arc(cube_glb, cube_vertices, tmp_path):
    quarter = [[0, 0, 0, 1], [0, -HALF, 0, -HALF]]  # the second is a quarter turn, its sign flipped
    cube_glb.animation("turn", 0, "rotation", [0.0, 3.0], quarter, "LINEAR")
    asset = load_asset(cube_glb.write(tmp_path / "a.glb"))
    posed = in_gltf_axes(asset.pose(asset.clips["turn"], np.array([-1.0, 1.0, 3.0, 9.0])))
    for frame, degrees in zip(posed, [0, 30, 90, 90], strict=True):
        np.testing.assert_allclose(frame, cube_vertices @ rotation(1, degrees).T, atol=1e-6)


@pytest.mark.parametrize(
    ("interpolation", "values", "expected"),
    [
        ("LINEAR", [[0, 0, 0], [4, 0, 0]], [0, 1, 2, 4]),
        ("STEP", [[0, 0, 0], [4, 0, 0]], [0, 0, 0, 4]),
        # From 0 with slope 1 to 4 with slope -1 in 2 seconds, by hand from the formula of appendix C:
        # 2 (s^3 - 2 s^2 + s) + 4 (3 s^2 - 2 s^3) - 2 (s^3 - s^2) at s = 0, 1/4, 1/2, 1
        (
            "CUBICSPLINE",
            [[9, 9, 9], [0, 0, 0], [1, 0, 0], [-1, 0, 0], [4, 0, 0], [9, 9, 9]],
            [0, 1.0, 2.5, 4],
        ),
    ],
)
def test_interpolations_of_a_translation(cube_glb, tmp_path, interpolation, values, expected):
    cube_glb.animation("move", 0, "translation", [0.0, 2.0], values, interpolation)
    asset = load_asset(cube_glb.write(tmp_path / "a.glb"))
    posed = asset.pose(asset.clips["move"], np.array([0.0, 0.5, 1.0, 2.0]))
    np.testing.assert_allclose(posed.mean(axis=1)[:, 0], expected, atol=1e-6)


def test_children_follow_their_parents(cube_glb, tmp_path):
    cube_glb.json["nodes"] = [
        {"translation": [1, 0, 0], "rotation": [0, 0, HALF, HALF], "children": [1]},
        {"matrix": [2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 0, 3, 0, 0, 1], "mesh": 0},
    ]
    asset = load_asset(cube_glb.write(tmp_path / "a.glb"))
    posed = in_gltf_axes(asset.pose(None, np.zeros(1)))[0]
    # 3 along x, turned a quarter about z to y, then moved 1 along x; twice as large.
    np.testing.assert_allclose(posed.mean(axis=0), [1, 3, 0], atol=1e-6)
    np.testing.assert_allclose(np.ptp(posed, axis=0), 2, atol=1e-6)


def test_two_bone_skin(cube_glb, cube_vertices, tmp_path):
    """The upper half of the cube hangs on a bone at y = 0 that bends by 90 degrees about z."""
    upper = (cube_vertices[:, 1] > 0).astype(np.float32)
    weights = np.stack([1 - upper, upper, 0 * upper, 0 * upper], axis=1)
    attributes = cube_glb.json["meshes"][0]["primitives"][0]["attributes"]
    attributes["JOINTS_0"] = cube_glb.array(np.tile([0, 1, 0, 0], (8, 1)), "uint8")
    attributes["WEIGHTS_0"] = cube_glb.array(np.round(255 * weights), "uint8", normalized=True)
    bind = np.tile(np.eye(4), (2, 1, 1))
    bind[0, 1, 3] = 0.5  # the root bone stands at y = -0.5
    cube_glb.json["skins"] = [{"joints": [1, 2], "inverseBindMatrices": cube_glb.array(bind)}]
    cube_glb.json["nodes"] = [
        {"mesh": 0, "skin": 0, "translation": [100, 0, 0]},  # has no say in where a skinned mesh is
        {"translation": [0, -0.5, 0], "children": [2]},
        {"translation": [0, 0.5, 0]},
    ]
    cube_glb.json["scenes"] = [{"nodes": [0, 1]}]
    cube_glb.animation("bend", 2, "rotation", [0.0, 1.0], [[0, 0, 0, 1], [0, 0, HALF, HALF]], "LINEAR")
    asset = load_asset(cube_glb.write(tmp_path / "a.glb"))
    rest, bent = in_gltf_axes(asset.pose(asset.clips["bend"], np.array([0.0, 1.0])))
    np.testing.assert_allclose(rest, cube_vertices, atol=1e-6)
    expected = np.where(upper[:, None] > 0, cube_vertices @ rotation(2, 90).T, cube_vertices)
    np.testing.assert_allclose(bent, expected, atol=1e-6)


def test_half_weights_blend_the_bones(cube_glb, cube_vertices, tmp_path):
    attributes = cube_glb.json["meshes"][0]["primitives"][0]["attributes"]
    attributes["JOINTS_0"] = cube_glb.array(np.tile([0, 1, 0, 0], (8, 1)), "uint16")
    attributes["WEIGHTS_0"] = cube_glb.array(np.tile([2.0, 2.0, 0, 0], (8, 1)))  # not normalised in the file
    cube_glb.json["skins"] = [{"joints": [1, 2]}]
    cube_glb.json["nodes"] = [{"mesh": 0, "skin": 0}, {"translation": [4, 0, 0]}, {"translation": [0, 2, 0]}]
    cube_glb.json["scenes"] = [{"nodes": [0, 1, 2]}]
    asset = load_asset(cube_glb.write(tmp_path / "a.glb"))
    posed = in_gltf_axes(asset.pose(None, np.zeros(1)))[0]
    np.testing.assert_allclose(posed, cube_vertices + np.array([2, 1, 0]), atol=1e-6)


def test_morph_targets_with_a_sparse_one(cube_glb, cube_vertices, tmp_path):
    shift = cube_glb.array(np.tile([1.0, 0, 0], (8, 1)))
    indices = cube_glb.view(np.array([1, 6], np.uint16).tobytes())
    values = cube_glb.view(np.array([[0, 1, 0], [0, 0, 1]], np.float32).tobytes())
    sparse = {
        "count": 2,
        "indices": {"bufferView": indices, "componentType": 5123},
        "values": {"bufferView": values},
    }
    cube_glb.json["accessors"].append({"componentType": 5126, "count": 8, "type": "VEC3", "sparse": sparse})
    targets = [{"POSITION": shift}, {"POSITION": len(cube_glb.json["accessors"]) - 1}]
    cube_glb.json["meshes"][0]["primitives"][0]["targets"] = targets
    cube_glb.json["meshes"][0]["weights"] = [0.5, 0.0]
    cube_glb.animation("morph", 0, "weights", [0.0, 1.0], [0, 0, 1, 2], "LINEAR")
    asset = load_asset(cube_glb.write(tmp_path / "a.glb"))

    rest = in_gltf_axes(asset.pose(None, np.zeros(1)))[0]
    np.testing.assert_allclose(rest, cube_vertices + np.array([0.5, 0, 0]), atol=1e-6)
    halfway = in_gltf_axes(asset.pose(asset.clips["morph"], np.array([0.5])))[0]
    expected = cube_vertices + np.array([0.5, 0, 0])
    expected[1] += [0, 1, 0]
    expected[6] += [0, 0, 1]
    np.testing.assert_allclose(halfway, expected, atol=1e-6)


def test_hidden_nodes_hide_their_children(cube_glb, tmp_path):
    cube_glb.json["nodes"] = [
        {"name": "body", "mesh": 0},
        {"name": "prop", "children": [2]},
        {"name": "handle", "mesh": 0},
    ]
    cube_glb.json["scenes"] = [{"nodes": [0, 1]}]
    path = cube_glb.write(tmp_path / "a.glb")
    assert len(load_asset(path).triangles) == 24
    assert len(load_asset(path, ["prop"]).triangles) == 12
    with pytest.raises(GltfError, match="no triangles"):
        load_asset(path, ["prop", "body"])


def test_colour_is_factor_times_vertex_colour_times_texture(cube_glb, tmp_path):
    picture = Image.new("RGBA", (2, 1), (255, 255, 255, 255))
    picture.putpixel((1, 0), (188, 188, 188, 255))  # 0.5 linear
    encoded = io.BytesIO()
    picture.save(encoded, "PNG")
    cube_glb.json |= {
        "images": [{"bufferView": cube_glb.view(encoded.getvalue()), "mimeType": "image/png"}],
        "textures": [{"source": 0}],
        "materials": [
            {
                "pbrMetallicRoughness": {
                    "baseColorFactor": [1, 1, 0, 1],
                    "baseColorTexture": {
                        "index": 0,
                        "extensions": {"KHR_texture_transform": {"offset": [0.5, 0]}},
                    },
                }
            }
        ],
    }
    attributes = cube_glb.json["meshes"][0]["primitives"][0]["attributes"]
    attributes["COLOR_0"] = cube_glb.array(np.tile([255, 0, 255, 255], (8, 1)), "uint8", normalized=True)
    attributes["TEXCOORD_0"] = cube_glb.array(np.tile([0.25, 0.5], (8, 1)))
    asset = load_asset(cube_glb.write(tmp_path / "a.glb"))
    colour = asset.appearance.lookup(np.array([0]), np.array([[0.2, 0.3, 0.5]], np.float32))
    # (1, 1, 0) x (1, 0, 1) x 0.5 at u = 0.25 + 0.5, the centre of the second texel
    np.testing.assert_allclose(colour.rgb, [[188 / 255, 0, 0]], atol=2e-3)


def test_specular_glossiness_stands_in(cube_glb, tmp_path):
    extension = {"KHR_materials_pbrSpecularGlossiness": {"diffuseFactor": [0, 1, 0, 1]}}
    cube_glb.json["materials"] = [{"extensions": extension}]
    asset = load_asset(cube_glb.write(tmp_path / "a.glb"))
    colour = asset.appearance.lookup(np.array([3]), np.full((1, 3), 1 / 3, np.float32))
    np.testing.assert_allclose(colour.rgb, [[0, 1, 0]], atol=1e-6)


def test_mirrored_nodes_keep_their_outside_outside(cube_glb, tmp_path):
    cube_glb.json["nodes"][0]["scale"] = [-1, 1, 1]
    asset = load_asset(cube_glb.write(tmp_path / "a.glb"))
    corners = asset.pose(None, np.zeros(1))[0][asset.triangles]
    assert np.linalg.det(corners).sum() / 6 == pytest.approx(1.0)  # signed volume


def test_strips_and_fans_keep_the_winding(glb, tmp_path):
    corners = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]]
    around = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
    glb.json |= {
        "meshes": [
            {
                "primitives": [
                    {"attributes": {"POSITION": glb.array(corners)}, "mode": 5},
                    {"attributes": {"POSITION": glb.array(around)}, "mode": 6},
                ]
            }
        ],
        "nodes": [{"mesh": 0}],
    }
    asset = load_asset(glb.write(tmp_path / "a.glb"))
    corners = in_gltf_axes(asset.pose(None, np.zeros(1)))[0][asset.triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    np.testing.assert_allclose(normals, np.tile([0, 0, 1], (4, 1)), atol=1e-6)


def test_interleaved_accessor(glb, tmp_path):
    interleaved = np.arange(24, dtype=np.float32).reshape(4, 6)
    view = glb.view(interleaved.tobytes())
    glb.json["bufferViews"][view]["byteStride"] = 24
    glb.json["accessors"].append(
        {"bufferView": view, "byteOffset": 12, "componentType": 5126, "count": 4, "type": "VEC3"}
    )
    document = read_glb(glb.write(tmp_path / "a.glb"))
    np.testing.assert_array_equal(document.accessor(0), interleaved[:, 3:])


def test_files_that_cannot_be_read_say_why(cube_glb, tmp_path: Path):
    (tmp_path / "text.glb").write_text("this is not a model, although it is long enough")
    with pytest.raises(GltfError, match="not a glTF"):
        load_asset(tmp_path / "text.glb")
    cube_glb.json["extensionsRequired"] = ["KHR_draco_mesh_compression"]
    with pytest.raises(GltfError, match="KHR_draco_mesh_compression"):
        load_asset(cube_glb.write(tmp_path / "draco.glb"))
