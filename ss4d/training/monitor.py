"""Watching a run: metrics to a CSV, to TensorBoard and, where asked for, to Weights & Biases."""

from __future__ import annotations

import csv
import errno
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ss4d.files import written_atomically
from ss4d.training.distributed import World, gathered

QUEUE = 10_000  # events for TensorBoard that wait to be written; nothing waits for room in it


@dataclass
class Meter:
    """Means of metrics over batches and processes; a metric may be missing from some."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, metrics: Mapping[str, Tensor | float]) -> None:
        """Take in the metrics of a batch (scalars); nothing is copied from a GPU yet."""
        for key, value in metrics.items():
            value = value.detach().float() if isinstance(value, Tensor) else torch.tensor(value)
            self.sums[key] = self.sums[key] + value if key in self.sums else value
            self.counts[key] = self.counts.get(key, 0) + 1

    def means(self, world: World) -> dict[str, float]:
        """The mean of every metric since the last call, over all processes (all must call this)."""
        mine = {key: (float(value), self.counts[key]) for key, value in self.sums.items()}
        self.sums, self.counts = {}, {}
        parts = gathered(mine, world)
        keys = dict.fromkeys(key for part in parts for key in part)
        return {
            key: sum(part[key][0] for part in parts if key in part) / sum(part[key][1] for part in parts if key in part)
            for key in keys
        }


class Monitor:
    """Writes what is logged; only the first process has one.

    Args:
        step: the step a run resumes at: rows after it, of a run that was killed, are dropped.
        wandb: the `wandb` section of the config: {"mode": "disabled", "offline" or "online", "project"}.
        config: the resolved config, for wandb.
    """

    def __init__(self, run_dir: Path, step: int, wandb: Mapping[str, Any], config: Mapping[str, Any]):
        from tensorboardX import SummaryWriter

        self.run_dir = run_dir
        self.csv = run_dir / "log.csv"
        _drop_rows_after(self.csv, step)
        folder, suffix = str(run_dir / "tensorboard"), f".{step}"
        self.board = SummaryWriter(folder, purge_step=step + 1, max_queue=QUEUE, filename_suffix=suffix)
        self.wandb = _open_wandb(run_dir, wandb, config)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """One row per metric in log.csv (step, metric, value), and the same to the others.

        Raises:
            OSError: something cannot be written.
        """
        if not self._board_is_written():
            folder = self.run_dir / "tensorboard"
            raise OSError(errno.EIO, "what TensorBoard reads could not be written", str(folder))
        new = not self.csv.exists()
        with self.csv.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["step", "metric", "value"])
            writer.writerows([step, key, f"{value:.6g}"] for key, value in metrics.items())
        for key, value in metrics.items():
            self.board.add_scalar(key, value, step)
        if self.wandb is not None:
            self.wandb.log(dict(metrics), step=step)

    def pictures(self, step: int, name: str, frames: np.ndarray) -> None:
        """A clip, uint8 [T, H, W, 3]: `samples/NAME_STEP.mp4`, its first frame as a PNG beside it."""
        from PIL import Image

        from ss4d.video import write_video

        folder = self.run_dir / "samples"
        folder.mkdir(exist_ok=True)
        stem = folder / f"{name}_{step:08d}"
        Image.fromarray(frames[0]).save(stem.with_suffix(".png"))
        if len(frames) > 1:
            write_video(stem.with_suffix(".mp4"), frames, fps=8)
        self.board.add_image(name, frames[0], step, dataformats="HWC")
        if self.wandb is not None:
            import wandb

            self.wandb.log({name: wandb.Image(frames[0])}, step=step)

    def _board_is_written(self) -> bool:
        """Whether the thread that writes for TensorBoard lives: a full disk ends it, and its queue is never emptied."""
        writer = self.board.file_writer
        return writer is None or writer.event_writer._worker.is_alive()

    def close(self) -> None:
        """Write out what is buffered."""
        if self._board_is_written():  # else it would be waited for, for ever
            self.board.close()
        if self.wandb is not None:
            self.wandb.finish()


def _drop_rows_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    with path.open(newline="") as file:
        header, *rows = list(csv.reader(file)) or [["step", "metric", "value"]]
    kept = [row for row in rows if len(row) == 3 and row[0].isdigit() and int(row[0]) <= step]
    with written_atomically(path) as temporary, temporary.open("w", newline="") as file:
        csv.writer(file).writerows([header, *kept])


def _open_wandb(run_dir: Path, options: Mapping[str, Any], config: Mapping[str, Any]) -> Any:
    if options["mode"] == "disabled":
        return None
    import wandb

    # The id follows from the folder, so that a resumed run is one run there, too.
    name = hashlib.sha256(str(run_dir.resolve()).encode()).hexdigest()[:16]
    return wandb.init(
        project=options["project"],
        name=run_dir.name,
        id=name,
        resume="allow",
        dir=run_dir,
        mode=options["mode"],
        config=dict(config),
    )
