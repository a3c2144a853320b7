"""What generation made of a clip, and the folder it is saved to."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ss4d.cameras import Orbit
from ss4d.flow import SamplerSettings
from ss4d.gaussians import GaussianSequence, write_ply
from ss4d.gaussians.ply import Layout
from ss4d.memory import giving_back, peak_memory
from ss4d.refine.refiner import Refinement
from ss4d.result_folder import DEFAULT_FPS, REPORT, ResultFolder, frame_file
from ss4d.version import __version__
from ss4d.view_frame import ViewFrame

PLAYER_INPUT_SIZE = 320  # pixels, of the input beside the player
MAIN_MEMORY = torch.device("cpu")
ORBIT_FPS = (12.0, 60.0)  # pictures a second of the turntable, least and most


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
    view_frame: ViewFrame | None  # that of the view, where the result is in it; None: in that of the clip
    refinement: Refinement | None  # where the result was aligned with the input
    durations: np.ndarray | None  # float [T] seconds that each frame of the input is shown, where it says
    seed: int
    structure: SamplerSettings
    latents: SamplerSettings
    device: torch.device
    precision: str  # of the flows' torsos, see `ss4d.precision`
    backend: dict[str, str]  # implementations that computed it, see `ss4d.backend`
    stages: list[Stage] = field(default_factory=list)

    @property
    def fps(self) -> float:
        """Frames a second on average: the input's, or 12 where it does not say."""
        return DEFAULT_FPS if self.durations is None else len(self.durations) / float(np.sum(self.durations))

    @property
    def orbit(self) -> Orbit:
        """Cameras of its pictures: in the frame of the view as close as the input's, the front being that camera."""
        return Orbit() if self.view_frame is None else self.view_frame.orbit()

    def save(
        self,
        folder: str | Path,
        size: int = 256,
        fps: float | None = None,
        ply: Layout = "compact",
        about: dict[str, Any] | None = None,
        progress: bool = False,
    ) -> Path:
        """Write the result into a folder; an earlier result there is replaced once all is written, and nothing else.

        Args:
            folder: made where there is none.
            size, fps, ply, about, progress: as for `write`.

        Returns:
            The folder; another one, which is printed, where this one can no longer be written.

        Raises:
            ValueError: `folder` is a file, is not writable, or holds files of something else.
        """
        return ResultFolder.open(folder).write(lambda place: self.write(place, size, fps, ply, about, progress))

    def write(
        self,
        place: Path,
        size: int = 256,
        fps: float | None = None,
        ply: Layout = "compact",
        about: dict[str, Any] | None = None,
        progress: bool = False,
    ) -> None:
        """Write frames/frame_00000.ply ..., orbit.mp4, compare.mp4, voxels.mp4, player.html and result.json.

        Args:
            place: an empty folder.
            size: height of the videos, pixels.
            fps: an even rate of the videos; by default each frame is shown for as long as the input shows it.
            ply: layout of the .ply files, "compact" or "reference" (see `ss4d.gaussians.ply`).
            about: further entries of result.json.
        """
        if fps is not None and not 0 < fps < math.inf:
            raise ValueError(f"fps must be positive, but it is {fps}.")
        stages = list(self.stages)
        durations = self.durations if fps is None and self.durations is not None else None
        spans = np.full(len(self.gaussians), 1 / (self.fps if fps is None else fps)) if durations is None else durations
        with measured("writing", stages, self.device):
            self._write_gaussians(place, ply, progress)
            self._write_videos(place, size, spans, progress)
            self._write_player(place / "player.html", 1 / float(spans.mean()), about or {})
        self._write_report(place / REPORT, stages, about or {})

    def _write_gaussians(self, place: Path, ply: Layout, progress: bool) -> None:
        (place / frame_file(0)).parent.mkdir()
        for index, gaussians in enumerate(tqdm(self.gaussians, desc="PLY files", unit="frame", disable=not progress)):
            write_ply(gaussians, place / frame_file(index), layout=ply)

    def _write_videos(self, place: Path, size: int, spans: np.ndarray, progress: bool) -> None:
        """Videos whose frames are shown for `spans` [T] seconds; the turntable's evenly, neither so long that it would
        turn in jerks nor so briefly that nobody could follow."""
        from ss4d.video import write_video
        from ss4d.visualize import compare_video, orbit_order, render_orbit, render_voxels

        orbit = self.orbit
        turning = np.full(len(orbit_order(len(spans))), np.clip(spans.mean(), 1 / ORBIT_FPS[1], 1 / ORBIT_FPS[0]))
        videos: dict[str, tuple[Callable[[], Iterator[np.ndarray]], np.ndarray]] = {
            "orbit": (lambda: render_orbit(self.gaussians, size, orbit=orbit), turning),
            "compare": (
                lambda: compare_video(self.rgba, self.gaussians, size=size, elevation=orbit.elevation, orbit=orbit),
                spans,
            ),
            "voxels": (lambda: render_voxels(self.voxels, self.resolution, size, orbit=orbit), spans),
        }
        for name, (render, shown) in tqdm(videos.items(), desc="videos", unit="video", disable=not progress):
            write_video(place / f"{name}.mp4", giving_back(render(), MAIN_MEMORY), durations=shown)

    def _write_player(self, path: Path, fps: float, about: dict[str, Any]) -> None:
        from ss4d.video import cropped_frames
        from ss4d.viewer.page import write_player

        write_player(
            path,
            self.gaussians,
            voxels=self.voxels,
            resolution=self.resolution,
            orbit=self.orbit,
            images=cropped_frames(self.rgba, PLAYER_INPUT_SIZE),
            fps=fps,
            title=Path(str(about.get("input", "SS4D"))).stem or "SS4D",
        )

    def _write_report(self, path: Path, stages: list[Stage], about: dict[str, Any]) -> None:
        """result.json: how the result came about and what it cost."""
        report = {
            **about,
            "device": str(self.device),
            "precision": self.precision,
            "backend": self.backend,
            "seed": self.seed,
            "num_frames": len(self.gaussians),
            "structure_sampler": dataclasses.asdict(self.structure),
            "latent_sampler": dataclasses.asdict(self.latents),
            "frame": None if self.view_frame is None else dataclasses.asdict(self.view_frame),
            "refinement": None if self.refinement is None else self.refinement.entries(),
            "resolution": self.resolution,
            "voxels": [len(voxels) for voxels in self.voxels],
            "gaussians": self.gaussians.num_gaussians,
            "stages": [dataclasses.asdict(stage) for stage in stages],
            "seconds": sum(stage.seconds for stage in stages),
            "versions": {"ss4d": __version__, "torch": torch.__version__},
        }
        path.write_text(json.dumps(report, indent=2, default=str) + "\n")
