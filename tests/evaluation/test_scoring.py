"""Scores of predictions, alignment and motion at known answers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from eval_sets import SIZE, small_protocol, write_consistent4d
from safetensors.torch import save_file
from scipy.spatial.transform import Rotation

from ss4d.cameras import orbit_camera
from ss4d.compositing import over_background
from ss4d.evaluation.methods.azimuth import find_azimuth, turn
from ss4d.evaluation.methods.coloured_voxels import voxel_gaussians
from ss4d.evaluation.networks import Networks, load_networks
from ss4d.evaluation.placement import move_gaussians
from ss4d.evaluation.prediction import Rendered, check_views, gaussian_voxels, render_subject
from ss4d.evaluation.scoring import score
from ss4d.evaluation.subjects.open import open_subjects
from ss4d.evaluation.subjects.subject import Subject
from ss4d.evaluation.weights import WeightSource
from ss4d.gaussians import GaussianSequence, rasterize
from ss4d.metrics.lpips import LPIPS
from ss4d.metrics.warping import warping_error
from ss4d.view_frame import Similarity

WHITE = torch.ones(3)


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    return open_subjects(small_protocol(), write_consistent4d(tmp_path / "set")).load("guppie")


def true_views(subject: Subject) -> torch.Tensor:
    assert subject.views is not None
    return over_background(subject.views, WHITE)


def test_an_error_counts_inside_the_crop_alone(subject: Subject):
    protocol, views = small_protocol(), true_views(subject)
    assert score(subject, Rendered(views), protocol, Networks()).metrics["psnr"] == math.inf
    outside = views.clone()
    outside[..., :2, :2] = 0
    assert score(subject, Rendered(outside), protocol, Networks()).metrics["psnr"] == math.inf
    whole = small_protocol(crop=False)
    assert score(subject, Rendered((views - 0.1).clamp(0, 1)), whole, Networks()).metrics["psnr"] == pytest.approx(
        20, abs=0.5
    )


def test_a_picture_that_is_exactly_right_does_not_hide_the_others(subject: Subject):
    views = true_views(subject)
    changed = views.clone()
    changed[0, 0] = (changed[0, 0] - 0.2).clamp(0, 1)
    found = score(subject, Rendered(changed), small_protocol(), Networks()).metrics
    assert found["psnr"] is not None and 20 < found["psnr"] < 100
    assert found["novel_psnr"] == math.inf  # the other sides are all exact


def test_networks_are_used_where_they_are_and_na_where_not(subject: Subject, tmp_path: Path):
    protocol = small_protocol(metrics=["psnr", "lpips_alex", "lpips_vgg"], crop_size=64)
    model = LPIPS("alex")
    with torch.no_grad():
        for level in range(5):
            model.get_parameter(f"lin{level}.model.1.weight").abs_()
    save_file(model.state_dict(), tmp_path / "lpips_alex.safetensors")
    networks = load_networks(protocol, WeightSource(tmp_path))
    metrics = score(subject, Rendered(true_views(subject).flip(0)), protocol, networks).metrics
    assert metrics["lpips_alex"] > 0 and metrics["lpips_vgg"] is None  # type: ignore[operator]
    assert list(metrics) == ["psnr", "lpips_alex", "lpips_vgg", "novel_psnr"]


def test_video_features_of_both_sides_are_kept_for_the_set(subject: Subject):
    networks = Networks(video=lambda clip: clip.mean(dim=(0, 2, 3, 4))[None])
    subject.video = subject.video[:1].expand(9, -1, -1, -1)
    assert subject.views is not None
    subject.views = subject.views[:, :1].expand(-1, 9, -1, -1, -1)
    scores = score(subject, Rendered(true_views(subject)), small_protocol(metrics=["fvd"]), networks)
    assert scores.features["prediction"].shape == (2, 1, 3)
    assert torch.equal(scores.features["prediction"], scores.features["target"])


def test_short_clips_have_no_fvd_and_it_is_made_along_views_and_the_diagonal_too(subject: Subject):
    """A network that tells the mean colour of every picture: what lies along which axis is seen in the features."""
    networks = Networks(video=lambda clip: clip.mean(dim=(0, 1, 3, 4))[:, None] / 255)
    protocol = small_protocol(metrics=["fvd", "fvd_views", "fvd_diagonal"], crop=False)
    assert score(subject, Rendered(true_views(subject)), protocol, networks).features == {}  # 3 frames, 2 views
    views, frames = 10, 12
    subject.video = subject.video[:1].expand(frames, -1, -1, -1)
    subject.cameras = subject.cameras[:1] * views
    values = (torch.arange(views)[:, None] + 100 * torch.arange(frames)) / 2000
    pictures = values[..., None, None, None].expand(-1, -1, 3, SIZE, SIZE)
    subject.views = torch.full((views, frames, SIZE, SIZE, 4), 255, dtype=torch.uint8)
    found = score(subject, Rendered(pictures), protocol, networks).features
    assert found["prediction"].shape == (views, frames, 1) and found["target_views"].shape == (frames, views, 1)
    assert torch.allclose(found["prediction"][..., 0], values, atol=1e-3)
    assert torch.allclose(found["prediction_views"][..., 0], values.T, atol=1e-3)
    assert torch.allclose(found["prediction_diagonal"][0, :, 0], values.diagonal(), atol=1e-3)


def test_views_of_another_shape_or_with_nan_are_refused(subject: Subject):
    views = true_views(subject)
    with pytest.raises(ValueError, match=r"guppie: views must be \[2, 3, 3, 32, 32\], but are \[1, 3, 3, 32, 32\]"):
        check_views(views[:1], subject, SIZE)
    views[1, 2, 0, 5, 5] = math.nan
    with pytest.raises(ValueError, match="guppie: view 1, frame 2 has pixels that are not finite"):
        check_views(views, subject, SIZE)


def scene() -> torch.Tensor:
    """Voxels of a body with an arm to the right (+x), in a grid of 16."""
    grid = torch.zeros(16, 16, 16, dtype=torch.bool)
    grid[6:10, 6:10, 4:12] = True
    grid[10:14, 7:9, 8:10] = True
    return grid.nonzero()


def seen_from_the_front(gaussians: GaussianSequence, name: str) -> Subject:
    camera = orbit_camera(0.0, 0.0)
    frames = [rasterize(g, camera, 96, torch.zeros(3)) for g in gaussians]
    rgba = [torch.cat([f.colour / f.alpha.clamp(min=1e-6), f.alpha]).clamp(0, 1) for f in frames]
    video = (255 * torch.stack(rgba)).round().byte().movedim(1, -1)
    return Subject(name, video, camera, [], None, None)


def test_one_turn_of_a_method_is_found_where_single_objects_are_ambiguous():
    """A plain box looks the same from four sides; all results stand 37 degrees off, half as large and to the side."""
    grid = torch.zeros(16, 16, 16, dtype=torch.bool)
    grid[5:11, 5:11, 4:12] = True
    colours = torch.rand(len(scene()), 3, generator=torch.Generator().manual_seed(2))
    upright = {
        "box": voxel_gaussians(grid.nonzero(), torch.full((3,), 0.5), 16),
        "arm": voxel_gaussians(scene(), colours, 16),
    }
    subjects = {name: seen_from_the_front(GaussianSequence([g]), name) for name, g in upright.items()}
    off = Similarity(0.5, Rotation.from_euler("z", -37, degrees=True).as_matrix(), np.array([0.1, 0, 0.1]))

    def load(name: str) -> tuple[GaussianSequence, Subject]:
        if name == "missing":
            raise ValueError("no result")
        return move_gaussians(GaussianSequence([upright[name]]), off), subjects[name]

    found = find_azimuth(["box", "missing", "arm"], load)
    assert found.degrees == pytest.approx(37, abs=2) and found.psnr > 20
    with pytest.raises(ValueError, match="no object has a result that could be turned"):
        find_azimuth(["missing"], load)


def test_turning_the_object_is_turning_the_camera():
    gaussians = voxel_gaussians(scene(), torch.rand(len(scene()), 3), 16)
    gaussians.scale[:, 0] *= 3  # so that rotations matter
    gaussians.xyz += 0.01 * torch.randn_like(gaussians.xyz)  # and no two are equally far away
    pictures = []
    for object_turn, azimuth in ((30.0, 30.0), (0.0, 0.0)):
        camera = orbit_camera(azimuth, 10.0)
        turned = turn(GaussianSequence([gaussians]), object_turn)[0]
        pictures.append(rasterize(turned, camera, 64, WHITE).colour)
    assert torch.allclose(pictures[0], pictures[1], atol=1e-3)


def test_voxels_are_found_again_from_their_gaussians(subject: Subject):
    gaussians = GaussianSequence([voxel_gaussians(scene(), torch.rand(3), 16)] * 3)
    coords = gaussian_voxels(gaussians, 16).coords
    assert torch.equal(coords[coords[:, 0] == 2, 1:], scene())
    faint = voxel_gaussians(scene(), torch.rand(3), 16)
    faint.opacity[:] = 0.49
    assert not len(gaussian_voxels(GaussianSequence([faint]), 16).coords)
    assert render_subject(gaussians, subject, 24, WHITE).shape == (2, 3, 3, 24, 24)
    with pytest.raises(ValueError, match="guppie: the result has 1 frames, but the input 3"):
        render_subject(gaussians[:1], subject, 24, WHITE)


def moving_texture(steps: int, shift: float = 2.0) -> torch.Tensor:
    """[T, 3, 96, 96] a smooth pattern that moves right by `shift` pixels a frame."""
    x, y = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="xy")
    frames = [
        torch.stack([0.5 + 0.25 * torch.sin((x - shift * t) / a) + 0.25 * torch.cos(y / b) for a, b in ((5, 7),) * 3])
        for t in range(steps)
    ]
    return torch.stack(frames)


def test_following_the_motion_is_not_an_error_and_flickering_along_it_is():
    truth = moving_texture(3)
    flickering = truth + 0.1 * torch.tensor([0.0, 1, 0])[:, None, None, None]
    standing = truth[:1].expand(3, -1, -1, -1)
    assert warping_error(truth, truth) < 1e-3
    assert warping_error(flickering, truth) == pytest.approx(0.01, rel=0.2)
    assert warping_error(standing, truth) > 10 * warping_error(truth, truth)
    with pytest.raises(ValueError, match="at least 2 frames"):
        warping_error(truth[:1], truth[:1])
