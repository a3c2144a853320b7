"""Time a submanifold 3x3x3 convolution against a dense matrix product of the same FLOPs, and spconv where installed.

The geometry is a spherical shell one voxel thick; forward and backward with a cached neighbour map, as in training.
"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable

import torch
from torch import Tensor

from ss4d.sparse import SparseTensor, neighbour_map, submanifold_convolution


def run(options: Namespace) -> None:
    threads = options.threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    coords, channels = shell(options.radius), options.channels
    feats = torch.randn(len(coords), channels, requires_grad=True)
    x = SparseTensor(feats, coords)
    weight = (0.02 * torch.randn(channels, 3, 3, 3, channels)).requires_grad_()
    pairs = neighbour_map(x.geometry, (1, 3, 3, 3)).num_pairs + len(coords)
    gradient = torch.randn(len(coords), channels)

    def train() -> None:
        submanifold_convolution(x, weight).feats.backward(gradient)

    def forward() -> None:
        with torch.no_grad():
            submanifold_convolution(x, weight)

    flops = 3 * 2 * pairs * channels**2  # forward, gradient of the features, gradient of the weights
    side = round((flops / 2) ** (1 / 3))
    a, b = torch.randn(side, side), torch.randn(side, side)
    dense = median(lambda: a @ b, options.repeats)
    both = median(train, options.repeats)
    print(f"{len(coords)} voxels, {pairs / len(coords):.1f} pairs a voxel, {flops / 1e9:.1f} GFLOP in all")
    print(f"{threads} threads")
    print(f"dense product {side}^3      {1e3 * dense:8.1f} ms  {flops / dense / 1e9:6.0f} GFLOP/s")
    print(f"forward                {1e3 * median(forward, options.repeats):8.1f} ms")
    print(f"forward + backward     {1e3 * both:8.1f} ms  {both / dense:6.2f} of the dense product")
    print(f"neighbour map, built once {1e3 * median(lambda: rebuild(coords), options.repeats):5.1f} ms")
    if options.spconv:
        other = median(spconv_forward(feats.detach(), coords, weight), options.repeats)
        print(f"spconv forward         {1e3 * other:8.1f} ms")


def shell(radius: float) -> Tensor:
    """Voxels within half a voxel of a sphere, int32 [N, 5]."""
    size = int(2 * radius + 4)
    axis = torch.arange(size) - (size - 1) / 2
    distance = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0)
    return torch.nn.functional.pad(((distance - radius).abs() < 0.5).nonzero(), (2, 0)).int()


def rebuild(coords: Tensor) -> None:
    neighbour_map(SparseTensor(torch.zeros(len(coords), 1), coords).geometry, (1, 3, 3, 3))


def spconv_forward(feats: Tensor, coords: Tensor, weight: Tensor) -> Callable[[], object]:
    """The same convolution in spconv, its indices cached; exact only with one thread."""
    import spconv.pytorch as spconv

    torch.set_num_threads(1)
    layer = spconv.SubMConv3d(weight.shape[-1], weight.shape[0], 3, bias=False, indice_key="shell")
    layer.weight.data.copy_(weight.detach())
    x = spconv.SparseConvTensor(feats, coords[:, 1:].contiguous(), [int(coords.max()) + 1] * 3, 1)
    x = layer(x).replace_feature(feats)
    return lambda: layer(x)


def median(function: Callable[[], object], repeats: int) -> float:
    """Median seconds of a call after a first, uncounted one."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return sorted(times[1:])[repeats // 2]
