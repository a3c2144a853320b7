"""The stage render, with Blender, on scenes whose pictures are known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from gltf_builder import GltfBuilder, wall

from dataset_toolkits.blender.process import BlenderProcess
from dataset_toolkits.collect import CollectOptions, collect
from dataset_toolkits.curate import CurateOptions, curate
from dataset_toolkits.engine.records import write_table
from dataset_toolkits.features.projection import pixel_rays
from dataset_toolkits.pose import PoseOptions, PoseStage
from dataset_toolkits.render import RenderOptions, RenderStage
from ss4d.data.views import ViewArchive

RED = (0.5, 0.1, 0.02)  # linear
SIZE = 64
OPTIONS = {"size": SIZE, "views": 6, "cond_views": 2, "cond_size": 32, "samples": 4, "supersampling": 1}


def srgb(linear: float) -> float:
    return 1.055 * linear ** (1 / 2.4) - 0.055


def prepare(root: Path, folder: Path) -> None:
    """A wall at y = 0 that faces the front and moves a little up, posed and accepted."""
    builder = GltfBuilder()
    matt = {"KHR_materials_specular": {"specularFactor": 0}}
    colour = {"baseColorFactor": [*RED, 1], "metallicFactor": 0}
    material = builder.material(pbrMetallicRoughness=colour, doubleSided=True, extensions=matt)
    builder.json["extensionsUsed"] = list(matt)
    node = builder.node("wall", mesh=wall(builder, material, side=8.0))
    builder.animation("Up", node, "translation", [0, 1], [[0, 0, 0], [0, 1, 0]])
    folder.mkdir()
    builder.write(folder / "wall.glb")
    collect(root, CollectOptions(folder=str(folder)))
    stage = PoseStage(root, PoseOptions(frames=2, sampling="spread"))
    (item,) = stage.items()
    rows = [{"name": item.name, "key": stage.key(item), "status": "done", **row} for row in stage.run(item).rows]
    stage.close()
    write_table(root, "pose", rows)
    curate(root, CurateOptions())


def render(root: Path, **options: object) -> Path:
    stage = RenderStage(root, RenderOptions(**{**OPTIONS, **options}))  # type: ignore[arg-type]
    (item,) = stage.items()
    stage.run(item)
    stage.close()
    return stage.artifact(item.name)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, blender: BlenderProcess) -> Path:
    folder = tmp_path_factory.mktemp("wall")
    prepare(folder / "set", folder / "assets with spaces, é")
    return folder / "set"


@pytest.mark.parametrize("engine", ["BLENDER_WORKBENCH", "CYCLES"])
def test_the_wall_is_where_and_as_bright_as_it_should_be(root: Path, engine: str) -> None:
    archive = ViewArchive(render(root, engine=engine))
    index = archive.index
    scale = 0.95 / 9  # the clip is 8 + 1 units high
    assert index.scale == pytest.approx(scale)
    np.testing.assert_allclose(index.centre, [0, 0, 0.5], atol=1e-6)

    # Depth: every rendered point lies on the wall, at y = 0.
    rays = pixel_rays(archive.cameras, SIZE)
    points = 0
    for view in range(len(index.views)):
        depth = archive.depth(view, 0)
        on = np.isfinite(depth)
        world = rays.origins[view] + depth[on][:, None] * rays.directions[view][on]
        if abs(rays.origins[view][1]) > 0.2:  # not edge on
            assert np.abs(world[:, 1]).max() < 2e-3
            assert np.abs(world[:, [0, 2]]).max() < 0.5
            points += len(world)
    assert points > 1000

    # The front video: a square of the right size, alpha one inside, colour = base colour x light.
    front = archive.cond(0, 0).astype(float)
    focal = np.array(index.cond[0].intrinsics)[0, 0]
    side = focal / 2.0 * 8 * scale * index.cond_size
    assert math.sqrt((front[..., 3] / 255).sum()) == pytest.approx(side, rel=0.04)
    light = 0.5 + 0.5 * 0.6 / math.sqrt(0.4**2 + 0.6**2 + 0.7**2)  # ambient, key from (-0.4, -0.6, 0.7), towards -y
    middle = front[16, 16]
    assert middle[3] == 255
    np.testing.assert_allclose(middle[:3], [255 * srgb(c * light) for c in RED], atol=6)


def test_the_same_clip_gives_the_same_bytes(root: Path) -> None:
    first = render(root, engine="BLENDER_WORKBENCH").read_bytes()
    assert render(root, engine="BLENDER_WORKBENCH").read_bytes() == first


def test_later_frames_move_and_videos_keep_the_object_in_the_picture(root: Path) -> None:
    archive = ViewArchive(render(root, engine="BLENDER_WORKBENCH"))
    rows = [np.nonzero(archive.cond(0, frame)[..., 3].any(1))[0] for frame in (0, 1)]
    assert rows[1].mean() < rows[0].mean() - 1  # up
    for view in range(2):
        alpha = np.stack([archive.cond(view, frame)[..., 3] for frame in (0, 1)])
        assert not alpha[:, [0, -1]].any() and not alpha[:, :, [0, -1]].any()
