"""Protocols, subjects of each data set, crops and weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from eval_sets import FRAMES, SIZE, disc, small_protocol, write_consistent4d, write_davis, write_frames
from tiny import RESOLUTION, box_voxels, picture

from ss4d.compositing import over_background
from ss4d.evaluation.crop import CropBox, crop, crop_videos, object_box
from ss4d.evaluation.networks import load_networks
from ss4d.evaluation.protocol import CHOICES, load_protocol, names_in
from ss4d.evaluation.subjects.frame_folders import orbit
from ss4d.evaluation.subjects.open import open_subjects
from ss4d.evaluation.weights import MissingWeights, WeightSource
from ss4d.models.checkpoint import CheckpointError

PREPARED = {
    **{"dataset": "prepared", "views": {"rendered": [1, 0]}, "voxel_resolution": RESOLUTION, "split": "train"},
    "metrics": ["psnr", "iou"],
}


@pytest.mark.parametrize("name", ["ss4d_assets", "objaversedy", "consistent4d", "davis"])
def test_shipped_protocols_are_valid(name: str):
    assert name in names_in()
    assert load_protocol(name).name == name


def test_the_papers_protocols_say_what_the_paper_says():
    objaverse, consistent = load_protocol("objaversedy"), load_protocol("consistent4d")
    assert (objaverse.frames, objaverse.size, objaverse.background, objaverse.crop) == (32, 512, [1, 1, 1], True)
    assert consistent.views.azimuths == [-75, 15, 105, 195] and consistent.views.elevation == 0
    assert len(consistent.objects) == 7 and consistent.fvd_variant == "consistent4d"
    eye = -orbit(consistent)[1].extrinsics[:3, :3].T @ orbit(consistent)[1].extrinsics[:3, 3]
    assert torch.allclose(eye, torch.tensor([2 * np.sin(np.pi / 12), -2 * np.cos(np.pi / 12), 0.0]).float(), atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"frames": 0}, "frames must be at least 1, but it is 0"),
        ({"dataset": "dycheck"}, "dataset must be one of prepared, consistent4d, davis"),
        ({"views": {}}, "views.azimuths must name the cameras"),
        ({"views": {"azimuts": [0]}}, "unknown key views.azimuts: did you mean views.azimuths"),
        ({"metrics": ["iou"]}, "shape metrics need voxel_resolution"),
        ({"metrics": ["ssim"], "crop_size": 8}, "SSIM takes at least 11 pixels: raise crop_size"),
        ({"crop_margin": -0.6}, r"crop_margin must lie in \(-0.5, 10\], but it is -0.6"),
        ({"figure_views": [-9]}, r"figure_views must be different numbers from 0 on, but it is \[-9\]"),
        ({"views": {"rendered": [0, 0]}}, "views.rendered must be different numbers from 0 on"),
        ({"views": {"azimuths": [0], "radius": 0}}, "views.radius must be above 1"),
        ({"background": [255, 255, 255]}, "background must be three numbers from 0 to 1"),
    ],
)
def test_impossible_protocols_are_refused(changes: dict, says: str):
    with pytest.raises(ValueError, match=says):
        small_protocol(**changes)


def test_every_choice_makes_another_protocol():
    changes: list[dict] = [{name: choice} for name, choices in CHOICES.items() for choice in choices[1:]]
    hashes = [small_protocol(**change).hash() for change in ({}, *changes)]
    assert {"crop_shape", "crop_per", "crop_filter"} <= set(CHOICES) and len(set(hashes)) == len(hashes)
    assert small_protocol(**{name: choices[0] for name, choices in CHOICES.items()}).hash() == hashes[0]


def test_a_prepared_set_gives_its_front_video_views_and_voxels(clip_folder: Path):
    subjects = open_subjects(small_protocol(**PREPARED), clip_folder)
    assert subjects.names() == ["box0", "box1"]
    subject = subjects.load("box1")
    assert subject.frames == 4 and subject.views is not None and subject.voxels is not None
    assert torch.equal(subject.video[2], torch.from_numpy(picture(1, 0, 2)))
    assert torch.equal(subject.views[0, 3], torch.from_numpy(picture(0, 1, 3)))  # in the order that was asked for
    assert torch.equal(subject.voxels.nonzero().short(), box_voxels(6, 4))


def test_an_occluder_hides_a_share_of_the_input_and_leaves_the_alpha(clip_folder: Path):
    plain, hidden = (
        open_subjects(small_protocol(**PREPARED, occlusion=share), clip_folder).load("box0").video
        for share in (0.0, 0.25)
    )
    assert torch.equal(plain[..., 3], hidden[..., 3])
    inside = plain[..., 3] > 0
    black = (hidden[..., :3] == 0).all(-1) & inside
    shares = black.flatten(1).sum(1) / inside.flatten(1).sum(1)
    assert torch.allclose(shares, torch.full((len(shares),), 0.25), atol=0.02)
    assert torch.equal(plain[~black], hidden[~black])


def test_a_prepared_set_of_another_size_or_with_fewer_views_is_refused(clip_folder: Path):
    for changes in ({"size": 64}, {"views": {"rendered": [0, 5]}}):
        subjects = open_subjects(small_protocol(**{**PREPARED, **changes}), clip_folder)
        with pytest.raises(ValueError, match=r"box0__slide.zip has 2 views of 32 pixels, but protocol"):
            subjects.load("box0")
    with pytest.raises(ValueError, match="no conditioning video of yaw 180"):
        open_subjects(small_protocol(**PREPARED, input_azimuth=180.0), clip_folder).load("box0")


def test_consistent4ds_layout_gives_input_and_views(tmp_path: Path):
    subjects = open_subjects(small_protocol(), write_consistent4d(tmp_path / "set"))
    assert subjects.names() == ["guppie", "skull"]
    subject = subjects.load("skull")
    assert subject.views is not None and subject.views.shape == (2, FRAMES, SIZE, SIZE, 4)
    assert torch.equal(subject.views[1, 2], torch.from_numpy(disc(2, shift=1)))
    assert torch.equal(subject.video[1], torch.from_numpy(disc(1))) and len(subject.cameras) == 2


def test_consistent4d_with_a_frame_too_many_names_the_folder(tmp_path: Path):
    root = write_consistent4d(tmp_path / "set", ("skull",))
    for file in (root / "gt" / "skull" / "eval_1").iterdir():
        file.unlink()
    (root / "gt" / "skull" / "eval_1").rmdir()
    write_frames(root / "gt" / "skull" / "eval_1", frames=FRAMES + 1)
    with pytest.raises(ValueError, match=r"skull: .*eval_1 has 4 frames, but the input has 3"):
        open_subjects(small_protocol(), root).load("skull")
    with pytest.raises(ValueError, match="lacks the objects trump"):
        open_subjects(small_protocol(objects=["skull", "trump"]), root)


def test_davis_gives_the_object_cropped_by_its_mask(tmp_path: Path):
    subjects = open_subjects(small_protocol(dataset="davis"), write_davis(tmp_path / "set"))
    subject = subjects.load("dog")
    assert subjects.names() == ["bear", "dog"] and subject.views is None and subject.voxels is None
    assert subject.video.shape == (FRAMES, SIZE, SIZE, 4)
    covered = (subject.video[..., 3] > 127).float().mean()
    assert 0.3 < covered < 0.8  # a disc in a box of 1.2 times its width fills 55%, less while it moves
    (tmp_path / "set" / "Annotations" / "480p" / "dog" / "00002.png").unlink()
    with pytest.raises(ValueError, match=r"dog: .* does not have a mask of every frame"):
        subjects.load("dog")


def test_a_box_is_square_around_all_frames_and_crops_them_alike():
    rgba = torch.stack([torch.from_numpy(disc(frame)) for frame in range(5)])
    box = object_box(rgba[..., 3])
    assert box == CropBox(
        left=9, top=7, width=19, height=19
    )  # 15 wide and 4 further: columns 9 to 27, centred in height
    white = torch.ones(3)
    images = over_background(rgba, white)
    cropped = crop(images, box, 19, white)
    assert torch.allclose(cropped, images[..., 7:26, 9:28])
    wide = object_box(rgba[..., 3], margin=1.0)
    assert wide.width == wide.height == 57
    assert torch.allclose(crop(images, wide, 57, white)[..., :5, :5], torch.ones(5, 3, 5, 5))
    with pytest.raises(ValueError, match="show no object in any frame"):
        object_box(torch.zeros(2, 4, 4, dtype=torch.uint8))


def test_a_box_for_each_frame_is_filled_by_the_object_of_that_frame():
    alpha = torch.zeros(2, 32, 32, dtype=torch.uint8)
    alpha[0, 4:6, 20:22] = alpha[1, 6:26, 6:26] = 255
    protocol = small_protocol(crop_per="frame", crop_size=16, background=[0.0, 0.0, 0.0])
    (cropped,) = crop_videos([(alpha / 255)[:, None].expand(-1, 3, -1, -1)], alpha, protocol)
    torch.testing.assert_close(cropped, torch.ones(2, 3, 16, 16))


def test_a_colour_is_laid_over_the_background():
    rgba = torch.tensor([[[[200, 100, 0, 51]]]], dtype=torch.uint8)
    expected = 0.2 * torch.tensor([200, 100, 0]) / 255 + 0.8
    assert torch.allclose(over_background(rgba, torch.ones(3))[0, :, 0, 0], expected)


def test_weights_come_from_a_folder_with_their_hash(tmp_path: Path):
    (tmp_path / "clip-vit").mkdir()
    (tmp_path / "clip-vit" / "model.safetensors").write_bytes(b"weights")
    found = WeightSource(tmp_path).find("model.safetensors", "openai/clip-vit")
    assert found.sha256 == hashlib.sha256(b"weights").hexdigest()
    with pytest.raises(MissingWeights, match=r"lpips_alex.safetensors is not at .*lpips_alex.safetensors: put it"):
        WeightSource(tmp_path).find("lpips_alex.safetensors")


def test_the_hub_is_asked_only_when_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def fetch(source: str, file: str) -> Path:
        asked.append((source, file))
        if file == "absent":
            raise CheckpointError("offline")
        (tmp_path / file).write_bytes(b"weights")
        return tmp_path / file

    monkeypatch.setattr("ss4d.evaluation.weights.fetch", fetch)
    with pytest.raises(MissingWeights, match=r"model of openai/clip is not given: .* or say download=true"):
        WeightSource().find("model", "openai/clip")
    assert not asked
    assert WeightSource(download=True, hub="me/weights").find("lpips").path == tmp_path / "lpips"
    with pytest.raises(MissingWeights, match=r"absent of openai/clip is not to be had from the Hub's openai/clip: put"):
        WeightSource(download=True).find("absent", "openai/clip")
    assert asked == [("me/weights", "lpips"), ("openai/clip", "absent")]


def test_missing_networks_are_named_and_present_ones_hashed(tmp_path: Path):
    from safetensors.torch import save_file

    from ss4d.metrics.lpips import LPIPS

    save_file(LPIPS("alex").state_dict(), tmp_path / "lpips_alex.safetensors")
    protocol = small_protocol(metrics=["psnr", "lpips_alex", "lpips_vgg", "clip", "fvd"])
    networks = load_networks(protocol, WeightSource(tmp_path))
    assert set(networks.lpips) == set(networks.hashes) == {"lpips_alex"}
    assert set(networks.missing) == {"lpips_vgg", "clip", "fvd"}
    assert "i3d.safetensors" in networks.missing["fvd"] and "download=true" in networks.missing["clip"]


def test_only_one_variant_of_fvd_takes_the_script(tmp_path: Path):
    """Without the other file the others are n/a, rather than an error after hours of work."""
    (tmp_path / "i3d_torchscript.pt").write_bytes(b"")
    networks = load_networks(small_protocol(metrics=["fvd"], fvd_variant="steps_of_time"), WeightSource(tmp_path))
    assert networks.video is None and "i3d.safetensors" in networks.missing["fvd"]
