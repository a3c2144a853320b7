"""A result folder of `inference.py` as the player takes it."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ss4d.cameras import Orbit
from ss4d.gaussians.gaussians import GaussianSequence
from ss4d.gaussians.ply import read_ply
from ss4d.result_folder import DEFAULT_FPS, REPORT, ResultFolder, frame_file
from ss4d.video import read_clip
from ss4d.view_frame import ViewFrame


@dataclass
class Result:
    """What a result folder holds."""

    gaussians: GaussianSequence  # T frames
    resolution: int  # voxels along one side of the cube
    images: np.ndarray | None  # uint8 [T, S, S, 3], the cropped input; None where the folder has no compare.mp4
    fps: float
    title: str
    orbit: Orbit = field(default_factory=Orbit)  # the cameras of its pictures


def read_result(folder: Path) -> Result:
    """Read a result folder.

    Raises ValueError where `folder` is no such folder, or a file of it is damaged.
    """
    with suppress(OSError):  # somebody else's result may be read only
        ResultFolder(folder.resolve(), folder).recover(reading=True)
    try:
        report = json.loads((folder / REPORT).read_text("utf-8"))
        files = [find_frame(folder, index) for index in range(report["num_frames"])]
        resolution, title = int(report["resolution"]), Path(report.get("input", folder.resolve().name)).stem
        frame = report.get("frame")  # results of before have none
        orbit = Orbit() if frame is None else ViewFrame(**frame).orbit()
    except FileNotFoundError:
        raise ValueError(f"{folder} holds no {REPORT}: name a folder that inference.py wrote") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / REPORT} is damaged ({error}): run inference.py again") from None
    missing = next((path for path in files if not path.is_file()), None)
    if missing:
        raise ValueError(f"{missing} is missing: run inference.py again")
    images, fps = read_input(folder / "compare.mp4", len(files))
    return Result(GaussianSequence([read_ply(path) for path in files]), resolution, images, fps, title, orbit)


def find_frame(folder: Path, index: int) -> Path:
    """The Gaussians of a frame; earlier versions named them without "frame_"."""
    former = folder / "frames" / f"{index:05d}.ply"
    return former if former.is_file() else folder / frame_file(index)


def read_input(path: Path, num_frames: int) -> tuple[np.ndarray | None, float]:
    """The input's panel of compare.mp4, the leftmost square, and the frame rate."""
    if not path.is_file():
        return None, DEFAULT_FPS
    clip = read_clip(path)
    if len(clip.frames) != num_frames:
        raise ValueError(f"{path} has {len(clip.frames)} frames for {num_frames} of Gaussians: run inference.py again")
    return clip.frames[:, :, : clip.frames.shape[1], :3], clip.fps or DEFAULT_FPS
