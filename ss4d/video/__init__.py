"""Video in and out: reading clips, finding their object, writing results."""

from ss4d.video.foreground import (
    Box,
    ForegroundError,
    clip_crop_box,
    crop_clip,
    crop_clip_rgba,
    find_foreground,
    key_background,
)
from ss4d.video.read import Clip, VideoError, read_clip
from ss4d.video.write import write_video

__all__ = [
    "Box",
    "Clip",
    "ForegroundError",
    "VideoError",
    "clip_crop_box",
    "crop_clip",
    "crop_clip_rgba",
    "find_foreground",
    "key_background",
    "read_clip",
    "write_video",
]
