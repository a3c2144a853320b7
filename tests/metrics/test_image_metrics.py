"""PSNR, SSIM, LPIPS and CLIP similarity against independent implementations, and at known answers."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import conv2d, max_pool2d, relu

from ss4d.metrics.clip_similarity import ClipSimilarity, load_clip
from ss4d.metrics.fvd import load_video_network
from ss4d.metrics.lpips import LPIPS, _unit, load_lpips
from ss4d.metrics.psnr import psnr
from ss4d.metrics.ssim import ssim, structural_similarity


@pytest.fixture
def images() -> Tensor:
    """Smooth pictures [3, 3, 64, 64] with some noise."""
    rough = torch.nn.functional.interpolate(torch.rand(3, 3, 8, 8), 64, mode="bicubic").clamp(0, 1)
    return (0.9 * rough + 0.1 * torch.rand(3, 3, 64, 64)).clamp(0, 1)


def blurred(images: Tensor, times: int = 1) -> Tensor:
    for _ in range(times):
        images = torch.nn.functional.avg_pool2d(images, 3, 1, 1, count_include_pad=False)
    return images


def test_psnr_and_ssim_agree_with_scikit_image(images: Tensor):
    metrics = pytest.importorskip("skimage.metrics", reason="needs scikit-image")
    other = blurred(images)
    for index in range(len(images)):
        x, y = (batch[index].movedim(0, -1).double().numpy() for batch in (images, other))
        expected = metrics.peak_signal_noise_ratio(y, x, data_range=1)
        assert float(psnr(images, other)[index]) == pytest.approx(expected, abs=1e-5)
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1}
        expected = metrics.structural_similarity(x, y, channel_axis=-1, **options)
        assert float(ssim(images, other)[index]) == pytest.approx(expected, abs=1e-5)


def test_psnr_of_a_known_error():
    assert float(psnr(torch.zeros(3, 4, 4), torch.full((3, 4, 4), 0.1))) == pytest.approx(20, abs=1e-5)


def test_constant_images_leave_only_the_luminance_term():
    x, y, c1 = torch.full((1, 1, 16, 16), 0.2), torch.full((1, 1, 16, 16), 0.6), 0.01**2
    expected = (2 * 0.2 * 0.6 + c1) / (0.2**2 + 0.6**2 + c1)
    torch.testing.assert_close(structural_similarity(x, y), torch.tensor(expected), rtol=1e-4, atol=1e-4)


def test_an_inverted_pattern_scores_below_an_unrelated_one():
    x = torch.rand(1, 1, 32, 32)
    assert structural_similarity(x, 1 - x) < structural_similarity(x, torch.rand(1, 1, 32, 32)) < 0.3


# Kernel, stride and padding of AlexNet's convolutions, and of VGG's how many follow one another before a pooling.
ALEX = [(4, 2), (1, 2), (1, 1), (1, 1), (1, 1)]
POOL_BEFORE_ALEX = (1, 2)
VGG = [2, 2, 3, 3, 3]


def published_lpips(network: str, weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
    """The formula of the paper's eq. 1, written down once more over the names of the published weights."""

    def features(image: Tensor) -> list[Tensor]:
        h = (image * 2 - 1 - torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1)) / torch.tensor(
            [0.458, 0.448, 0.450]
        ).view(3, 1, 1)
        found = []
        names = [name.removesuffix(".weight") for name in weights if name.startswith("net.") and "weight" in name]
        convolutions = iter(sorted(names, key=lambda name: int(name.split(".")[2])))
        for block in range(5):
            if network == "alex":
                stride, padding = ALEX[block]
                h = max_pool2d(h, 3, 2) if block in POOL_BEFORE_ALEX else h
                layers = [(stride, padding)]
            else:
                h = max_pool2d(h, 2, 2) if block else h
                layers = [(1, 1)] * VGG[block]
            for stride, padding in layers:
                name = next(convolutions)
                h = relu(conv2d(h, weights[f"{name}.weight"], weights[f"{name}.bias"], stride, padding))
            found.append(h)
        return found

    total = torch.zeros(len(x))
    for level, (a, b) in enumerate(zip(features(x), features(y), strict=True)):
        a, b = (h / (h.norm(dim=1, keepdim=True) + 1e-10) for h in (a, b))
        total += ((a - b) ** 2 * weights[f"lin{level}.model.1.weight"][0][None]).sum(1).mean((1, 2))
    return total


@pytest.mark.parametrize("network", ["alex", "vgg"])
def test_lpips_is_the_published_formula(network: str, images: Tensor, tmp_path: Path):
    weights = {name: value.clone() for name, value in LPIPS(network).state_dict().items()}
    for name in weights:
        if name.startswith("lin"):
            weights[name] = torch.rand_like(weights[name])
    path = tmp_path / f"lpips_{network}.safetensors"
    save_file({**weights, "scaling_layer.shift": torch.zeros(3), "lins.0.model.1.weight": torch.zeros(1)}, path)
    model, other = load_lpips(network, path), blurred(images)
    found, expected = model(images, other), published_lpips(network, weights, images, other)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert (found > 0).all()
    assert torch.equal(model(images, images), torch.zeros(3))


def test_lpips_names_alexnet_and_vgg_as_the_package_does():
    alex = [name for name in LPIPS("alex").state_dict() if name.endswith("weight")]
    assert alex[:5] == [f"net.slice{i}.{n}.weight" for i, n in zip(range(1, 6), (0, 3, 6, 8, 10), strict=True)]
    numbers = [int(name.split(".")[2]) for name in LPIPS("vgg").state_dict() if "net." in name and "weight" in name]
    assert numbers == [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]


def test_weights_of_another_network_are_refused(tmp_path: Path):
    save_file(LPIPS("alex").state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match=r"weights.safetensors does not hold LPIPS over vgg: .*missing"):
        load_lpips("vgg", tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="alex and vgg, but the network is 'resnet'"):
        LPIPS("resnet")


def test_clip_similarity_agrees_with_transformers(images: Tensor, tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    settings = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.CLIPVisionConfig(**settings, image_size=32, patch_size=8, projection_dim=12)
    model = transformers.CLIPVisionModelWithProjection(config).eval()
    processor = transformers.models.clip.CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    )
    # At the network's own size both see the same pixels; resizing adds the rounding of 8 bit pictures.
    for size, tolerance in ((32, 1e-5), (64, 2e-3)):
        pictures = [(255 * image[:, :size, :size]).round().byte() for image in (*images, *blurred(images, 3))]
        arrays = [np.asarray(picture.movedim(0, -1)) for picture in pictures]
        with torch.inference_mode():
            embeds = model(**processor(arrays, return_tensors="pt")).image_embeds
            expected = torch.nn.functional.cosine_similarity(embeds[:3], embeds[3:])
            first, second = (torch.stack(part).float() / 255 for part in (pictures[:3], pictures[3:]))
            found = ClipSimilarity(model)(first, second)
        torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
    model.save_pretrained(tmp_path / "clip")
    with torch.inference_mode():
        loaded = load_clip(tmp_path / "clip")
        torch.testing.assert_close(loaded(images, blurred(images)), ClipSimilarity(model)(images, blurred(images)))
        assert torch.allclose(loaded(images, images), torch.ones(3))


def test_more_blur_and_more_shift_score_worse(images: Tensor, tmp_path: Path):
    """Perfect scores for equal pictures, and an order among distortions that everybody agrees on."""
    lpips = LPIPS("alex")
    with torch.no_grad():
        for level in range(5):
            lpips.get_parameter(f"lin{level}.model.1.weight").abs_()
        for distorted in (
            [images, blurred(images, 1), blurred(images, 4), blurred(images, 12)],
            [images, images.roll(1, -1), images.roll(3, -1), images.roll(8, -1)],
        ):
            scores = {
                "psnr": [float(psnr(images, other).mean()) for other in distorted],
                "ssim": [float(ssim(images, other).mean()) for other in distorted],
                "lpips": [-float(lpips(images, other).mean()) for other in distorted],
            }
            assert (scores["psnr"][0], scores["ssim"][0], scores["lpips"][0]) == (float("inf"), pytest.approx(1), 0)
            for name, values in scores.items():
                assert values == sorted(values, reverse=True) and len(set(values)) == 4, name


def test_a_place_without_any_feature_has_no_gradient():
    features = torch.zeros(1, 3, 2, 2)
    features[0, :, 0, 0] = torch.tensor([3.0, 0.0, 4.0])
    features.requires_grad_()
    unit = _unit(features)
    torch.testing.assert_close(unit[0, :, 0, 0], torch.tensor([0.6, 0.0, 0.8]))
    (gradient,) = torch.autograd.grad(unit.square().sum(), features)
    assert bool(gradient.isfinite().all())


def test_damaged_weights_are_named(tmp_path: Path):
    for name in ("model.safetensors", "config.json", "i3d_torchscript.pt"):
        (tmp_path / name).write_bytes(b"no weights at all")
    for load in (partial(load_lpips, "alex"), load_video_network):
        with pytest.raises(ValueError, match=r"model\.safetensors is damaged or no safetensors file .*: get it again"):
            load(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"i3d_torchscript\.pt is damaged or no TorchScript file"):
        load_video_network(tmp_path / "i3d_torchscript.pt")
    with pytest.raises(ValueError, match="does not hold CLIP's weights, or they are damaged"):
        load_clip(tmp_path)
