"""Voxels, features, latents and training samples in the frames of conditioning videos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from scenes import box, run, sphere_cameras, stack_cameras, write_scene

from dataset_toolkits.features.stage import FeaturesOptions, FeaturesStage
from dataset_toolkits.voxelize import VoxelizeOptions, VoxelizeStage, turned_frame
from ss4d.cameras import Camera, crop_intrinsics, orbit_camera
from ss4d.data import FeatureDataset, OccupancyDataset, PreparedSet, Window
from ss4d.data.occupancy import occupancy_grid
from ss4d.view_frame import ViewFrame

RED, BLUE, GREY = [220, 30, 40], [20, 60, 210], [90, 90, 90]
SLAB = box([-0.3, -0.1, -0.2], [0.3, 0.1, 0.2], [GREY, GREY, RED, BLUE, GREY, GREY])
CROP = 0.8


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The slab seen by two conditioning videos: one of its red front, one of its blue back, close up."""
    root = tmp_path_factory.mktemp("set")
    fronts = [orbit_camera(0, 0), orbit_camera(180, 10)]
    cond = [Camera(c.extrinsics, crop_intrinsics(c.intrinsics, box)) for c, box in zip(fronts, BOXES, strict=True)]
    write_scene(root, "toy", [SLAB, SLAB], sphere_cameras(10), 96, stack_cameras(cond))
    run(VoxelizeStage(root, VoxelizeOptions([32], "view", CROP, 1.4)))
    run(FeaturesStage(root, FeaturesOptions()))
    return root


BOXES = [(0.25, 0.25, 0.75, 0.75), (0.2, 0.2, 0.8, 0.8)]


def read(root: Path, stage: str) -> dict[str, np.ndarray]:
    return load_file(root / stage / "toy__move.safetensors")


def test_every_video_has_its_cube_and_it_is_what_the_fixed_camera_sees(root: Path):
    voxels = read(root, "voxelize")
    assert set(voxels) == {"similarities", "coords_32_0", "coords_32_1"}
    for number, size in enumerate((0.5, 0.6)):
        coords = voxels[f"coords_32_{number}"]
        assert set(coords[:, 0]) == {0, 1}
        centres = torch.from_numpy((coords[:, 1:] + 0.5) / 32 - 0.5)
        uv = ViewFrame(CROP, 1.4).project(centres).numpy()
        seen = project(root, number)
        # Of a picture of 40 degrees from 2 units the box is 0.6 / 1.456 wide, and the crop magnifies it by 1 / size.
        assert np.ptp(seen[:, 0]) == pytest.approx(0.6 / 1.456 / size, abs=0.05)
        assert np.abs(uv.min(0) - seen.min(0)).max() < 0.05 and np.abs(uv.max(0) - seen.max(0)).max() < 0.05


def project(root: Path, number: int) -> np.ndarray:
    """Where the slab's corners lie in a conditioning video."""
    from ss4d.data.views import ViewArchive

    cameras = ViewArchive(root / "render" / "toy__move.zip").cond_cameras
    corners = SLAB.corners.reshape(-1, 3)
    camera = corners @ cameras.extrinsics[number, :3, :3].T + cameras.extrinsics[number, :3, 3]
    image = camera @ cameras.intrinsics[number].T
    return image[:, :2] / image[:, 2:]


@pytest.mark.parametrize(("number", "colour"), [(0, RED), (1, BLUE)])
def test_the_side_that_a_video_shows_is_the_front_of_its_cube(root: Path, number: int, colour: list[int]):
    features = read(root, "features")
    coords, feats = features[f"coords_32_{number}"], features[f"feats_32_{number}"].astype(np.float32)
    middle = (np.abs(coords[:, [1, 3]] - 15.5) < 4).all(axis=1)
    front = middle & (coords[:, 2] < 15)
    assert front.sum() > 20
    np.testing.assert_allclose(255 * (np.median(feats[front, :3], axis=0) * 0.25 + 0.5), colour, atol=4)
    normal = np.median(feats[front, 9:12], axis=0) / 3**0.5
    assert normal @ [0, -1, 0] > 0.97  # towards the camera, but for the elevation of 10 degrees


def test_samples_are_of_one_cube_with_its_cameras(root: Path):
    clips = PreparedSet.open(root, 32, FeatureDataset.stages)
    assert clips.clips[0].cubes == 2
    drawn = set()
    for seed in range(8):
        grid = OccupancyDataset(clips)[Window(0, (1,), seed)].grid
        sample = FeatureDataset(clips)[Window(0, (1,), seed)]
        number = next(n for n in range(2) if torch.equal(grid, whole(root, n)))
        drawn.add(number)
        target = sample.targets[0]
        # The picture's alpha is where the voxels project to in the moved camera.
        centres = (sample.voxels.coords[:, 1:].double() + 0.5) / 32 - 0.5
        image = (
            centres @ target.extrinsics[:3, :3].double().T + target.extrinsics[:3, 3]
        ) @ target.intrinsics.double().T
        pixels = (96 * image[:, :2] / image[:, 2:]).floor().long().clamp(0, 95)
        covered = target.rgba[pixels[:, 1], pixels[:, 0], 3] > 0
        assert covered.float().mean() > 0.75
        torch.testing.assert_close(target.extrinsics[:3, :3] @ target.extrinsics[:3, :3].T, torch.eye(3))
    assert drawn == {0, 1}


def whole(root: Path, number: int) -> torch.Tensor:
    coords = torch.from_numpy(read(root, "features")[f"coords_32_{number}"])
    coords = coords[coords[:, 0] == 1].clone()
    coords[:, 0] = 0
    return occupancy_grid(coords, 1, 32)


def test_a_turned_clip_is_normalised_again():
    corners = SLAB.corners.reshape(1, -1, 3)
    placed = turned_frame(90.0, corners)(corners)[0]
    np.testing.assert_allclose(np.ptp(placed, axis=0), [0.95 / 3, 0.95, 0.95 * 2 / 3], atol=1e-9)
    np.testing.assert_allclose(placed.max(0), -placed.min(0), atol=1e-9)
    # The side at +x, which a camera at azimuth 90 sees, is in front.
    assert placed[corners[0, :, 0].argmax(), 1] == pytest.approx(-0.475)


def test_unknown_frames_are_refused():
    with pytest.raises(ValueError, match=r"voxelize\.frame is one of clip, turned, view, not world"):
        VoxelizeOptions(frame="world")
