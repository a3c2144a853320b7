"""The frozen network of ImageNet: its layers and its padding."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ss4d.models.efficientnet import EfficientNetLite0, SameConv2d


def test_it_has_the_layers_and_sizes_of_the_published_network():
    model = EfficientNetLite0()
    assert sum(parameter.numel() for parameter in model.parameters()) == 692_688
    found = model(torch.rand(2, 3, 64, 64))
    sizes = [(16, 32), (24, 16), (40, 8), (80, 4), (112, 4)]
    assert [tuple(features.shape) for features in found] == [(2, width, side, side) for width, side in sizes]


@pytest.mark.parametrize(
    ("cells", "kernel", "stride", "before", "after"),
    [(8, 3, 2, 0, 1), (7, 3, 2, 1, 1), (8, 5, 2, 1, 2), (8, 3, 1, 1, 1)],
)
def test_padding_is_tensorflows(cells: int, kernel: int, stride: int, before: int, after: int):
    conv = SameConv2d(1, 1, kernel, stride)
    x = torch.rand(1, 1, cells, cells)
    padded = nn.functional.pad(x, (before, after, before, after))
    expected = nn.functional.conv2d(padded, conv.weight, conv.bias, stride=stride)
    assert expected.shape[-1] == -(-cells // stride)
    torch.testing.assert_close(conv(x), expected)
