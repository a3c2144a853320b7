from __future__ import annotations

import math
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from scenes import box, render, sphere_cameras, stack_cameras
from torch.nn.functional import grid_sample

from dataset_toolkits.features.extractors import DinoExtractor, SmallExtractor, filled_pyramid, picture_on_black
from dataset_toolkits.features.projection import project
from ss4d.cameras import orbit_camera

FACES = [[250, 20, 10], [20, 240, 30], [10, 30, 230], [240, 230, 20], [30, 200, 220], [120, 60, 180]]
FACE_CENTRES = 0.3 * np.array([[-1, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0], [0, 0, -1], [0, 0, 1]], float)


def sample(maps, view: int, uv: np.ndarray) -> np.ndarray:
    grid = 2 * torch.tensor(uv, dtype=torch.float32)[None, None] - 1
    parts = [grid_sample(part[view : view + 1], grid, align_corners=False)[0, :, 0] for part in maps]
    return torch.cat(parts).T.numpy()


def test_colours_and_normals_of_a_box():
    views = render(box([-0.3] * 3, [0.3] * 3, FACES), sphere_cameras(6), 128)
    extractor = SmallExtractor()
    maps = extractor(views)
    assert sum(part.shape[1] for part in maps) == len(extractor.channels) == 12
    projection = project(FACE_CENTRES, views.cameras)
    normals = FACE_CENTRES / 0.3
    checked = set()
    for view, origin in enumerate(views.rays.origins):
        towards = ((origin - FACE_CENTRES) * normals).sum(axis=1)
        for face in np.flatnonzero(towards > 0.5):
            values = sample(maps, view, projection.uv[view, face : face + 1])[0]
            np.testing.assert_allclose(values[:3] * 0.25 + 0.5, np.array(FACES[face]) / 255, atol=1e-3)
            np.testing.assert_allclose(values[3:6], values[:3], atol=1e-3)  # 1/64 of the image is inside of the face
            np.testing.assert_allclose(values[9:] / math.sqrt(3), normals[face], atol=2e-3)
            checked.add(face)
    assert checked == set(range(6))


def test_background_takes_no_part():
    """One colour everywhere: every scale has it, on the silhouette and beyond, whatever lies beside it."""
    views = render(box([-0.2] * 3, [0.3] * 3, [[51, 102, 204]]), sphere_cameras(3), 96)
    for part in SmallExtractor()(views)[:3]:
        expected = (torch.tensor([0.2, 0.4, 0.8]) - 0.5) / 0.25
        torch.testing.assert_close(part, expected[None, :, None, None].expand_as(part), rtol=0, atol=1e-3)


def test_pictures_of_nothing_give_zeros():
    views = render(box([5] * 3, [6] * 3), sphere_cameras(2), 16)
    assert all((part == 0).all() for part in SmallExtractor()(views))


def test_pyramid_averages_by_weight_and_fills_gaps():
    values = torch.tensor([[1.0, 3.0, 7.0, 9.0]] * 4)[None, None]
    weight = torch.tensor([[1.0, 0.5, 0.0, 0.0]] * 4)[None, None]
    full, half, one = filled_pyramid(values, weight)
    mean = (1 + 0.5 * 3) / 1.5
    torch.testing.assert_close(one, torch.full((1, 1, 1, 1), mean))
    torch.testing.assert_close(half, torch.full((1, 1, 2, 2), mean))
    torch.testing.assert_close(full[0, 0, 0], torch.tensor([1.0, 3.0, mean, mean]))
    assert [level.shape[-1] for level in filled_pyramid(torch.rand(2, 3, 13, 13), torch.ones(2, 1, 13, 13))] == [
        *(13, 7, 4, 2, 1)
    ]


def test_normals_at_a_step_in_depth_stay_on_their_surface():
    """A box before a wall, seen from the front: every normal is the camera's direction, also along its outline."""
    wall, before = box([-0.45, 0.3, -0.45], [0.45, 0.4, 0.45]), box([-0.1, -0.4, -0.1], [0.1, -0.3, 0.1])
    views = render(wall + before, stack_cameras([orbit_camera(0, 0)]), 64)
    normal = SmallExtractor()(views)[3][0] / math.sqrt(3)
    expected = torch.tensor([0.0, -1.0, 0.0])[:, None, None].expand_as(normal)
    # The wall's box shows nothing but its front; rays that graze the small box's sides do not exist either.
    torch.testing.assert_close(normal, expected, rtol=0, atol=5e-3)


def test_picture_on_black_is_the_released_recipe():
    rgba = np.random.default_rng(0).integers(0, 256, (20, 20, 4), np.uint8)
    expected = np.asarray(Image.fromarray(rgba).resize((14, 14), Image.Resampling.LANCZOS)).astype(np.float32) / 255
    expected = expected[..., :3] * expected[..., 3:]
    np.testing.assert_allclose(picture_on_black(rgba, 14).permute(1, 2, 0), expected, atol=1e-7)


def released_formula(weights: dict[str, torch.Tensor], image: torch.Tensor, heads: int) -> torch.Tensor:
    """DINOv2 with registers in plain steps: x_prenorm of one picture [3, S, S]; `weights` are named as on the Hub."""

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        return plain_norm(x, 1e-6) * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (image - mean[:, None, None]) / std[:, None, None]
    patches = pixels.unfold(1, 14, 14).unfold(2, 14, 14).permute(1, 2, 0, 3, 4).flatten(2).flatten(0, 1)
    kernel = weights["embeddings.patch_embeddings.projection.weight"].flatten(1)
    x = patches @ kernel.T + weights["embeddings.patch_embeddings.projection.bias"]
    x = torch.cat([weights["embeddings.cls_token"][0], x]) + weights["embeddings.position_embeddings"][0]
    x = torch.cat([x[:1], weights["embeddings.register_tokens"][0], x[1:]])
    for layer in range(sum(name.endswith("lambda1") for name in weights) // 2):
        block = f"encoder.layer.{layer}"
        h = norm(f"{block}.norm1", x)
        query, key, value = (
            linear(f"{block}.attention.attention.{part}", h).unflatten(1, (heads, -1)).transpose(0, 1)
            for part in ("query", "key", "value")
        )
        attention = (query @ key.transpose(1, 2) / math.sqrt(query.shape[-1])).softmax(-1)
        h = linear(f"{block}.attention.output.dense", (attention @ value).transpose(0, 1).flatten(1))
        x = x + weights[f"{block}.layer_scale1.lambda1"] * h
        h = linear(f"{block}.mlp.fc1", norm(f"{block}.norm2", x))
        h = linear(f"{block}.mlp.fc2", 0.5 * h * (1 + torch.erf(h / math.sqrt(2))))
        x = x + weights[f"{block}.layer_scale2.lambda1"] * h
    return x


def plain_norm(x: torch.Tensor, eps: float) -> torch.Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + eps).sqrt()


@pytest.mark.parametrize(
    ("size", "width", "layers", "heads"),
    [(56, 32, 2, 2), pytest.param(518, 1024, 3, 16, id="three of the 24 layers of ViT-L/14, at 518 px")],
)
@torch.no_grad()
def test_dino_maps_follow_the_released_formula(size, width, layers, heads):
    pytest.importorskip("transformers", reason="DINOv2 needs the transformers package (extra 'cuda')")
    from ss4d.models.image_encoder import DinoImageEncoder

    config = {"image_size": size, "patch_size": 14, "hidden_size": width, "num_hidden_layers": layers}
    encoder = DinoImageEncoder(config={**config, "num_attention_heads": heads, "num_register_tokens": 4})
    for parameter in encoder.parameters():  # registers and biases start as 0, gains as 1
        parameter.add_(0.02 * torch.randn_like(parameter))
    views = render(box([-0.3] * 3, [0.3] * 3, FACES), sphere_cameras(1), 128)
    extractor = DinoExtractor(encoder, batch=2)
    (maps,) = extractor(views)
    side = size // 14
    assert maps.shape == (1, width, side, side) and len(extractor.channels) == width
    with TemporaryDirectory() as folder:  # pytest would keep a gigabyte
        encoder.model.save_pretrained(folder)
        weights = load_file(f"{folder}/model.safetensors")
    picture = picture_on_black(views.rgba[0], size)
    expected = released_formula(weights, picture, heads)
    tolerance = 1e-5 * float(expected.std())
    torch.testing.assert_close(maps[0], expected[1 + 4 :].T.unflatten(1, (side, side)), rtol=1e-4, atol=tolerance)
    # Image conditioning (REFERENCE §4) takes all tokens, normalised without parameters.
    torch.testing.assert_close(encoder(picture[None])[0], plain_norm(expected, 1e-5), rtol=0, atol=1e-4)


def test_dino_batches_do_not_matter():
    pytest.importorskip("transformers", reason="DINOv2 needs the transformers package (extra 'cuda')")
    from ss4d.models.image_encoder import DinoImageEncoder

    config = {"image_size": 56, "patch_size": 14, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    encoder = DinoImageEncoder(config=config)
    views = render(box([-0.3] * 3, [0.3] * 3, FACES), sphere_cameras(3), 32)
    (alone,), (together,) = (DinoExtractor(encoder, batch)(views) for batch in (1, 2))
    assert alone.shape == (3, 32, 4, 4)
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-4)
