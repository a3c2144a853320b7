"""Clips from video files and folders of images.

PyAV alone does the decoding and encoding: its wheel brings an ffmpeg with libx264 and libvpx, so no system
package and no second process is needed, and it hands over alpha channels and the rotation of phone videos.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

VIDEO_SUFFIXES = (".mp4", ".mov", ".webm", ".gif")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
# ffmpeg's own VP8 and VP9 decoders drop the alpha plane of a transparent webm, libvpx's keep it.
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


class VideoError(ValueError):
    """A clip that cannot be used; the message is one sentence that says what to do."""


@dataclass
class Clip:
    """Frames of one video, evenly spaced in time."""

    frames: np.ndarray  # uint8 [T, H, W, 3 (RGB) or 4 (RGBA, not premultiplied)]
    fps: float | None  # frames a second of `frames`; None for images and where the file does not say
    source: Path
    frame_numbers: np.ndarray  # int [T] which frames of the source these are, ascending
    num_source_frames: int  # how many frames the source has

    def __len__(self) -> int:
        return len(self.frames)


def read_clip(path: str | Path, num_frames: int | None = None) -> Clip:
    """Read a video (mp4, mov, webm, gif) or a folder of images (png, jpg, webp), sorted naturally.

    Args:
        path: the video file or the folder.
        num_frames: at most this many frames, spread evenly from the first to the last; a shorter clip is
            returned whole with a warning. None: all of them.

    Raises:
        VideoError: nothing at `path`, nothing readable in it, an unsupported file, frames of several sizes.
    """
    path = Path(path)
    if num_frames is not None and num_frames < 1:
        raise VideoError(f"num_frames must be at least 1, but it is {num_frames}.")
    if path.is_dir():
        clip = _read_folder(path, num_frames)
    elif not path.exists():
        raise VideoError(f"There is no video or folder of images at {path}.")
    elif path.suffix.lower() in VIDEO_SUFFIXES:
        clip = _read_video(path, num_frames)
    else:
        raise VideoError(
            f"{path} is not a supported video: pass a {', '.join(VIDEO_SUFFIXES)} file or a folder of"
            f" {', '.join(IMAGE_SUFFIXES)} images."
        )
    if num_frames is not None and len(clip) < num_frames:
        warnings.warn(f"{path} has only {len(clip)} of the {num_frames} frames asked for; using all.", stacklevel=2)
    return clip


def _sample(count: int, num_frames: int | None) -> np.ndarray:
    """The numbers of `num_frames` of `count` frames, evenly spread, first and last included."""
    if num_frames is None or num_frames >= count:
        return np.arange(count)
    return np.linspace(0, count - 1, num_frames).round().astype(int)


def _read_folder(path: Path, num_frames: int | None) -> Clip:
    visible = (file for file in path.iterdir() if not file.name.startswith("."))
    files = sorted((file for file in visible if file.suffix.lower() in IMAGE_SUFFIXES), key=_natural_key)
    if not files:
        raise VideoError(f"The folder {path} holds no {', '.join(IMAGE_SUFFIXES)} images.")
    numbers = _sample(len(files), num_frames)
    chosen = [files[number] for number in numbers]
    images = [_read_image(file) for file in chosen]
    for file, image in zip(chosen, images, strict=True):
        if image.size != images[0].size:
            (width, height), (first_width, first_height) = image.size, images[0].size
            raise VideoError(
                f"All images must have one size, but {chosen[0].name} is {first_width} x {first_height} and"
                f" {file.name} is {width} x {height} in {path}."
            )
    mode = "RGBA" if any(image.has_transparency_data for image in images) else "RGB"
    frames = np.stack([np.asarray(image.convert(mode)) for image in images])
    return Clip(frames, None, path, numbers, len(files))


def _natural_key(file: Path) -> list[int | str]:
    """Numbers compare as numbers: frame9 comes before frame10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", file.name)]


def _read_image(file: Path) -> Image.Image:
    try:
        with Image.open(file) as image:
            return ImageOps.exif_transpose(image)
    except (UnidentifiedImageError, OSError) as error:
        raise VideoError(f"{file} cannot be read as an image ({error}); replace it or take it away.") from error


def _read_video(path: Path, num_frames: int | None) -> Clip:
    try:
        # Counting first costs a second decoding, and saves holding every frame of a long video in memory.
        count = sum(1 for _ in _decode(path))
        numbers = _sample(count, num_frames)
        wanted = set(numbers.tolist())
        frames = [_to_array(frame) for number, frame in enumerate(_decode(path)) if number in wanted]
        rate = _frame_rate(path)
    except av.FFmpegError as error:
        raise VideoError(f"{path} cannot be read as a video ({error}); re-encode it to mp4.") from error
    if not frames:
        raise VideoError(f"{path} holds no video frames; pass another file.")
    if len({frame.shape for frame in frames}) > 1:
        raise VideoError(f"{path} changes its frame size on the way; re-encode it at one size.")
    return Clip(np.stack(frames), rate and rate * len(frames) / count, path, numbers, count)


def _decode(path: Path) -> Iterator[av.VideoFrame]:
    """All frames of the first video stream; none where there is no such stream."""
    with av.open(str(path)) as container:
        if not container.streams.video:
            return
        stream = container.streams.video[0]
        codec = stream.codec_context.name
        tags = {key.lower(): value for key, value in stream.metadata.items()}
        if tags.get("alpha_mode") == "1" and codec in ALPHA_DECODERS:
            decoder: Any = av.CodecContext.create(ALPHA_DECODERS[codec], "r")
            for packet in container.demux(stream):
                yield from decoder.decode(packet)
        else:
            stream.thread_type = "AUTO"
            yield from container.decode(stream)


def _frame_rate(path: Path) -> float | None:
    with av.open(str(path)) as container:
        rates = [stream.average_rate for stream in container.streams.video]
    return float(rates[0]) if rates and rates[0] else None


def _to_array(frame: av.VideoFrame) -> np.ndarray:
    """uint8 [H, W, 3 or 4], turned upright as the file's display matrix asks."""
    alpha = any(component.is_alpha for component in frame.format.components)
    array = frame.to_ndarray(format="rgba" if alpha else "rgb24")
    return np.rot90(array, round(frame.rotation / 90) % 4)
