"""Colours, cutouts and cropped cameras in pictures by both engines, on walls whose pictures are known."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gltf_builder import GltfBuilder, wall
from numpy.typing import NDArray
from PIL import Image

from dataset_toolkits.blender.process import BlenderError, BlenderProcess

SIZE = 32
FOCAL = 1.0
LIGHT = 0.5 + 0.5 * 0.6 / math.sqrt(0.4**2 + 0.6**2 + 0.7**2)  # on a surface that faces the front
ENGINES = ["BLENDER_WORKBENCH", "CYCLES"]
CAMERA = {
    "extrinsics": [[1, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 2], [0, 0, 0, 1]],  # at (0, -2, 0), looking along +y
    "intrinsics": [[FOCAL, 0, 0.5], [0, FOCAL, 0.5], [0, 0, 1]],
    "size": SIZE,
}
MATT: dict[str, Any] = {"extensions": {"KHR_materials_specular": {"specularFactor": 0}}, "doubleSided": True}


class Pictures:
    """What a job returns: `rgba` [N, S, S, 4] and `depth` [N, S, S]."""

    def __init__(self, blender: BlenderProcess, path: Path, engine: str, *cameras: dict[str, Any], **arguments: Any):
        settings = {"samples": 4, "supersampling": 2, "bounces": 0, "ambient": 0.5, "key": 0.5}
        options = settings | {"engine": engine, "device": "CPU", "threads": 1}
        job = {"path": str(path), "hide_nodes": [], "clip": None, "times": [0.0], "scale": 1.0, "centre": [0, 0, 0]}
        job |= {"cameras": cameras or [CAMERA], "options": options, "folder": str(path.parent)} | arguments
        self.rgba: list[NDArray[np.uint8]] = []
        self.depth: list[NDArray[np.float32]] = []
        for result in blender.run("render", **job):
            self.rgba.append(np.load(path.parent / result["rgba"]))
            self.depth.append(np.load(path.parent / result["depth"]))


def srgb(linear: Any) -> Any:
    return 255 * (1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)


def texture(builder: GltfBuilder, pixels: Any) -> int:
    """A texture of RGBA bytes [H, W, 4] without smoothing."""
    buffer = io.BytesIO()
    Image.fromarray(np.array(pixels, np.uint8)).save(buffer, "PNG")
    image = {"bufferView": builder.view(buffer.getvalue()), "mimeType": "image/png"}
    builder.json |= {"images": [image], "samplers": [{"magFilter": 9728, "minFilter": 9728}]}
    builder.json["textures"] = [{"source": 0, "sampler": 0}]
    return 0


def textured_wall(builder: GltfBuilder, pixels: Any, **extra: Any) -> None:
    """A wall of side 1 at y = 0; `extra` goes to its material."""
    colour = {"baseColorTexture": {"index": texture(builder, pixels)}, "metallicFactor": 0}
    colour |= extra.pop("colour", {})
    attributes = extra.pop("attributes", {})
    material = builder.material(pbrMetallicRoughness=colour, **(MATT | extra))
    uv = builder.array([[0, 1], [1, 1], [1, 0], [0, 0]])
    builder.node("wall", mesh=wall(builder, material, TEXCOORD_0=uv, **attributes))
    builder.json["extensionsUsed"] = ["KHR_materials_specular"]


@pytest.mark.parametrize("engine", ENGINES)
def test_texture_factor_and_vertex_colours_are_multiplied(tmp_path, blender, engine):
    builder = GltfBuilder()
    vertex_colours = builder.array([[1, 1, 0.25, 1]] * 4)
    left_white_right_blue = [[[255, 255, 255, 255], [0, 0, 255, 255]]]
    factor = {"baseColorFactor": [0.5, 0.25, 1, 1]}
    textured_wall(builder, left_white_right_blue, colour=factor, attributes={"COLOR_0": vertex_colours})
    rgba = Pictures(blender, builder.write(tmp_path / "wall.glb"), engine).rgba[0]
    np.testing.assert_allclose(rgba[16, 12], [*srgb(LIGHT * np.array([0.5, 0.25, 0.25])), 255], atol=5)
    np.testing.assert_allclose(rgba[16, 20], [0, 0, *srgb(LIGHT * np.array([0.25])), 255], atol=5)


@pytest.mark.parametrize("engine", ENGINES)
def test_alpha_cuts_holes_only_where_the_material_says_so(tmp_path, blender, engine):
    left_clear = [[[255, 0, 0, 60], [255, 0, 0, 255]]]
    for mode, expected in (("MASK", 0), ("OPAQUE", 255)):
        builder = GltfBuilder()
        textured_wall(builder, left_clear, alphaMode=mode)
        found = Pictures(blender, builder.write(tmp_path / "wall.glb"), engine)
        assert found.rgba[0][16, 12, 3] == expected
        assert found.rgba[0][16, 20, 3] == 255
        assert np.isfinite(found.depth[0][16, 12]) == bool(expected)


QUARTERS = [[[255, 0, 0, 255], [0, 255, 0, 255]], [[0, 0, 255, 255], [255, 255, 255, 255]]]  # red, green; blue, white
CORNERS = {"upper left": (12, 12), "upper right": (12, 20), "lower left": (20, 12), "lower right": (20, 20)}


def colours(rgba: NDArray[np.uint8]) -> dict[str, tuple[bool, ...]]:
    """Which channels are bright in each quarter of the wall."""
    return {name: tuple(bool(value > 100) for value in rgba[place][:3]) for name, place in CORNERS.items()}


@pytest.mark.parametrize("engine", ENGINES)
def test_texture_transforms_are_applied(tmp_path, blender, engine):
    """Offset, rotation and scale as KHR_texture_transform has them: uv' = offset + R(-rotation) (scale * uv)."""
    red, green, blue, white = (True, False, False), (False, True, False), (False, False, True), (True, True, True)
    transforms: list[tuple[dict[str, Any], list[tuple[bool, ...]]]] = [
        ({"offset": [0.5, 0.0]}, [green, red, white, blue]),
        ({"offset": [0.5, 0.5], "scale": [0.5, 0.5]}, [white] * 4),
        ({"offset": [0.0, 1.0], "rotation": math.pi / 2}, [blue, red, white, green]),
    ]
    for transform, expected in transforms:
        builder = GltfBuilder()
        transformed = {"index": texture(builder, QUARTERS), "extensions": {"KHR_texture_transform": transform}}
        textured_wall(builder, QUARTERS, colour={"baseColorTexture": transformed})
        builder.json["extensionsUsed"] = ["KHR_texture_transform", "KHR_materials_specular"]
        rgba = Pictures(blender, builder.write(tmp_path / "wall.glb"), engine).rgba[0]
        assert list(colours(rgba).values()) == expected, transform


@pytest.mark.parametrize("engine", ENGINES)
def test_images_take_the_uv_layer_that_the_material_names(tmp_path, blender, engine):
    builder = GltfBuilder()
    mirrored = builder.array([[1, 1], [0, 1], [0, 0], [1, 0]])
    second = {"baseColorTexture": {"index": texture(builder, QUARTERS), "texCoord": 1}}
    textured_wall(builder, QUARTERS, colour=second, attributes={"TEXCOORD_1": mirrored})
    rgba = Pictures(blender, builder.write(tmp_path / "wall.glb"), engine).rgba[0]
    assert colours(rgba)["upper left"] == (False, True, False) and colours(rgba)["upper right"] == (True, False, False)


@pytest.mark.parametrize("engine", ENGINES)
def test_emission_is_added_to_the_lit_colour(tmp_path, blender, engine):
    """An image of its own in another place than the base colour's, times a factor; no light changes it."""
    builder = GltfBuilder()
    shifted = {"index": 0, "extensions": {"KHR_texture_transform": {"offset": [0.5, 0.0]}}}
    grey = {"baseColorTexture": None, "baseColorFactor": [0.25, 0.25, 0.25, 1]}
    textured_wall(builder, QUARTERS, colour=grey, emissiveTexture=shifted, emissiveFactor=[0.1, 0.4, 1.0])
    del builder.json["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]
    builder.json["extensionsUsed"] = ["KHR_texture_transform", "KHR_materials_specular"]
    rgba = Pictures(blender, builder.write(tmp_path / "wall.glb"), engine).rgba[0]
    lit = LIGHT * 0.25
    for place, light in (("upper right", [0.1, 0, 0]), ("lower right", [0, 0, 1.0]), ("upper left", [0, 0.4, 0])):
        expected = srgb(np.minimum(lit + np.array(light), 1))
        np.testing.assert_allclose(rgba[CORNERS[place]], [*expected, 255], atol=5)


def test_emission_does_not_shine_through_holes(tmp_path, blender):
    builder = GltfBuilder()
    left_clear = [[[255, 0, 0, 60], [255, 0, 0, 255]]]
    textured_wall(builder, left_clear, alphaMode="MASK", emissiveFactor=[0.0, 1.0, 0.0])
    rgba = Pictures(blender, builder.write(tmp_path / "wall.glb"), "BLENDER_WORKBENCH").rgba[0]
    assert not rgba[16, 12].any() and rgba[16, 20].tolist()[1:] == [255, 0, 255]


@pytest.mark.parametrize("engine", ENGINES)
def test_what_lies_far_out_is_seen_as_near_the_origin(tmp_path, blender, engine):
    pictures = []
    for place in (0.0, 1e6):
        builder = GltfBuilder()
        material = builder.material(pbrMetallicRoughness={"metallicFactor": 0}, doubleSided=True)
        root = builder.node("root", translation=[place, 0, 0])
        builder.node("wall", root, mesh=wall(builder, material), translation=[0.2, 0.1, 0])
        path = builder.write(tmp_path / "wall.glb")
        pictures.append(Pictures(blender, path, engine, centre=[place, 0, 0]))
    np.testing.assert_array_equal(pictures[0].rgba, pictures[1].rgba)
    np.testing.assert_array_equal(pictures[0].depth, pictures[1].depth)


@pytest.mark.parametrize("engine", ENGINES)
def test_cropped_and_normalised_camera_sees_what_the_pinhole_formula_says(tmp_path, blender, engine):
    """The camera is in the normalised world; the wall stands far out in the asset's own units."""
    builder = GltfBuilder()
    material = builder.material(pbrMetallicRoughness={"metallicFactor": 0}, doubleSided=True)
    builder.node("wall", mesh=wall(builder, material, side=100.0), translation=[1000, 0, 0])
    crop = CAMERA | {"intrinsics": [[2 * FOCAL, 0, 0.75], [0, 2 * FOCAL, 0.25], [0, 0, 1]]}
    path = builder.write(tmp_path / "wall.glb")
    found = Pictures(blender, path, engine, CAMERA, crop, scale=0.005, centre=[1000, 0, 0])
    # Half a unit wide at distance 2: a quarter of the picture, and half of the crop's.
    for picture, box in ((0, (12, 20, 12, 20)), (1, (16, 32, 0, 16))):
        left, right, top, bottom = box
        expected = np.zeros((SIZE, SIZE), bool)
        expected[top:bottom, left:right] = True
        np.testing.assert_array_equal(found.rgba[picture][..., 3] == 255, expected)
        np.testing.assert_allclose(found.depth[picture][expected], 2.0, atol=1e-4)
        assert np.isinf(found.depth[picture][~expected]).all()
        assert not found.rgba[picture][~expected].any()


def test_supersampling_gives_partial_alpha_with_straight_colour(tmp_path, blender):
    builder = GltfBuilder()
    colour = {"baseColorFactor": [1, 0, 0, 1], "metallicFactor": 0}
    material = builder.material(pbrMetallicRoughness=colour, doubleSided=True)
    builder.node("wall", mesh=wall(builder, material, side=1 + 2 / SIZE))  # half a pixel more on either side
    rgba = Pictures(blender, builder.write(tmp_path / "wall.glb"), "BLENDER_WORKBENCH").rgba[0]
    assert rgba[16, 7, 3] == 128
    assert rgba[16, 7, 0] == rgba[16, 16, 0] > 200


def test_cycles_repeats_itself(tmp_path, blender):
    builder = GltfBuilder()
    textured_wall(builder, [[[255, 255, 255, 255], [0, 0, 255, 255]]])
    path = builder.write(tmp_path / "wall.glb")
    first, second = (Pictures(blender, path, "CYCLES") for _ in range(2))
    np.testing.assert_array_equal(first.rgba, second.rgba)
    np.testing.assert_array_equal(first.depth, second.depth)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_that_is_not_there_is_named(tmp_path, blender):
    builder = GltfBuilder()
    textured_wall(builder, [[[255, 255, 255, 255]]])
    options: dict[str, Any] = {"samples": 1, "supersampling": 1, "bounces": 0, "ambient": 0.5, "key": 0.5, "threads": 1}
    options |= {"engine": "CYCLES", "device": "GPU"}
    with pytest.raises(BlenderError, match=r"finds no GPU here; use render.device=CPU"):
        Pictures(blender, builder.write(tmp_path / "wall.glb"), "CYCLES", options=options)
