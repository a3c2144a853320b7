"""What generation made of a clip, and the folder it is saved to."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ss4d.flow import SamplerSettings
from ss4d.gaussians import GaussianSequence, write_ply
from ss4d.memory import peak_memory
from ss4d.refine.refiner import Refinement
from ss4d.version import __version__
from ss4d.view_frame import ViewFrame

DEFAULT_FPS = 12.0  # for images, which carry no frame rate
REPORT = "result.json"  # its presence says that a folder holds a result


@dataclass
class Stage:
    """Cost of one stage: wall time, and the process's (on CUDA the device's) peak memory by its end."""

    name: str
    seconds: float
    peak_memory_mb: float


@contextmanager
def measured(name: str, stages: list[Stage], device: torch.device) -> Iterator[None]:
    """Append the cost of the enclosed work to `stages`."""
    started = time.perf_counter()
    yield
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    stages.append(Stage(name, time.perf_counter() - started, peak_memory(device) / 2**20))


@dataclass
class Generation:
    """What `SS4DPipeline.run` made of a clip.

    >>> from ss4d import SS4DPipeline, load_video
    >>> pipeline = SS4DPipeline.from_pretrained("checkpoints/ss4d-tiny")
    >>> result = pipeline.run(load_video("assets/demo.mp4", num_frames=2), steps=2)
    >>> result.gaussians[0].xyz.shape[1], result.voxels[0].shape[1]
    (3, 3)
    >>> result.save("outputs/mine", size=64)
    PosixPath('outputs/mine')
    """

    gaussians: GaussianSequence  # of T frames
    voxels: list[Tensor]  # occupied voxels of each frame, int32 [N, 3] in 0 .. resolution - 1
    resolution: int  # voxels along one side of the cube
    rgba: np.ndarray  # uint8 [T, H, W, 4], the input with its object's alpha, not premultiplied
    images: Tensor  # uint8 [T, S, S, 3], the cropped clip on black that conditioned the models
    frame: ViewFrame | None  # of the view, where the result is in it; None: in that of the clip
    refinement: Refinement | None  # where the result was aligned with the input
    fps: float | None  # of the input, where it says
    seed: int
    structure: SamplerSettings
    latents: SamplerSettings
    device: torch.device
    backend: dict[str, str]  # implementations that computed it, see `ss4d.backend`
    stages: list[Stage] = field(default_factory=list)

    def save(
        self,
        folder: str | Path,
        size: int = 256,
        fps: float | None = None,
        about: dict[str, Any] | None = None,
        progress: bool = False,
    ) -> Path:
        """Write frames/00000.ply ..., orbit.mp4, compare.mp4, voxels.mp4 and result.json, atomically.

        Args:
            folder: created, or replaced where it holds an earlier result.
            size: height of the videos, pixels.
            fps: of the videos; by default the input's, or 12.
            about: further entries of result.json.

        Returns:
            The folder.

        Raises:
            ValueError: `folder` is a file, or holds something else than an earlier result.
        """
        target = Path(folder)
        check_destination(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as place:
            unfinished = Path(place) / "result"
            unfinished.mkdir()
            stages = list(self.stages)
            with measured("writing", stages, self.device):
                self._write_gaussians(unfinished / "frames", progress)
                self._write_videos(unfinished, size, fps or self.fps or DEFAULT_FPS, progress)
            self._write_report(unfinished / REPORT, stages, about or {})
            _replace_folder(unfinished, target)
        return target

    def _write_gaussians(self, folder: Path, progress: bool) -> None:
        folder.mkdir()
        for index, gaussians in enumerate(tqdm(self.gaussians, desc="PLY files", unit="frame", disable=not progress)):
            write_ply(gaussians, folder / f"{index:05d}.ply")

    def _write_videos(self, folder: Path, size: int, fps: float, progress: bool) -> None:
        from ss4d.video import write_video
        from ss4d.visualize import compare_video, render_orbit, render_voxels

        videos = {
            "orbit": lambda: render_orbit(self.gaussians, size),
            "compare": lambda: compare_video(self.rgba, self.gaussians, size=size),
            "voxels": lambda: render_voxels(self.voxels, self.resolution, size),
        }
        for name, render in tqdm(videos.items(), desc="videos", unit="video", disable=not progress):
            write_video(folder / f"{name}.mp4", render(), fps)

    def _write_report(self, path: Path, stages: list[Stage], about: dict[str, Any]) -> None:
        """result.json: how the result came about and what it cost."""
        report = {
            **about,
            "device": str(self.device),
            "backend": self.backend,
            "seed": self.seed,
            "num_frames": len(self.gaussians),
            "structure_sampler": dataclasses.asdict(self.structure),
            "latent_sampler": dataclasses.asdict(self.latents),
            "frame": None if self.frame is None else dataclasses.asdict(self.frame),
            "refinement": None if self.refinement is None else self.refinement.entries(),
            "resolution": self.resolution,
            "voxels": [len(voxels) for voxels in self.voxels],
            "gaussians": self.gaussians.num_gaussians,
            "stages": [dataclasses.asdict(stage) for stage in stages],
            "seconds": sum(stage.seconds for stage in stages),
            "versions": {"ss4d": __version__, "torch": torch.__version__},
        }
        path.write_text(json.dumps(report, indent=2) + "\n")


def check_destination(folder: Path) -> None:
    """ValueError unless a result can be saved as `folder` without losing anything but an earlier result."""
    if folder.is_file():
        raise ValueError(f"{folder} is a file: name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / REPORT).is_file():
        raise ValueError(f"{folder} holds something else than an earlier result: name another folder")


def _replace_folder(new: Path, target: Path) -> None:
    """Put `new` in the place of `target`."""
    if target.exists():
        shutil.move(target, new.with_name("old"))
    os.replace(new, target)
