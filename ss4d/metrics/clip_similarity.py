"""CLIP similarity: the cosine between image embeddings (Radford et al., "Learning Transferable Visual Models From
Natural Language Supervision", 2021; as a metric of 4D generation: Jiang et al., "Consistent4D", 2024)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, interpolate

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's image statistics


class ClipSimilarity(nn.Module):
    """Cosine of the embeddings of two images.

    Args:
        model: a `transformers.CLIPVisionModelWithProjection`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        config: Any = model.config
        self.size = int(config.image_size)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(STD)[:, None, None], persistent=False)

    def embed(self, images: Tensor) -> Tensor:
        """Embeddings [N, D] of square images [N, 3, S, S] in [0, 1], resized as CLIP's own processor does (bicubic,
        antialiased, rounded to 8 bits)."""
        if images.shape[-1] != self.size:
            images = interpolate(images, (self.size, self.size), mode="bicubic", antialias=True)
        pixels = (255 * images).round().clamp(0, 255) / 255
        return self.model((pixels - self.mean) / self.std).image_embeds

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Similarities [N] in [-1, 1]."""
        return cosine_similarity(self.embed(images), self.embed(targets), dim=-1)


def load_clip(folder: Path) -> ClipSimilarity:
    """CLIP's image tower from a folder in the layout of transformers (`config.json`, `model.safetensors`).

    Raises:
        ImportError: transformers is missing.
        ValueError: damaged files.
    """
    from safetensors import SafetensorError

    try:
        from transformers import CLIPVisionModelWithProjection
    except ImportError as error:
        raise ImportError("CLIP similarity needs transformers: pip install -e '.[eval]'") from error
    safe = (folder / "model.safetensors").exists()  # else pytorch_model.bin, of which only tensors are unpickled
    try:
        model = CLIPVisionModelWithProjection.from_pretrained(folder, use_safetensors=safe)
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"{folder} does not hold CLIP's weights, or they are damaged ({error}): get it again."
        ) from error
    return ClipSimilarity(model.eval().requires_grad_(False))
