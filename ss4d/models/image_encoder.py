"""Image tokens that condition both flow models: DINOv2 for the full size, a small trained one for ss4d-tiny."""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from ss4d.nn import LayerNorm32, SelfAttentionPlan, SelfBlock, num_heads_of
from ss4d.segments import Segments

# Released (torch.hub) names of DINOv2 with registers and their homes on the Hub.
DINO_HUB_IDS = {
    "dinov2_vits14_reg": "facebook/dinov2-with-registers-small",
    "dinov2_vitb14_reg": "facebook/dinov2-with-registers-base",
    "dinov2_vitl14_reg": "facebook/dinov2-with-registers-large",
    "dinov2_vitg14_reg": "facebook/dinov2-with-registers-giant",
}
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class PatchImageEncoder(nn.Module):
    """A small vision transformer: non-overlapping patches, a learned position each, a few self-attention blocks.

    Args:
        image_size: height and width of the input in pixels.
        patch_size: height and width of a patch; one token each.
        in_channels: 3, or 4 to take in alpha besides.

    Raises:
        ValueError: an image that does not divide into patches, or channels that do not divide into heads.
    """

    def __init__(
        self,
        image_size: int,
        patch_size: int,
        channels: int,
        num_blocks: int,
        num_heads: int,
        mlp_ratio: float = 4,
        in_channels: int = 3,
    ):
        super().__init__()
        if patch_size < 1 or image_size % patch_size:
            raise ValueError(f"image_size = {image_size} does not divide into patches of {patch_size}")
        heads = num_heads_of(channels, num_heads, channels)
        self.image_size, self.in_channels = image_size, in_channels
        self.patch = nn.Conv2d(in_channels, channels, patch_size, stride=patch_size)
        self.position = nn.Parameter(torch.empty((image_size // patch_size) ** 2, channels))
        nn.init.normal_(self.position, std=0.02)
        self.blocks = nn.ModuleList(SelfBlock(channels, heads, mlp_ratio) for _ in range(num_blocks))
        self.norm = LayerNorm32(channels, elementwise_affine=False)

    def forward(self, images: Tensor) -> Tensor:
        """sRGB images [N, 3, S, S] in [0, 1], black outside the object (4: and alpha) -> tokens [N, L, D]."""
        expected = (self.in_channels, self.image_size, self.image_size)
        if images.shape[1:] != expected:
            raise ValueError(f"images must be [N, {', '.join(map(str, expected))}], got {list(images.shape)}")
        tokens = rearrange(self.patch(2 * images - 1), "n d row column -> n (row column) d") + self.position
        count, length = tokens.shape[:2]
        plan = SelfAttentionPlan(Segments([length] * count))
        h = rearrange(tokens, "n l d -> (n l) d")
        for block in self.blocks:
            h = block(h, plan)
        return rearrange(self.norm(h), "(n l) d -> n l d", n=count)


class DinoImageEncoder(nn.Module):
    """DINOv2 with registers, frozen: all tokens before the last norm, then a norm without parameters.

    ViT-L/14 at 518 px gives 1374 x 1024 tokens: class, 4 registers, 37 x 37 patches.

    Args:
        name: a released name ("dinov2_vitl14_reg"), a Hub id or a local folder.
        config: build from this configuration with random weights instead of loading (tests, memory estimates).

    Attributes:
        image_size: height and width of the images that `forward` takes.
    """

    image_size = 518
    in_channels = 3

    def __init__(self, name: str = "dinov2_vitl14_reg", config: dict[str, Any] | None = None):
        super().__init__()
        try:
            from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel
        except ImportError as error:
            raise ValueError(
                "the DINOv2 image encoder needs the transformers package: pip install -e '.[cuda]'"
            ) from error
        if config is None:
            self.model = Dinov2WithRegistersModel.from_pretrained(DINO_HUB_IDS.get(name, name))
        else:
            self.model = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**config))
            self.image_size = int(config["image_size"])
        self.model.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """sRGB images [N, 3, S, S] in [0, 1], S = `image_size` -> tokens [N, L, D].

        Raises:
            ValueError: another size, of which the network would silently make another number of tokens.
        """
        expected = (self.in_channels, self.image_size, self.image_size)
        if images.shape[1:] != expected:
            raise ValueError(f"images must be [N, {', '.join(map(str, expected))}], got {list(images.shape)}")
        tokens = self.tokens_before_norm(images)
        return layer_norm(tokens, tokens.shape[-1:])

    @torch.no_grad()
    def tokens_before_norm(self, images: Tensor) -> Tensor:
        """The same tokens as the network leaves them, of images [N, 3, H, W] of any size: TRELLIS' voxel features are
        means of these."""
        mean, std = (
            torch.tensor(values, device=images.device)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD)
        )
        pixels = ((images - mean) / std).to(self.model.dtype)
        hidden = self.model.embeddings(pixels)
        return self.model.encoder(hidden).last_hidden_state.float()  # of its layers' outputs the last alone is kept
