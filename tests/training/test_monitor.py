"""Figures are averaged over what has them, and logs of a run that goes on have no step twice."""

from __future__ import annotations

import csv
import errno
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ss4d.training.distributed import World
from ss4d.training.monitor import Meter, Monitor

ALONE = World(0, 1, torch.device("cpu"))
DISABLED = {"mode": "disabled", "project": "ss4d"}


def rows(run_dir: Path) -> list[tuple[int, str, float]]:
    with (run_dir / "log.csv").open() as file:
        return [(int(row["step"]), row["metric"], float(row["value"])) for row in csv.DictReader(file)]


def test_a_figure_that_some_batches_lack_is_the_mean_of_the_others():
    meter = Meter()
    meter.add({"loss": torch.tensor(1.0, requires_grad=True), "error": 5.0})
    meter.add({"loss": torch.tensor(3.0)})
    assert meter.means(ALONE) == {"loss": 2.0, "error": 5.0}
    assert meter.means(ALONE) == {}


def test_rows_after_the_checkpoint_are_dropped(tmp_path: Path):
    first = Monitor(tmp_path, 0, DISABLED, {})
    for step in (1, 2, 3):
        first.log(step, {"loss": step / 10})
    first.close()
    with (tmp_path / "log.csv").open("a") as file:
        file.write("4,lo")  # killed while writing
    second = Monitor(tmp_path, 2, DISABLED, {})
    second.log(3, {"loss": 7.0})
    second.close()
    assert rows(tmp_path) == [(1, "loss", 0.1), (2, "loss", 0.2), (3, "loss", 7.0)]
    assert len(list((tmp_path / "tensorboard").glob("events*"))) == 2


def test_pictures_are_files_and_on_the_board(tmp_path: Path):
    monitor = Monitor(tmp_path, 0, DISABLED, {})
    frames = np.random.default_rng(0).integers(0, 255, (3, 32, 48, 3)).astype(np.uint8)
    monitor.pictures(20, "preview", frames)
    monitor.close()
    assert np.array_equal(np.asarray(Image.open(tmp_path / "samples/preview_00000020.png")), frames[0])
    assert (tmp_path / "samples/preview_00000020.mp4").stat().st_size > 0


def test_wandb_offline_writes_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("wandb", reason="needs wandb, an optional dependency")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monitor = Monitor(tmp_path, 0, {"mode": "offline", "project": "ss4d"}, {"seed": 1})
    monitor.log(1, {"loss": 0.5})
    monitor.close()
    assert list(tmp_path.glob("wandb/offline-run-*/*.wandb"))


def test_a_full_disk_under_tensorboard_ends_the_run_and_hangs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    monitor = Monitor(tmp_path, 0, DISABLED, {})
    monitor.log(1, {"loss": 1.0})

    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(monitor.board.file_writer.event_writer._ev_writer, "write_event", full)
    with pytest.raises(OSError, match="what TensorBoard reads could not be written"):
        for step in range(2, 1000):
            monitor.log(step, {f"metric{i}": 0.0 for i in range(20)})
            time.sleep(0.001)
    monitor.close()
