"""The archive of pictures."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from ss4d.data.views import View, ViewArchive, ViewArchiveWriter, ViewIndex

CAMERA = View(np.eye(4).tolist(), np.eye(3).tolist(), 10.0, 20.0, 40.0, 2.0, yaw=90)
INDEX = ViewIndex(2, 8, 4, 0.5, [1.0, 2.0, 3.0], [1.0, 3.0], [CAMERA], [CAMERA, CAMERA])


def write(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """One view and one conditioning picture of frame 1; returns colours [8, 8, 4] and depth [8, 8]."""
    generator = np.random.default_rng(0)
    rgba = generator.integers(0, 256, (8, 8, 4), dtype=np.uint8)
    depth = generator.uniform(1, 3, (8, 8))
    depth[0] = np.inf
    with ViewArchiveWriter(path, INDEX) as archive:
        archive.add_view(0, 1, rgba, depth)
        archive.add_cond(1, 1, rgba[:4, :4])
    return rgba, depth


def test_pictures_come_back_as_they_were(tmp_path: Path):
    rgba, depth = write(tmp_path / "a.zip")
    archive = pickle.loads(pickle.dumps(ViewArchive(tmp_path / "a.zip")))
    assert np.array_equal(archive.view(0, 1), rgba) and np.array_equal(archive.cond(1, 1), rgba[:4, :4])
    assert archive.index == INDEX and archive.cond_cameras.extrinsics.shape == (2, 4, 4)
    read = archive.depth(0, 1)
    assert np.isinf(read[0]).all()
    assert np.abs(read[1:] - depth[1:]).max() <= 0.5 * 2 / 65534 + 1e-6  # half a step of the stored range


def test_equal_pictures_make_equal_files(tmp_path: Path):
    write(tmp_path / "a.zip")
    write(tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_damage_is_named(tmp_path: Path):
    write(tmp_path / "a.zip")
    (tmp_path / "cut.zip").write_bytes((tmp_path / "a.zip").read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"cut\.zip is damaged .* run the render stage again"):
        _ = ViewArchive(tmp_path / "cut.zip").index
    with pytest.raises(ValueError, match=r"a\.zip is damaged .*views/000/007\.webp"):
        ViewArchive(tmp_path / "a.zip").view(0, 7)
