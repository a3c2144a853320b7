"""FVD and flickering at known answers and against an independent computation."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from ss4d.metrics.flickering import flickering
from ss4d.metrics.frechet import frechet_distance
from ss4d.metrics.fvd import frechet_video_distance, load_video_network, video_features
from ss4d.metrics.i3d import I3D, Resizing, pad_same
from ss4d.metrics.psnr import psnr


def textbook_distance(x: np.ndarray, y: np.ndarray) -> float:
    """By the matrix root of the product of covariances, complex where it is, as most code has it."""
    sx, sy = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(sx @ sy)
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(sx + sy - 2 * root).real)


def test_the_frechet_distance_agrees_with_an_independent_computation():
    mix = torch.randn(12, 12, dtype=torch.float64)
    x, y = torch.randn(80, 12, dtype=torch.float64) @ mix, 0.5 + torch.randn(60, 12, dtype=torch.float64)
    assert frechet_distance(x, y) == pytest.approx(textbook_distance(x.numpy(), y.numpy()), rel=1e-5)


def test_two_normal_distributions_on_a_line_are_as_far_apart_as_the_formula_says():
    x = torch.tensor([[-1.0], [1.0]]) * 3 / 2**0.5  # standard deviation 3
    y = 2 + torch.tensor([[-1.0], [1.0]]) / 2**0.5  # 1
    assert frechet_distance(x, y) == pytest.approx(2**2 + (3 - 1) ** 2, abs=1e-5)


@pytest.mark.parametrize("count", [5, 100])
def test_equal_sets_are_at_distance_zero_and_nothing_is_negative(count: int):
    x = 100 * torch.randn(count, 40)
    assert 0 <= frechet_distance(x, x) < 1e-3  # the features' variance is 400,000
    assert 0 <= frechet_distance(x, x + 1e-6) < 1e-3


def test_sets_that_have_no_covariance_are_refused():
    with pytest.raises(ValueError, match="at least 2 clips, but the sets have 1 and 5"):
        frechet_distance(torch.rand(1, 3), torch.rand(5, 3))
    with pytest.raises(ValueError, match=r"\[5, 3\], \[5, 4\]"):
        frechet_distance(torch.rand(5, 3), torch.rand(5, 4))


class Motion(nn.Module):
    """A stand-in for I3D with its signature: means of a clip and of its changes over space."""

    def forward(self, x: Tensor, rescale: bool, resize: bool, return_features: bool) -> Tensor:
        change = (x[:, :, 1:] - x[:, :, :-1]).abs()
        return torch.cat([x.mean(dim=[2, 3, 4]), change.mean(dim=[2, 3, 4])], dim=1)


def moving_clips(count: int) -> Tensor:
    """[N, 12, 3, 16, 16] a bright square that moves steadily, N different ones."""
    clips = torch.zeros(count, 12, 3, 16, 16)
    for clip in range(count):
        for frame in range(12):
            clips[clip, frame, :, 2 + clip % 8 : 8 + clip % 8, frame // 2 : frame // 2 + 6] = 0.5 + clip / (2 * count)
    return clips


def test_shuffled_frames_raise_flickering_and_fvd_but_not_the_psnr_of_matched_frames(tmp_path: Path):
    torch.jit.script(Motion()).save(str(tmp_path / "i3d.pt"))
    network = load_video_network(tmp_path / "i3d.pt")
    clips, order = moving_clips(10), torch.randperm(12)
    noisy = (clips + 0.05 * torch.randn_like(clips)).clamp(0, 1)
    shuffled, matched = noisy[:, order], clips[:, order]
    truth = video_features(network, clips)
    steady, mixed = (frechet_video_distance(video_features(network, video), truth) for video in (noisy, shuffled))
    assert frechet_video_distance(truth, truth) == pytest.approx(0, abs=1e-6)
    assert 0 < steady < mixed
    assert flickering(clips) < flickering(noisy) < flickering(shuffled)
    assert float(psnr(noisy, clips).mean()) == pytest.approx(float(psnr(shuffled, matched).mean()), abs=1e-9)


def test_few_clips_warn_and_many_do_not():
    with pytest.warns(UserWarning, match="FVD from 5 points of 6 features each: the covariance is singular"):
        frechet_video_distance(torch.rand(5, 1, 6), torch.rand(9, 1, 6))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frechet_video_distance(torch.rand(6, 1, 6), torch.rand(9, 1, 6))


def test_the_variants_are_what_their_definitions_say():
    """Each by its own formula, on the same features; they are far from each other."""
    x, y = torch.rand(2, 5, 3), torch.rand(2, 5, 3)
    steps = [
        textbook_distance(a.numpy().astype(np.float64), b.numpy().astype(np.float64)) for a, b in zip(x, y, strict=True)
    ]
    assert frechet_video_distance(x, y, "steps_of_time") == pytest.approx(sum(steps) / 2, rel=1e-4)
    script = [consistent4d_script(a.numpy().mean(0), b.numpy().mean(0)) for a, b in zip(x, y, strict=True)]
    assert frechet_video_distance(x, y, "consistent4d") == pytest.approx(sum(script) / 2, rel=1e-5)
    with pytest.raises(ValueError, match="at least 2 steps, but there is 1"):
        frechet_video_distance(x[:, :1], y[:, :1], "steps_of_time")
    with pytest.raises(ValueError, match=r"pairs of clips, .* \[2, 5, 3\] and \[1, 5, 3\]"):
        frechet_video_distance(x, y[:1], "consistent4d")
    with pytest.raises(ValueError, match="clips, steps_of_time, consistent4d, but fvd_variant is 'all'"):
        frechet_video_distance(x, y, "all")


def consistent4d_script(x: np.ndarray, y: np.ndarray) -> float:
    """fid_from_feats of Consistent4D's script on features [1, D]: the mean over a single row is the row, and np.cov of
    it, in the NumPy of its time, is the variance of its values, a number."""
    mean_x, mean_y = (row[None].mean(0) for row in (x.astype(np.float64), y.astype(np.float64)))
    cov_x, cov_y = (np.atleast_2d(np.cov(row.astype(np.float64))) for row in (x, y))
    root = scipy.linalg.sqrtm(cov_x @ cov_y)
    return float(((mean_x - mean_y) ** 2).sum() + np.trace(cov_x) + np.trace(cov_y) - 2 * np.trace(root))


def test_i3d_for_consistent4d_resizes_as_pil_and_pools_no_steps_of_time(tmp_path: Path):
    model = I3D().eval()
    save_file(model.state_dict(), tmp_path / "i3d.safetensors")
    network = load_video_network(tmp_path / "i3d.safetensors", "consistent4d")
    assert video_features(network, torch.rand(1, 9, 3, 32, 32)).shape == (1, 2, 400)  # 9 frames: 5, 3, 2
    plane = 255 * torch.rand(300, 300)
    expected = np.asarray(Image.fromarray(plane.numpy(), mode="F").resize((224, 224), Image.Resampling.BICUBIC))
    resizings: dict[Resizing, bool] = {"pil": True, "bilinear": False}
    for resizing, agrees in resizings.items():
        resized = I3D(1, resizing).resize(plane[None, None].expand(1, 3, -1, -1))[0, 0].numpy()
        assert np.allclose(resized, expected, atol=0.01) == agrees
    (tmp_path / "i3d_torchscript.pt").touch()
    with pytest.raises(ValueError, match=r"as consistent4d takes i3d\.safetensors, not"):
        load_video_network(tmp_path / "i3d_torchscript.pt", "consistent4d")


def test_i3d_has_the_published_names_and_size(tmp_path: Path):
    model = I3D().eval()
    parameters = dict(model.named_parameters())
    assert sum(p.numel() for p in parameters.values()) == 12_697_264  # as published for 400 classes
    assert parameters["Mixed_4f.b2b.conv3d.weight"].shape == (128, 32, 3, 3, 3)
    save_file(model.state_dict(), tmp_path / "i3d.safetensors")
    clips = torch.rand(1, 25, 3, 32, 32)
    features = video_features(load_video_network(tmp_path / "i3d.safetensors"), clips)
    assert features.shape == (1, 3, 400)  # 25 frames: 13, 7, 4, less one for the window of the average
    state = {name: value for name, value in model.state_dict().items() if name != "logits.conv3d.bias"}
    save_file(state, tmp_path / "i3d.safetensors")
    with pytest.raises(ValueError, match=r"does not hold I3D: logits.conv3d.bias missing"):
        load_video_network(tmp_path / "i3d.safetensors")


def test_padding_gives_a_place_for_every_stride():
    for size in range(7, 12):
        padded = pad_same(torch.rand(1, 1, size, size, size), (7, 3, 1), (2, 2, 1))
        places = torch.nn.functional.conv3d(padded, torch.ones(1, 1, 7, 3, 1), stride=(2, 2, 1)).shape[2:]
        assert tuple(places) == (-(-size // 2), -(-size // 2), size)


def test_short_clips_are_refused():
    with pytest.raises(ValueError, match="2 frames or more, but these have 1"):
        video_features(lambda clips: clips, torch.rand(1, 1, 3, 8, 8))


def test_flickering_counts_on_the_scale_of_8_bits():
    video = torch.zeros(2, 3, 3, 4, 4)
    video[:, 1] = 2 / 255
    video[:, 2] = 5 / 255
    assert flickering(video) == pytest.approx((2 + 3) / 2)
    assert flickering(torch.rand(1, 3, 4, 4).expand(5, -1, -1, -1)) == 0
    with pytest.raises(ValueError, match="the video has 1"):
        flickering(video[:, :1])
