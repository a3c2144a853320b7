"""Sets with a cube of voxels for each conditioning video (voxelize.frame=turned or view): judged in that of the input.

The cube of the input is the clip's own after a quarter turn here, which maps voxels onto voxels: so every method has
the scores that it has on the set in the clip's cube.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from eval_sets import SMALL, into_cubes_of_videos, scores, write_posed_boxes

from scripts.eval.__main__ import main
from ss4d.cameras import Camera
from ss4d.evaluation.placement import out_of_view
from ss4d.evaluation.protocol import load_protocol
from ss4d.evaluation.subjects.prepared import PreparedSubjects
from ss4d.evaluation.subjects.subject import Subject
from ss4d.view_frame import ViewFrame


@pytest.fixture(scope="module")
def both(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The set in the cubes of clips, and the same in those of videos."""
    folder = tmp_path_factory.mktemp("sets")
    own = shutil.copytree(clip_folder, folder / "own")
    write_posed_boxes(own)
    return own, into_cubes_of_videos(shutil.copytree(own, folder / "videos"))


def judged(data: Path, out: Path, *options: str) -> dict[str, dict[str, Any]]:
    assert main(["run", *SMALL, f"data={data}", f"out={out}", *options]) == 0
    return scores(out)


@pytest.mark.parametrize("method", ["truth", "true_voxels", "nearest_clip", "average_occupancy", "alpha_copy"])
def test_methods_score_as_in_the_clips_cube(method: str, both: tuple[Path, Path], tmp_path: Path):
    options = ["protocol.aligned=false", f"method={method}"]
    own, videos = (judged(data, tmp_path / data.name, *options) for data in both)
    assert own.keys() == videos.keys() and len(own) == 2
    turned = {"front_iou": "side_iou", "side_iou": "front_iou"}  # another side of the box is in front
    for name, expected in own.items():
        if method == "alpha_copy":  # of the input's plane, which is another one
            assert 0 <= videos[name]["front_iou"] <= 1 and videos[name]["psnr"] is None
        elif method == "average_occupancy":  # of voxels that are equally frequent the first ones are taken
            assert videos[name]["iou"] == pytest.approx(expected["iou"], abs=0.1)
        else:
            for metric, value in expected.items():
                assert videos[name][turned.get(metric, metric)] == pytest.approx(value, abs=1e-4), (name, metric)


def test_the_surface_moves_with_the_cube(both: tuple[Path, Path], tmp_path: Path):
    options = ["protocol.metrics=[cd_3d,cd_4d,cd_m]", "protocol.aligned=false", "method=true_voxels"]
    own, videos = (judged(data, tmp_path / data.name, *options) for data in both)
    for name, expected in own.items():
        assert videos[name] == pytest.approx(expected, rel=0.02) and 0 < expected["cd_3d"] < expected["cd_m"]


def test_a_checkpoint_of_the_clips_cube_is_placed_in_that_of_the_video(
    both: tuple[Path, Path], pipeline_folder: Path, tmp_path: Path
):
    options = ["method=ours", f"model={pipeline_folder}", "seeds=[0]", "protocol.aligned=false"]
    own, videos = (judged(data, tmp_path / data.name, *options) for data in both)
    for name, expected in own.items():
        assert videos[name]["psnr"] == pytest.approx(expected["psnr"], abs=1e-3)
        assert videos[name]["iou"] == pytest.approx(expected["iou"], abs=1e-6)


def test_a_result_in_the_frame_of_its_view_stays_where_the_cube_is_that_of_the_view():
    """The camera of the input is the frame's own: nothing is moved."""
    frame = ViewFrame(0.8, 1.4)
    video = torch.zeros(1, 240, 240, 4, dtype=torch.uint8)
    video[:, 20:220, 20:220, 3] = 255  # the pipeline crops to 1.2 times the object
    camera = frame.camera()
    placed = out_of_view(frame, Subject("full", video, camera, [camera], None, None))
    np.testing.assert_allclose(placed.matrix(), np.eye(4), atol=0.01)


def test_the_cameras_see_the_same(both: tuple[Path, Path]):
    protocol = load_protocol("ss4d_assets", [text.removeprefix("protocol.") for text in SMALL[1:]])
    own, videos = (PreparedSubjects(protocol, data).load("box0") for data in both)
    assert videos.clip_cube is not None and own.clip_cube is None
    point = np.array([[0.1, 0.2, -0.3]])
    for before, after in zip([own.input_camera, *own.cameras], [videos.input_camera, *videos.cameras], strict=True):
        seen, again = pixel(before, point), pixel(after, videos.clip_cube(point))
        np.testing.assert_allclose(seen, again, atol=1e-5)


def pixel(camera: Camera, points: np.ndarray) -> np.ndarray:
    extrinsics, intrinsics = camera.extrinsics.double().numpy(), camera.intrinsics.double().numpy()
    seen = (points @ extrinsics[:3, :3].T + extrinsics[:3, 3]) @ intrinsics.T
    return seen[:, :2] / seen[:, 2:]
