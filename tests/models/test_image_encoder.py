"""Image tokens: which they are, and that an image's place in the batch does not matter."""

from __future__ import annotations

import pytest
import torch

from ss4d.models import create_model
from ss4d.models.image_encoder import IMAGENET_MEAN, IMAGENET_STD

SMALL = {"image_size": 32, "patch_size": 8, "channels": 24, "num_blocks": 2, "num_heads": 2}


@torch.no_grad()
def test_patch_tokens_are_one_a_patch_and_each_image_is_alone():
    model = create_model("PatchImageEncoder", **SMALL).eval()
    images = torch.rand(3, 3, 32, 32)
    tokens = model(images)
    assert tokens.shape == (3, 16, 24)
    torch.testing.assert_close(model(images[1:2])[0], tokens[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(tokens.mean(-1), torch.zeros(3, 16), rtol=0, atol=1e-5)


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match="32, 32"):
        create_model("PatchImageEncoder", **SMALL)(torch.rand(1, 3, 16, 32))
    with pytest.raises(ValueError, match="patches of 7"):
        create_model("PatchImageEncoder", **{**SMALL, "patch_size": 7})


def test_dino_gives_normalised_tokens_from_before_the_last_norm():
    pytest.importorskip("transformers", reason="DINOv2 needs the transformers package (extra 'cuda')")
    config = {
        "image_size": 56,
        "patch_size": 14,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_register_tokens": 4,
    }
    encoder = create_model("DinoImageEncoder", config=config)
    before: list[torch.Tensor] = []
    encoder.model.layernorm.register_forward_hook(lambda module, inputs, output: before.append(inputs[0]))  # type: ignore[union-attr, operator]
    image = torch.rand(2, 3, 56, 56)
    tokens = encoder(image)
    assert tokens.shape == (2, 1 + 4 + 16, 32)  # class, registers, patches
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    encoder.model(pixel_values=(image - mean) / std)  # type: ignore[operator]  # all of it, the last norm included
    expected = (before[0] - before[0].mean(-1, keepdim=True)) / (
        before[0].var(-1, correction=0, keepdim=True) + 1e-5
    ).sqrt()
    torch.testing.assert_close(tokens, expected, rtol=1e-4, atol=1e-4)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    with pytest.raises(ValueError, match=r"images must be \[N, 3, 56, 56\], got \[2, 3, 60, 60\]"):
        encoder(torch.rand(2, 3, 60, 60))  # DINOv2 itself would floor 60 / 14


def test_dino_at_full_size_has_the_released_token_count():
    transformers = pytest.importorskip("transformers", reason="DINOv2 needs the transformers package (extra 'cuda')")
    config = transformers.Dinov2WithRegistersConfig(image_size=518, patch_size=14, hidden_size=1024)
    with torch.device("meta"):
        embeddings = transformers.Dinov2WithRegistersModel(config).embeddings
    assert embeddings.position_embeddings.shape == (1, 1 + 37 * 37, 1024)
    assert 1 + config.num_register_tokens + 37 * 37 == 1374
