"""Clips from video files, pictures and folders of pictures; frames are chosen by time."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ss4d.video.animation import count_frames, read_animation, read_durations
from ss4d.video.errors import VideoError
from ss4d.video.pictures import PICTURE_SUFFIXES, list_pictures, picture_size, read_picture

VIDEO_SUFFIXES = (
    ".mp4",
    ".mov",
    ".webm",
    ".gif",
    ".m4v",
    ".mkv",
    ".avi",
    ".mpg",
    ".mpeg",
    ".mts",
    ".m2ts",
    ".ts",
    ".3gp",
)
MAX_SIDE = 1920  # pixels; the object's crop is conditioned on at 518 and less
CLIP_BYTES = 2**29  # of RGBA frames in memory, before they are made smaller
MIN_SIDE = 512  # of frames that are made smaller to fit


@dataclass
class Clip:
    """Frames of one video."""

    frames: np.ndarray  # uint8 [T, H, W, 3 (RGB) or 4 (RGBA, not premultiplied)]
    durations: np.ndarray | None  # float64 [T] seconds that each is shown; None for images and where the file is silent
    source: Path
    frame_numbers: np.ndarray  # int [T] which frames of the source these are, ascending
    num_source_frames: int  # how many frames the source has
    times: np.ndarray | None = None  # float64 [T] seconds of the source at which each begins; None as for durations
    segmented: bool = False  # the frames' alpha is the object's, even where it is 255 throughout

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def fps(self) -> float | None:
        """Frames a second on average; None for images."""
        return None if self.durations is None else float(f"{len(self) / self.durations.sum():.9g}")


def read_clip(
    path: str | Path,
    num_frames: int | None = None,
    start: float | None = None,
    end: float | None = None,
    fps: float | None = None,
) -> Clip:
    """Read a video, a picture, or a folder of pictures sorted naturally.

    Frames are chosen by the time at which they are shown: a frame that a GIF or a phone holds for a second counts for
    a second. Rotation, mirroring, pixel aspect ratio, colour matrix and range are applied, interlaced video is made
    progressive and HDR is tone-mapped. Frames larger than needed are made smaller while they are read.

    Args:
        path: the file or the folder.
        num_frames: at most this many frames, spread evenly in time from the first to the last; together with `fps`
            the first so many. A shorter clip is returned whole with a warning. None: all of them.
        start, end: seconds; only this part of the clip.
        fps: frames a second to take, instead of all that there are.

    Raises:
        VideoError: nothing at `path`, nothing readable in it, an unsupported file, frames of several sizes, more than
            fit into memory, or an empty part.

    Example:
        >>> clip = read_clip("assets/demo.mp4", num_frames=8)
        >>> clip.frames.shape[0], clip.frames.dtype
        (8, dtype('uint8'))
    """
    path = Path(path)
    if num_frames is not None and num_frames < 1:
        raise VideoError(f"num_frames must be at least 1, but it is {num_frames}.")
    if fps is not None and not 0 < fps < 1e6:
        raise VideoError(f"fps must be positive, but it is {fps}.")
    if not (start or 0) >= 0 or (end is not None and not end > (start or 0)):  # nan is neither
        raise VideoError(f"start must not be negative, and end must lie behind it, but they are {start} and {end}.")
    if not path.exists():
        raise VideoError(f"There is no video or folder of images at {path}.")
    if path.is_file() and path.suffix.lower() in PICTURE_SUFFIXES and count_frames(path) > 1:
        clip = _read_animation(path, num_frames, start, end, fps)
    elif path.is_dir() or path.suffix.lower() in PICTURE_SUFFIXES:
        if (start, end, fps) != (None, None, None):
            raise VideoError(f"{path} holds pictures, which have no times: start, end and fps are for videos.")
        clip = _read_pictures(path, num_frames)
    elif path.suffix.lower() in VIDEO_SUFFIXES:
        clip = _read_video(path, num_frames, start, end, fps)
    else:
        raise VideoError(
            f"{path} is not a supported video: pass a {', '.join(VIDEO_SUFFIXES)} file or a folder of"
            f" {', '.join(PICTURE_SUFFIXES)} images."
        )
    if num_frames is not None and len(clip) < num_frames:
        warnings.warn(f"{path} has only {len(clip)} of the {num_frames} frames asked for; using all.", stacklevel=2)
    return clip


def choose_frames(
    durations: np.ndarray,
    num_frames: int | None = None,
    start: float | None = None,
    end: float | None = None,
    fps: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Which frames to take, and for how long each of them is to be shown.

    `num_frames` moments lie evenly between the middle of the first frame's time and the middle of the last one's;
    with an even rate that is every n-th frame, first and last included.

    Args:
        durations: float [N] seconds that each frame of the source is shown.
        num_frames, start, end, fps: as for `read_clip`.

    Returns:
        numbers int [T], ascending, and durations float [T]; T is 0 where nothing is shown between start and end.
    """
    ends = np.cumsum(durations)
    begin, finish = start or 0.0, ends[-1] if end is None else min(end, ends[-1])
    shown = np.minimum(ends, finish) - np.maximum(ends - durations, begin)  # seconds within the part
    inside = np.flatnonzero(shown > 1e-9)
    if not len(inside):
        return inside, np.zeros(0)
    if fps is not None:
        count = max(1, round((finish - begin) * fps))
        moments = begin + (np.arange(count if num_frames is None else min(count, num_frames)) + 0.5) / fps
        moments = np.minimum(moments, (begin + finish) / 2 if count == 1 else finish)
    elif num_frames is None or num_frames >= len(inside):
        return inside, shown[inside]
    else:
        first, last = inside[0], inside[-1]
        moments = np.linspace(begin + shown[first] / 2, finish - shown[last] / 2, num_frames)
    # A moment just before a frame's end, within rounding, belongs to the next frame.
    numbers = np.clip(np.searchsorted(ends, moments + 1e-9, side="right"), inside[0], inside[-1])
    each = 1 / fps if fps is not None else (finish - begin) / len(moments)
    return numbers, np.full(len(moments), each)


def fit_scale(size: tuple[int, int], count: int, what: object) -> float:
    """By how much to make `count` frames of (width, height) smaller.

    Raises:
        VideoError: so many that they would become tiny.
    """
    longest = max(size)
    scale = min(1.0, MAX_SIDE / longest, (CLIP_BYTES / (4 * count * size[0] * size[1])) ** 0.5)
    if scale < 1 and scale * longest < min(MIN_SIDE, longest):
        raise VideoError(
            f"{what} has {count} frames of {size[0]} x {size[1]} pixels to read, too many for memory: take some with"
            " --num-frames, a part with --start and --end, or fewer a second with --fps."
        )
    return scale


def _read_pictures(path: Path, num_frames: int | None) -> Clip:
    files = list_pictures(path) if path.is_dir() else [path]
    if not files:
        raise VideoError(f"The folder {path} holds no {', '.join(PICTURE_SUFFIXES)} images.")
    numbers, _ = choose_frames(np.ones(len(files)), num_frames)
    chosen = [files[number] for number in numbers]
    sizes = [picture_size(file) for file in chosen]
    for file, (width, height) in zip(chosen, sizes, strict=True):
        if (width, height) != sizes[0]:
            raise VideoError(
                f"All images must have one size, but {chosen[0].name} is {sizes[0][0]} x {sizes[0][1]} and"
                f" {file.name} is {width} x {height} in {path}."
            )
    scale = fit_scale(sizes[0], len(chosen), path)
    pictures = [read_picture(file, scale) for file in chosen]
    opaque = [file.name for file, picture in zip(chosen, pictures, strict=True) if picture.shape[-1] == 3]
    if 0 < len(opaque) < len(chosen):
        warnings.warn(
            f"{len(opaque)} of {len(chosen)} pictures have no alpha, {opaque[0]} first: all of such a picture counts as"
            " the object",
            stacklevel=3,
        )
    return Clip(_stack(pictures), None, path, numbers, len(files))


def _read_animation(
    path: Path, num_frames: int | None, start: float | None, end: float | None, fps: float | None
) -> Clip:
    durations = read_durations(path)
    if durations is None and (start, end, fps) != (None, None, None):
        raise VideoError(f"{path} does not say when its frames are shown: start, end and fps cannot be used.")
    spans = np.ones(count_frames(path)) if durations is None else durations
    numbers, chosen = choose_frames(spans, num_frames, start, end, fps)
    if not len(numbers):
        raise VideoError(f"{path} lasts {spans.sum():.3f} s, so nothing of it is left from {start or 0} s on.")
    scale = fit_scale(picture_size(path), len(numbers), path)
    frames = _stack(list(read_animation(path, numbers.tolist(), scale)))
    if durations is None:
        return Clip(frames, None, path, numbers, len(spans))
    return Clip(frames, chosen, path, numbers, len(spans), (np.cumsum(spans) - spans)[numbers])


def _stack(pictures: list[np.ndarray]) -> np.ndarray:
    """[T, H, W, 3], or 4 where one of the pictures has alpha; the others become opaque."""
    if len({picture.shape[-1] for picture in pictures}) > 1:
        pictures = [np.pad(p, ((0, 0), (0, 0), (0, 4 - p.shape[-1])), constant_values=255) for p in pictures]
    return np.stack(pictures)


def _read_video(path: Path, num_frames: int | None, start: float | None, end: float | None, fps: float | None) -> Clip:
    # PyAV takes a tenth of a second to import, which a folder of pictures does not need.
    from ss4d.video.decode import HLG, PQ, read_frames, read_timeline

    try:
        timeline = read_timeline(path)
        known = timeline.durations is not None
        if not known and (start, end, fps) != (None, None, None):
            raise VideoError(f"{path} does not say when its frames are shown: start, end and fps cannot be used.")
        spans = timeline.durations if timeline.durations is not None else np.ones(len(timeline))
        numbers, durations = choose_frames(spans, num_frames, start, end, fps)
        if not len(numbers):
            raise VideoError(f"{path} lasts {spans.sum():.3f} s, so nothing of it is left from {start or 0} s on.")
        scale = fit_scale(timeline.size, len(numbers), path)
        pictures = read_frames(path, timeline, numbers.tolist(), scale)
        first = next(pictures)
        frames = np.empty((len(numbers), *first.shape), np.uint8)
        frames[0] = first
        for index, picture in enumerate(pictures, 1):
            frames[index] = picture
    except VideoError:
        raise
    except Exception as error:  # damaged files make FFmpeg and PyAV raise nearly everything
        raise VideoError(f"{path} cannot be read as a video ({_line(error)}); re-encode it to mp4.") from error
    if timeline.transfer in (PQ, HLG):
        kind = "PQ" if timeline.transfer == PQ else "HLG"
        warnings.warn(f"{path} is HDR ({kind}); its colours are mapped to SDR, highlights compressed.", stacklevel=3)
    begins = (np.cumsum(spans) - spans)[numbers]
    return Clip(frames, durations if known else None, path, numbers, len(timeline), begins if known else None)


def _line(error: Exception) -> str:
    return str(error).replace("\n", " ") or type(error).__name__
