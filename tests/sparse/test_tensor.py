"""Construction, validation and segments of sparse tensors."""

from __future__ import annotations

import pytest
import torch

from ss4d.sparse import SparseTensor, cat_features
from ss4d.sparse.tensor import Geometry


def coords(*rows: tuple[int, ...]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.int32).reshape(-1, 5)


def test_rows_are_brought_into_video_and_frame_order():
    x = SparseTensor(
        torch.arange(4.0)[:, None], coords((1, 0, 5, 5, 5), (0, 1, 2, 2, 2), (0, 0, 9, 0, 0), (0, 0, 1, 0, 0))
    )
    assert x.feats[:, 0].tolist() == [2, 3, 1, 0]  # inside a frame rows keep the order given
    assert x.num_frames == (2, 1)
    assert x.geometry.video_segments.lengths == [3, 1]
    assert x.geometry.frame_segments(2).lengths == [2, 1, 1, 0]


def test_empty_frames_and_videos_are_legal():
    x = SparseTensor(torch.ones(1, 3), coords((1, 2, 0, 0, 0)), num_frames=[4, 5, 2])
    assert x.num_frames == (4, 5, 2)
    assert x.geometry.video_segments.lengths == [0, 1, 0]
    nothing = SparseTensor(torch.ones(0, 3), coords(), num_frames=2, num_videos=1)
    assert nothing.geometry.frame_segments(2).lengths == [0, 0]


def test_one_video_can_be_taken_out():
    x = SparseTensor(
        torch.arange(3.0)[:, None],
        coords((0, 0, 1, 1, 1), (1, 0, 2, 2, 2), (1, 3, 2, 2, 2)),
        num_frames=[3, 5],
    )
    second = x.video(1)
    assert second.coords.tolist() == [[0, 0, 2, 2, 2], [0, 3, 2, 2, 2]]
    assert second.num_frames == (5,) and second.feats[:, 0].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("feats", "rows", "options", "message"),
    [
        (torch.ones(2, 3), [(0, 0, 0, 0, 0)], {}, "N = 1 rows"),
        (torch.ones(1), [(0, 0, 0, 0, 0)], {}, r"\[N, C\]"),
        (torch.ones(1, 3).int(), [(0, 0, 0, 0, 0)], {}, "floating point"),
        (torch.ones(1, 3), [(0, 0, -1, 0, 0)], {}, "x = -1"),
        (torch.ones(1, 3), [(0, 0, 4096, 0, 0)], {}, "x = 4096"),
        (torch.ones(1, 3), [(0, 0, 0, 5000, 0)], {}, "y = 5000"),
        (torch.ones(2, 3), [(0, 0, 1, 2, 3), (0, 0, 1, 2, 3)], {}, "listed twice"),
        (torch.ones(1, 3), [(0, 4, 0, 0, 0)], {"num_frames": 4}, "frame 4 of video 0"),
        (torch.ones(1, 3), [(2, 0, 0, 0, 0)], {"num_videos": 2}, "only 2 videos"),
    ],
)
def test_wrong_input_is_refused_in_one_sentence(feats: torch.Tensor, rows: list, options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        SparseTensor(feats, coords(*rows), **options)


def test_wrong_coordinate_type_and_shape_are_refused():
    with pytest.raises(ValueError, match="int32"):
        SparseTensor(torch.ones(1, 3), torch.zeros(1, 5, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"\[N, 5\]"):
        SparseTensor(torch.ones(1, 3), torch.zeros(1, 4, dtype=torch.int32))


def test_nothing_broadcasts_by_accident():
    x = SparseTensor(torch.ones(2, 3), coords((0, 0, 0, 0, 0), (0, 0, 1, 0, 0)))
    with pytest.raises(ValueError, match="2 voxels"):
        x.replace(torch.ones(1, 3))
    other = SparseTensor(torch.ones(2, 3), x.coords)
    with pytest.raises(ValueError, match="different voxel sets"):
        cat_features([x, other])


@pytest.mark.parametrize("declared", [True, False])
def test_another_device_changes_nothing_about_the_frames(declared: bool):
    packed = Geometry(coords((0, 0, 1, 2, 3)), (4,), declared, temporal_level=2)
    moved = SparseTensor.on(packed, torch.ones(1, 3)).to("meta").geometry
    assert moved.coords.is_meta and moved.num_frames == (4,)
    assert moved.temporal_level == 2 and moved.declared is declared
