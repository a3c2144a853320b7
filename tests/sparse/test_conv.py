"""Submanifold convolution against naive loops and a dense convolution."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from voxels import random_voxels

from ss4d.sparse import (
    SparseTensor,
    im2col,
    neighbour_map,
    neighbours,
    pack,
    packing_plan,
    submanifold_convolution,
    unpacked_convolution,
    unpacking,
)

KERNELS = [(3, 3, 3), (1, 1, 1), (3, 1, 1, 1), (3, 3, 3, 3), (1, 3, 5, 1), (5, 1, 1, 1)]


def naive(x: SparseTensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """y[p] = b + sum_k W[:, k, :] x[p + k - K // 2], row by row."""
    if weight.ndim == 5:
        weight = weight[:, None]
    rows = {tuple(c): i for i, c in enumerate(x.coords.tolist())}
    sizes = weight.shape[1:5]
    out = []
    for video, *position in x.coords.tolist():
        value = bias.clone()
        for k in product(*map(range, sizes)):
            site = (video, *(p + o - size // 2 for p, o, size in zip(position, k, sizes, strict=True)))
            if site in rows:
                value = value + weight[:, k[0], k[1], k[2], k[3]] @ x.feats[rows[site]]
        out.append(value)
    return torch.stack(out)


@pytest.mark.parametrize("path", ["pairs", "columns"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_equals_naive_loops_and_gradients_check(monkeypatch: pytest.MonkeyPatch, kernel: tuple[int, ...], path: str):
    monkeypatch.setattr(im2col, "_MOST_INPUT_CHANNELS", 64 if path == "columns" else 0)
    x = random_voxels([3, 2], side=4, density=0.25, channels=2, dtype=torch.float64)
    weight = torch.randn(3, *kernel, 2, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(submanifold_convolution(x, weight, bias).feats, naive(x, weight, bias))
    small = random_voxels([2, 1], side=3, density=0.3, channels=2, dtype=torch.float64)
    feats = small.feats.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda f, w, b: submanifold_convolution(small.replace(f), w, b).feats, (feats, weight, bias)
    )


@pytest.mark.parametrize("path", ["pairs", "columns"])
def test_working_in_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch, path: str):
    monkeypatch.setattr(im2col, "_MOST_INPUT_CHANNELS", 64 if path == "columns" else 0)
    x = random_voxels([3], side=5, density=0.4, channels=3, dtype=torch.float64)
    weight = torch.randn(2, 3, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    feats, results = x.feats.requires_grad_(), []
    for rows in (4096, 7):
        monkeypatch.setattr(neighbours if path == "pairs" else im2col, "_BLOCK_ROWS", rows)
        out = submanifold_convolution(x.replace(feats), weight).feats
        results.append([out, *torch.autograd.grad(out.square().sum(), (feats, weight))])
    for whole, blocked in zip(*results, strict=True):
        torch.testing.assert_close(whole, blocked)


@pytest.mark.parametrize("axes", [["space"], ["time"], ["space", "time"]])
def test_products_before_the_copies_are_those_after_them(axes: list[str]):
    fine = random_voxels([4, 3], side=4, density=0.8, channels=3, dtype=torch.float64)
    coarse = fine
    for axis in axes:
        coarse = pack(coarse, axis)
    way, feats = unpacking(coarse.geometry, fine.geometry, axes), coarse.feats.detach().requires_grad_()
    kernel = (3, 3, 3) if axes == ["space"] else (3, 1, 1, 1) if axes == ["time"] else (3, 3, 3, 3)
    weight = torch.randn(2, *kernel, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(2, dtype=torch.float64, requires_grad=True)
    pairs = neighbour_map(fine.geometry, (1, *kernel)[-4:]).num_pairs + len(fine)  # type: ignore[arg-type]
    assert len(coarse) * weight[0, ..., 0].numel() < pairs, "the case has to be one where products come first"
    before = unpacked_convolution(coarse.replace(feats), way, weight, bias).feats
    after = submanifold_convolution(way(coarse.replace(feats)), weight, bias).feats
    torch.testing.assert_close(before, after)
    wanted, direction = (feats, weight, bias), torch.randn_like(after)
    gradients = [torch.autograd.grad(out, wanted, direction) for out in (before, after)]
    torch.testing.assert_close(*gradients)


def test_unpacking_refuses_voxels_of_another_packing():
    fine, other = (random_voxels([2], side=4, density=0.5, channels=1) for _ in range(2))
    with pytest.raises(ValueError, match="cannot unpack space and time"):
        unpacking(packing_plan(other.geometry, "space").coarse, fine.geometry, ["space", "time"])


@pytest.mark.parametrize("path", ["pairs", "columns"])
def test_full_grid_equals_dense_convolution(monkeypatch: pytest.MonkeyPatch, path: str):
    monkeypatch.setattr(im2col, "_MOST_INPUT_CHANNELS", 64 if path == "columns" else 0)
    x = random_voxels([1], side=6, density=1.1, channels=4)
    weight, bias = torch.randn(5, 3, 3, 3, 4), torch.randn(5)
    dense = x.feats.T.reshape(1, 4, 6, 6, 6)
    expected = torch.nn.functional.conv3d(dense, weight.movedim(-1, 1), bias, padding=1)
    out = submanifold_convolution(x, weight, bias).feats
    torch.testing.assert_close(out.T.reshape(1, 5, 6, 6, 6), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("path", ["pairs", "columns"])
def test_videos_do_not_touch(monkeypatch: pytest.MonkeyPatch, path: str):
    monkeypatch.setattr(im2col, "_MOST_INPUT_CHANNELS", 64 if path == "columns" else 0)
    x = random_voxels([4, 3, 5], side=4, density=0.3, channels=3)
    weight, bias = torch.randn(2, 3, 3, 3, 3, 3), torch.randn(2)
    together = submanifold_convolution(x, weight, bias)
    alone = [submanifold_convolution(x.video(i), weight, bias).feats for i in range(3)]
    torch.testing.assert_close(together.feats, torch.cat(alone))


@pytest.mark.parametrize("path", ["pairs", "columns"])
def test_row_order_inside_a_frame_does_not_matter(monkeypatch: pytest.MonkeyPatch, path: str):
    monkeypatch.setattr(im2col, "_MOST_INPUT_CHANNELS", 64 if path == "columns" else 0)
    x = random_voxels([2], side=4, density=0.4, channels=3)
    weight, bias = torch.randn(2, 3, 3, 3, 3), torch.randn(2)
    shuffle = torch.randperm(len(x))
    shuffled = SparseTensor(x.feats[shuffle], x.coords[shuffle])
    a, b = (submanifold_convolution(t, weight, bias) for t in (x, shuffled))
    key = {tuple(c): row for c, row in zip(a.coords.tolist(), a.feats, strict=True)}
    for c, row in zip(b.coords.tolist(), b.feats, strict=True):
        torch.testing.assert_close(row, key[tuple(c)])


@pytest.mark.parametrize("path", ["pairs", "columns"])
def test_thread_count_does_not_change_the_result(monkeypatch: pytest.MonkeyPatch, path: str):
    monkeypatch.setattr(im2col, "_MOST_INPUT_CHANNELS", 64 if path == "columns" else 0)
    x = random_voxels([6], side=12, density=0.3, channels=16)
    weight = torch.randn(16, 3, 3, 3, 16)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 4):
            torch.set_num_threads(count)
            results += [submanifold_convolution(x, weight).feats for _ in range(5)]
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        torch.testing.assert_close(other, results[0])


def test_neighbour_map_is_shared_by_a_geometry():
    x = random_voxels([2], side=4, density=0.4, channels=3)
    assert neighbour_map(x.geometry, (1, 3, 3, 3)) is neighbour_map(x.replace(x.feats * 2).geometry, (1, 3, 3, 3))


def test_wrong_kernels_are_refused():
    x = random_voxels([1], side=3, density=0.5, channels=3)
    with pytest.raises(ValueError, match="odd sizes"):
        submanifold_convolution(x, torch.zeros(2, 2, 3, 3, 3))
    with pytest.raises(ValueError, match="takes 4 channels"):
        submanifold_convolution(x, torch.zeros(2, 3, 3, 3, 4))
