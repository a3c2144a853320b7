"""spconv's convolution: what we hand to it and make of it, against our own; with the package itself where it is."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import torch
from torch import nn
from voxels import random_voxels

from ss4d.sparse import spconv_backend, submanifold_convolution
from ss4d.sparse.spconv_backend import spconv_convolution

KERNELS = [(3, 3, 3), (3, 1, 1, 1), (3, 3, 3, 3), (1, 3, 5)]


class Tensor:
    """`spconv.pytorch.SparseConvTensor`, as far as we use it."""

    def __init__(self, features: Any, indices: Any, spatial_shape: list[int], batch_size: int, indice_dict: dict):
        assert indices.dtype == torch.int32 and indices.is_contiguous()
        assert indices.shape[1] == len(spatial_shape) + 1
        assert int(indices[:, 0].max()) < batch_size
        assert all(int(column.max()) < size for column, size in zip(indices[:, 1:].T, spatial_shape, strict=True))
        self.features, self.indices, self.indice_dict = features, indices, dict(indice_dict)


class Layer(nn.Module):
    """`SubMConv3d` and `SubMConv4d` by their documented definition: weight [out, k..., in], cross-correlation."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: tuple[int, ...], indice_key: str):
        super().__init__()
        self.weight = nn.Parameter(torch.full((out_channels, *kernel_size, in_channels), torch.nan))
        self.bias = nn.Parameter(torch.full((out_channels,), torch.nan))
        self.key = indice_key

    def forward(self, x: Tensor) -> Tensor:
        assert not torch.is_autocast_enabled(x.features.device.type), "spconv would cast to float16"
        rows = {tuple(c): i for i, c in enumerate(x.indices.tolist())}
        weight: Any = self.weight
        sizes, out = weight.shape[1:-1], []
        for batch, *position in x.indices.tolist():
            value: Any = self.bias
            for k in product(*map(range, sizes)):
                site = (batch, *(p + o - size // 2 for p, o, size in zip(position, k, sizes, strict=True)))
                if site in rows:
                    value = value + weight.movedim(0, -1)[k].T @ x.features[rows[site]]
            out.append(value)
        result = Tensor.__new__(Tensor)
        result.features, result.indice_dict = torch.stack(out), {**x.indice_dict, self.key: "pairs"}
        return result


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    package, layers, constants = (types.ModuleType(f"spconv{name}") for name in ("", ".pytorch", ".constants"))
    layers.SparseConvTensor, layers.SubMConv3d, layers.SubMConv4d = Tensor, Layer, Layer  # type: ignore[attr-defined]
    constants.ALL_WEIGHT_IS_KRSC = True  # type: ignore[attr-defined]
    package.pytorch, package.constants = layers, constants  # type: ignore[attr-defined]
    for module in (package, layers, constants):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    spconv_backend._layer.cache_clear()
    yield
    spconv_backend._layer.cache_clear()


def compare(kernel: tuple[int, ...], gradients: bool) -> None:
    """Videos of different length, so that a mix-up of frames and videos would show."""
    x = random_voxels([3, 2], side=4, density=0.3, channels=2)
    weight, bias = torch.randn(3, *kernel, 2, requires_grad=True), torch.randn(3, requires_grad=True)
    feats = x.feats.requires_grad_()
    ours = submanifold_convolution(x.replace(feats), weight, bias).feats
    theirs = spconv_convolution(feats, weight, bias, x.geometry)
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)
    if gradients:
        torch.manual_seed(0)
        direction = torch.randn_like(ours)
        expected = torch.autograd.grad(ours, (feats, weight, bias), direction)
        for actual, wanted in zip(torch.autograd.grad(theirs, (feats, weight, bias), direction), expected, strict=True):
            torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_weights_and_voxels_are_handed_over_in_its_layout(kernel: tuple[int, ...], stand_in: None):
    compare(kernel, gradients=True)


def test_autocast_ends_before_it(stand_in: None):
    x = random_voxels([2], side=4, density=0.3, channels=2)
    weight = torch.randn(3, 3, 3, 3, 2)
    with torch.autocast("cpu", torch.bfloat16):
        out = spconv_convolution(x.feats.bfloat16(), weight.bfloat16(), None, x.geometry)
    expected = submanifold_convolution(x.replace(x.feats.bfloat16().float()), weight.bfloat16().float()).feats
    torch.testing.assert_close(out, expected.bfloat16())


def test_neighbours_are_kept_between_layers(stand_in: None):
    x = random_voxels([2], side=4, density=0.3, channels=2)
    for kernel in KERNELS:
        spconv_convolution(x.feats, torch.randn(3, *kernel, 2), None, x.geometry)
    grids = [spconv_backend.spconv_grid(x.geometry, over_time) for over_time in (False, True)]
    assert [sorted(grid.pairs) for grid in grids] == [["1x3x5", "3x3x3"], ["3x1x1x1", "3x3x3x3"]]


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_package_itself(kernel: tuple[int, ...]):
    pytest.importorskip("spconv")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # its CPU build is wrong with more, and has no backward pass
    try:
        compare(kernel, gradients=False)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kernel", KERNELS)
def test_on_a_gpu(kernel: tuple[int, ...]):
    pytest.importorskip("spconv")
    with torch.device("cuda"):
        compare(kernel, gradients=True)
