from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from tiny import QUARTER_TURNS, RESOLUTION, write_clips

from ss4d.data import PreparedSet, StructureLatentDataset, Window

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "pack_training_set.py"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, check=False
    )


def samples(root: Path) -> list[torch.Tensor]:
    clips = PreparedSet.open(root, RESOLUTION, StructureLatentDataset.stages)
    dataset = StructureLatentDataset(clips, QUARTER_TURNS)
    drawn = [dataset[Window(clip, (0, 2), seed)] for clip in range(len(clips)) for seed in range(3)]
    return [part for sample in drawn for part in (sample.latents, sample.images)]


@pytest.mark.parametrize(("share", "count"), [(1.01, 1), (0.8, 2)])
def test_what_is_unpacked_trains_as_the_set_itself(tmp_path: Path, share: float, count: int):
    root = write_clips(tmp_path / "set", views=6)
    part_mb = share * whole_mb(root, tmp_path / "whole")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "part-007.tar").write_bytes(b"of an earlier, larger set")
    assert run("pack", root, tmp_path / "parts", "--part-mb", part_mb).stdout.startswith(f"{count} parts")
    assert all(path.stat().st_size <= part_mb * 2**20 for path in (tmp_path / "parts").iterdir())
    assert run("unpack", tmp_path / "parts", tmp_path / "copy").stdout.startswith("2 clips")
    for before, after in zip(samples(root), samples(tmp_path / "copy"), strict=True):
        assert torch.equal(before, after)
    with zipfile.ZipFile(tmp_path / "copy/render/box0__slide.zip") as pictures:
        assert not any(name.startswith(("views/", "depth/")) for name in pictures.namelist())


def whole_mb(root: Path, target: Path) -> float:
    """Size of the only part."""
    run("pack", root, target)
    (part,) = target.iterdir()
    return part.stat().st_size / 2**20


def test_clips_of_missing_parts_are_left_out(tmp_path: Path):
    root = write_clips(tmp_path / "set")
    run("pack", root, tmp_path / "parts", "--part-mb", 0.8 * whole_mb(root, tmp_path / "whole"))
    (tmp_path / "parts" / "part-001.tar").unlink()
    assert run("unpack", tmp_path / "parts", tmp_path / "copy").stdout.startswith("1 clips")
    assert len(PreparedSet.open(tmp_path / "copy", RESOLUTION, StructureLatentDataset.stages)) == 1


def test_what_cannot_be_packed_is_said(tmp_path: Path):
    root = write_clips(tmp_path / "set")
    assert "clip box0__slide needs" in run("pack", root, tmp_path / "parts", "--part-mb", 0.01).stderr
    (root / "tables" / "encode.parquet").unlink()
    result = run("pack", root, tmp_path / "parts")
    assert result.returncode == 2 and "has no table encode: run `python -m dataset_toolkits encode" in result.stderr
    assert "holds no part-*.tar" in run("unpack", tmp_path, tmp_path / "copy").stderr
