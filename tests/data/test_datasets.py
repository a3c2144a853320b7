"""A dataset for each stage of training: samples with known answers, and the same batches from any worker."""

from __future__ import annotations

import shutil
from dataclasses import is_dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import CHANNELS, IMAGE_SIZE, QUARTER_TURNS, RESOLUTION, box_voxels, latent, picture

from dataset_toolkits.engine.records import write_table
from ss4d.data import (
    BatchLoader,
    DataSettings,
    FeatureDataset,
    MaskingSettings,
    OccupancyDataset,
    PicturedOccupancyDataset,
    PreparedSet,
    SparseLatentDataset,
    StructureLatentDataset,
    Window,
    WindowDataset,
    open_dataset,
)
from ss4d.data.conditioned import ConditionedDataset
from ss4d.data.format import Cube, read_table
from ss4d.data.occupancy import filled
from ss4d.data.turns import turn_extrinsics
from ss4d.sparse import SparseTensor

KINDS = [OccupancyDataset, PicturedOccupancyDataset, FeatureDataset, StructureLatentDataset, SparseLatentDataset]


def opened(kind: type[Any], root: Path, *quarter_turns: int) -> Any:
    return kind(PreparedSet.open(root, RESOLUTION, kind.stages), quarter_turns or (0,))


def plain(value: Any) -> Any:
    """A batch as nested lists, for comparison."""
    if isinstance(value, SparseTensor):
        return [value.coords.tolist(), value.feats.tolist(), value.num_frames]
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if is_dataclass(value):
        return {key: plain(getattr(value, key)) for key in value.__dataclass_fields__}
    return [plain(part) for part in value] if isinstance(value, list) else value


def test_occupancy_is_the_box_turned(clip_folder: Path):
    upright = opened(OccupancyDataset, clip_folder)[Window(0, (1, 3), 0)].grid
    assert upright.shape == (2, 1, 16, 16, 16) and upright.sum() == 2 * 4**3
    assert bool((upright[0, 0, 3:7, 5:9, 5:9] == 1).all()) and bool((upright[1, 0, 5:9, 5:9, 5:9] == 1).all())
    for turns in range(4):
        turned = opened(OccupancyDataset, clip_folder, turns)[Window(0, (1, 3), 0)].grid
        assert torch.equal(turned, torch.rot90(upright, turns, dims=(2, 3)))  # from x (dim 2) towards y (dim 3)


def test_what_a_surface_encloses_is_filled_and_what_a_hole_leads_to_is_not():
    surface = torch.zeros(2, 1, 8, 8, 8)
    surface[:, 0, 1:7, 1:7, 1:7] = 1
    surface[:, 0, 2:6, 2:6, 2:6] = 0
    surface[1, 0, 1, 3, 3] = 0
    assert filled(surface).sum((1, 2, 3, 4)).tolist() == [6**3, 6**3 - 4**3 - 1]


def test_pictures_come_with_the_occupancy_of_their_cube(clip_folder: Path):
    sample = opened(PicturedOccupancyDataset, clip_folder)[Window(0, (1, 3), 0)]
    upright = opened(OccupancyDataset, clip_folder)[Window(0, (1, 3), 0)].grid
    assert torch.equal(sample.grid[:, :1], upright) and torch.equal(sample.grid[:, 1:], filled(upright))
    images = opened(StructureLatentDataset, clip_folder)[Window(0, (1, 3), 0)].images
    assert torch.equal(sample.images, images)


def test_turns_are_all_drawn(clip_folder: Path):
    dataset = opened(OccupancyDataset, clip_folder, 0, 1, 2, 3)
    grids = {tuple(dataset[Window(1, (0,), seed)].grid.nonzero().flatten().tolist()) for seed in range(40)}
    assert len(grids) == 4


def test_features_come_with_pictures_of_their_frames(clip_folder: Path):
    dataset, seen = opened(FeatureDataset, clip_folder), set()
    for seed in range(60):
        sample = dataset[Window(1, (0, 2), seed)]
        assert torch.equal(sample.voxels.coords[:, 1:], box_voxels(6, 4).int()[[*range(216), *range(432, 648)], 1:])
        for frame, target in zip((0, 2), sample.targets, strict=True):
            red, green = target.rgba[-1, 0, :2].tolist()
            kind, view = divmod(red // 10, 10)
            assert green == 10 * frame and np.array_equal(target.rgba.numpy(), picture(kind, view, frame))
            cameras = dataset.clips.pictures(1).cond_cameras if kind else dataset.clips.pictures(1).cameras
            assert torch.equal(target.extrinsics, torch.tensor(cameras.extrinsics[view]))
            assert torch.equal(target.intrinsics, torch.tensor(cameras.intrinsics[view]))
            seen.add((kind, view))
    assert seen == {(0, 0), (0, 1), (1, 0), (1, 1)}
    for chance in (0, 1):
        of_one_kind = FeatureDataset(dataset.clips, conditioning_targets=chance)
        shown = [target.rgba for seed in range(9) for target in of_one_kind[Window(1, (0, 2), seed)].targets]
        assert {int(rgba[-1, 0, 0]) // 100 for rgba in shown} == {chance}


def test_turned_features_have_turned_cameras_and_vectors(clip_folder: Path):
    upright, turned = (opened(FeatureDataset, clip_folder, turns)[Window(0, (1, 2), 5)] for turns in (0, 1))
    x, y = upright.voxels.coords[:, 1], upright.voxels.coords[:, 2]
    assert torch.equal(turned.voxels.coords[:, 1], 15 - y) and torch.equal(turned.voxels.coords[:, 2], x)
    column = {name: index for index, name in enumerate(CHANNELS)}
    for vector in ("normal", "offset"):
        x, y = (upright.voxels.values[:, column[f"{vector}_{axis}"]] for axis in "xy")
        assert torch.equal(turned.voxels.values[:, column[f"{vector}_x"]], -y)
        assert torch.equal(turned.voxels.values[:, column[f"{vector}_y"]], x)
    assert torch.equal(turned.voxels.values[:, :3], upright.voxels.values[:, :3])
    for before, after in zip(upright.targets, turned.targets, strict=True):
        assert torch.equal(before.rgba, after.rgba)
        assert torch.equal(after.extrinsics, turn_extrinsics(before.extrinsics, 1))


@pytest.mark.parametrize("kind", [StructureLatentDataset, SparseLatentDataset])
def test_latents_of_a_turn_go_with_the_video_of_that_side(kind: type[WindowDataset], clip_folder: Path):
    dataset, drawn = opened(kind, clip_folder, *QUARTER_TURNS), set()
    for seed in range(20):
        sample = dataset[Window(0, (1, 3), seed)]
        view = round((float(sample.images[0, 0, -1, 0]) * 255 - 100) / 10)
        turns = view  # the second video has yaw 270, which quarter turn 1 brings to the front
        drawn.add(turns)
        for position, frame in enumerate((1, 3)):
            rgba = torch.tensor(picture(1, view, frame)).float() / 255
            expected = torch.cat([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], dim=-1).movedim(-1, 0)
            torch.testing.assert_close(sample.images[position], expected)
            found = sample.latents[position] if kind is StructureLatentDataset else sparse_frame(sample, position)
            torch.testing.assert_close(found.mean(), torch.tensor(latent(turns, frame)), atol=0.01, rtol=0)
    assert drawn == {0, 1} and sample.images.shape == (2, 4, IMAGE_SIZE, IMAGE_SIZE)


def sparse_frame(sample: Any, position: int) -> torch.Tensor:
    return sample.latents.values[sample.latents.coords[:, 0] == position]


def test_a_turn_without_latents_or_video_is_refused(clip_folder: Path):
    with pytest.raises(ValueError, match=r"has no structure_mean_2, only .*: run the encode stage with options"):
        opened(StructureLatentDataset, clip_folder, 2)[Window(0, (0,), 0)]
    dataset = opened(StructureLatentDataset, clip_folder)
    with pytest.raises(ValueError, match=r"of yaw \[0, 270\], but quarter turn 3 needs 90: render them, or leave"):
        dataset.conditioning(Window(0, (0,), 0), Cube(None, 3), np.random.default_rng(0))


def test_tokens_are_voxels_or_cells(clip_folder: Path):
    assert opened(OccupancyDataset, clip_folder).frame_tokens() == [16**3] * 2
    assert opened(StructureLatentDataset, clip_folder).frame_tokens() == [8**3] * 2
    for kind in (FeatureDataset, SparseLatentDataset):
        assert opened(kind, clip_folder).frame_tokens() == [4**3, 6**3]


def settings(root: Path, kind: type[WindowDataset], workers: int) -> DataSettings:
    dense = {OccupancyDataset: 16**3, StructureLatentDataset: 8**3}
    masked = 0.5 if issubclass(kind, ConditionedDataset) else 0.0
    return DataSettings(
        root=str(root),
        split="train",
        objects=None,
        resolution=RESOLUTION,
        frames=[1, 2],
        max_stride=2,
        quarter_turns=[0, 1],
        tokens_per_batch=4 * dense.get(kind, 216),
        max_clips=3,
        category_weight={"crate": 0.5},
        static_weight=1.0,
        group_cap=None,
        workers=workers,
        recolor=0.5 if kind is StructureLatentDataset else 0.0,
        conditioning_targets=0.5,
        masking=MaskingSettings(masked, 0.5, 2, 0.5, [0.2, 0.5], 0.5, [0.05, 0.1]),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_two_workers_make_what_none_makes(kind: type[WindowDataset], clip_folder: Path):
    batches = []
    for workers in (0, 2):
        options, state = settings(clip_folder, kind, workers), torch.get_rng_state()
        dataset = open_dataset(kind, options)
        list(islice(BatchLoader(dataset, options, seed=3), 2))  # files are open before workers are forked
        loader = BatchLoader(dataset, options, seed=3, start=4)
        batches.append([plain(batch) for batch in islice(loader, 5)])
        assert torch.equal(torch.get_rng_state(), state)  # the models' random numbers do not depend on loading
    assert batches[0] == batches[1] and batches[0][0] != batches[0][1]


def test_absent_categories_and_short_clips_are_notes(clip_folder: Path, tmp_path: Path):
    root = shutil.copytree(clip_folder, tmp_path / "clips")
    table = [{**row, "frames": 2} if row["name"] == "box0__slide" else row for row in read_table(root, "render")]
    write_table(root, "render", table)
    options = settings(root, OccupancyDataset, 0)
    options = replace(options, frames=[4], category_weight={"fish": 0.35})
    with pytest.warns(UserWarning) as caught:
        dataset = open_dataset(OccupancyDataset, options)
    said = [str(warning.message) for warning in caught]
    assert said == [
        "data.category_weight: no clip is of category fish",
        "1 of 2 clips have fewer than 4 frames and are left out",
    ]
    batches = [batch.grid.sum((1, 2, 3, 4, 5)).tolist() for batch in islice(BatchLoader(dataset, options, seed=0), 4)]
    assert {value for batch in batches for value in batch} == {4 * 6**3}  # of the long clip alone


def test_pictures_of_latents_with_colour_keep_theirs(clip_folder: Path):
    with pytest.raises(ValueError, match=r"data\.recolor = 0\.5, but the sparse flow learns colours"):
        open_dataset(SparseLatentDataset, replace(settings(clip_folder, SparseLatentDataset, 0), recolor=0.5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": []}, r"data\.frames = \[\] must list"),
        ({"quarter_turns": [4]}, r"data\.quarter_turns = \[4\] must list turns"),
        ({"recolor": 1.5}, r"data\.recolor = 1\.5 must be a chance"),
        ({"conditioning_targets": -1}, r"data\.conditioning_targets = -1 must be a chance"),
        ({"tokens_per_batch": 0}, r"data\.tokens_per_batch = 0 must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change: dict[str, Any], message: str, clip_folder: Path):
    with pytest.raises(ValueError, match=message):
        replace(settings(clip_folder, FeatureDataset, 0), **change)


def test_batches_put_windows_side_by_side(clip_folder: Path):
    windows = [Window(0, (0, 1), 0), Window(1, (1, 3), 1)]
    occupancy, features = opened(OccupancyDataset, clip_folder), opened(FeatureDataset, clip_folder)
    grid = occupancy.collate([occupancy[window] for window in windows]).grid
    batch = features.collate([features[window] for window in windows])
    assert grid.shape == (2, 2, 1, 16, 16, 16) and batch.voxels.num_frames == (2, 2)
    video, frame, x, y, z = batch.voxels.coords.long().unbind(1)
    assert bool((grid[video, frame, 0, x, y, z] == 1).all()) and grid.sum() == len(batch.voxels)
    assert [len(targets) for targets in batch.targets] == [2, 2]


@pytest.mark.parametrize(
    "asset_id",
    [
        "ba7b382c918b40e6b07011da4ff3ebc0",
        "pack/9fea6ffd67b840cb970f5b4570794709",
        "pack/9fea6ffd67b840cb970f5b4570794709.glb",
    ],
)
def test_objects_of_evaluation_sets_are_not_trained_on(asset_id: str, clip_folder: Path, tmp_path: Path):
    """Consistent4D's, in a set that was made for evaluation."""
    root = shutil.copytree(clip_folder, tmp_path / "data")
    rows = read_table(root, "curate")
    write_table(root, "curate", [row | ({"asset_id": asset_id} if row["asset_id"] == "box1" else {}) for row in rows])
    given = replace(settings(root, SparseLatentDataset, 0), category_weight=None)
    with pytest.raises(ValueError, match=f"has evaluation objects, such as {asset_id} of Consistent4D"):
        open_dataset(SparseLatentDataset, given)
    assert len(open_dataset(SparseLatentDataset, replace(given, objects=["box0"]))) == 1
