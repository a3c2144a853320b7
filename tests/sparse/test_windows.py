"""Window partitions group rows as the released code does, and as the definition says for every video."""

from __future__ import annotations

import pytest
import torch
from golden import Golden
from voxels import random_voxels

from ss4d.sparse import SparseTensor, window_partition

GOLDEN_WINDOWS = Golden.load("h_window_partition")


def grouping(labels: list) -> list[list[int]]:
    groups: dict = {}
    for row, label in enumerate(labels):
        groups.setdefault(label, []).append(row)
    return sorted(groups.values())


def window_of_row(x: SparseTensor, window: int, shift: int, over_time: bool) -> list[int]:
    partition = window_partition(x.geometry, window, shift, over_time)
    label = torch.repeat_interleave(torch.tensor(partition.segments.lengths))
    return torch.empty_like(label).index_copy(0, partition.order, label).tolist()


def released_run(run: str) -> dict:
    spec = GOLDEN_WINDOWS.info["runs"][run]
    return spec.get("scalars", spec)


# In the other runs the released windows depend on the video's place in the batch, a fault not kept.
SOUND_RUNS = [
    run
    for run in sorted(GOLDEN_WINDOWS.info["runs"])
    if released_run(run).get("per_frame") or released_run(run)["same_as_each_video_alone"]
]


@pytest.mark.parametrize("run", SOUND_RUNS)
def test_golden_windows(run: str):
    scalars = released_run(run)
    rows = GOLDEN_WINDOWS.inputs(run)["coords"]
    frames = int(rows[:, 0].max()) + 1 if scalars.get("per_frame") else scalars["num_frames"]
    coords = torch.cat([rows[:, :1] // frames, rows[:, :1] % frames, rows[:, 1:]], dim=1).int()
    x = SparseTensor(torch.zeros(len(coords), 1), coords)
    ours = window_of_row(x, scalars["window_size"], scalars["shift_window"], not scalars.get("per_frame"))
    assert grouping(ours) == grouping(GOLDEN_WINDOWS.outputs(run)["window"].tolist())


@pytest.mark.parametrize(("window", "shift"), [(4, 0), (4, 2), (3, 1)])
@pytest.mark.parametrize("over_time", [True, False])
def test_equals_the_definition_for_videos_of_unequal_length(window: int, shift: int, over_time: bool):
    x = random_voxels([5, 2, 7], side=9, density=0.05, channels=1)
    expected = [
        (video, (frame + shift) // window if over_time else frame, *((v + shift) // window for v in xyz))
        for video, frame, *xyz in x.coords.tolist()
    ]
    assert grouping(window_of_row(x, window, shift, over_time)) == grouping(expected)


def test_order_names_every_row_once():
    x = random_voxels([4], side=8, density=0.1, channels=1)
    partition = window_partition(x.geometry, 4, 2, over_time=True)
    assert torch.equal(partition.order.sort().values, torch.arange(len(x)))
    assert window_partition(x.geometry, 4, 2, over_time=True) is partition
