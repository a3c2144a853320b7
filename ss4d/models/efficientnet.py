"""The first five stages of EfficientNet-Lite0, down to a sixteenth of the picture's size (not in the paper).

Tan and Le, "EfficientNet", 2019; the Lite variant has ReLU6 and no squeeze and excitation. Batch norms are folded into
the convolutions. `ss4d/training/imagenet.py` has the weights.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu6


class Stage(NamedTuple):
    """Blocks of one width; the first one has the stride."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STEM = 32  # channels
STAGES = (
    Stage(1, 3, 1, 1, 16),  # at a half of the picture's size
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),  # an eighth
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),  # a sixteenth
)


class EfficientNetLite0(nn.Module):
    """RGB -> features of every stage."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv2d(3, STEM, 3, 2)
        self.stages = nn.ModuleList()
        width = STEM
        for stage in STAGES:
            blocks = []
            for number in range(stage.blocks):
                blocks.append(InvertedResidual(width, stage, 1 if number else stage.stride))
                width = stage.channels
            self.stages.append(nn.Sequential(*blocks))

    def forward(self, rgb: Tensor) -> list[Tensor]:
        """[N, 3, S, S] in [0, 1] -> [N, C, S / stride, S / stride] of each of `STAGES`."""
        x = relu6(self.stem(((rgb * 255 - 127) / 128).contiguous(memory_format=torch.channels_last)))
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; beside a skip where size and channels stay."""

    def __init__(self, in_channels: int, stage: Stage, stride: int):
        super().__init__()
        width = in_channels * stage.expansion
        self.expand = SameConv2d(in_channels, width, 1) if stage.expansion > 1 else None
        self.depthwise = SameConv2d(width, width, stage.kernel, stride, groups=width)
        self.project = SameConv2d(width, stage.channels, 1)
        self.skips = stride == 1 and in_channels == stage.channels

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C', H / stride, W / stride]."""
        h = x if self.expand is None else relu6(self.expand(x))
        h = self.project(relu6(self.depthwise(h)))
        return x + h if self.skips else h


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's padding: where the number of cells to add is odd, one more at the end."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__(in_channels, out_channels, kernel, stride, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C', ceil(H / stride), ceil(W / stride)]."""
        return super().forward(pad(x, (*self._added(x.shape[-1]), *self._added(x.shape[-2]))))

    def _added(self, cells: int) -> tuple[int, int]:
        kernel, stride = self.kernel_size[0], self.stride[0]
        total = max((-(-cells // stride) - 1) * stride + kernel - cells, 0)
        return total // 2, total - total // 2
