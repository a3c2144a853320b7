"""Packing by 2 in space and time against naive loops; odd lengths; exact inverses."""

from __future__ import annotations

import pytest
import torch
from voxels import random_voxels

from ss4d.sparse import SparseTensor, pack, unpack


def naive_pack(x: SparseTensor, axis: str) -> dict[tuple[int, ...], torch.Tensor]:
    groups: dict[tuple[int, ...], list[torch.Tensor]] = {}
    for (video, frame, *xyz), row in zip(x.coords.tolist(), x.feats, strict=True):
        key = (video, frame // 2, *xyz) if axis == "time" else (video, frame, *(v // 2 for v in xyz))
        groups.setdefault(key, []).append(row)
    return {key: torch.stack(rows).sum(0) / (len(rows) + 1) for key, rows in groups.items()}


@pytest.mark.parametrize("axis", ["space", "time"])
def test_equals_naive_loops(axis: str):
    x = random_voxels([5, 1, 4], side=5, density=0.3, channels=3, dtype=torch.float64)
    packed, expected = pack(x, axis), naive_pack(x, axis)
    assert packed.coords.tolist() == [list(key) for key in sorted(expected)]
    for key, row in zip(packed.coords.tolist(), packed.feats, strict=True):
        torch.testing.assert_close(row, expected[tuple(key)])
    assert packed.num_frames == ((3, 1, 2) if axis == "time" else (5, 1, 4))


@pytest.mark.parametrize("axis", ["space", "time"])
def test_unpack_copies_the_parent_to_every_child_in_the_original_order(axis: str):
    x = random_voxels([3, 2], side=4, density=0.4, channels=2)
    packed = pack(x, axis)
    restored = unpack(packed, x.geometry, axis)
    assert restored.geometry is x.geometry
    parents = {tuple(key): row for key, row in zip(packed.coords.tolist(), packed.feats, strict=True)}
    for (video, frame, *xyz), row in zip(x.coords.tolist(), restored.feats, strict=True):
        key = (video, frame // 2, *xyz) if axis == "time" else (video, frame, *(v // 2 for v in xyz))
        assert torch.equal(row, parents[key])


@pytest.mark.parametrize("axis", ["space", "time"])
def test_gradients(axis: str):
    x = random_voxels([3], side=3, density=0.4, channels=2, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda f: unpack(pack(x.replace(f), axis), x.geometry, axis).feats, x.feats.requires_grad_()
    )


def test_unpacking_to_other_voxels_is_refused():
    x, y = (random_voxels([2], side=4, density=0.4, channels=2) for _ in range(2))
    with pytest.raises(ValueError, match="not packed from"):
        unpack(pack(x, "space"), y.geometry, "space")
