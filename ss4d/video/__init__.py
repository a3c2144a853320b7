"""Video in and out: reading clips, finding their object, writing results."""

from ss4d.video.errors import ForegroundError, VideoError
from ss4d.video.foreground import (
    Box,
    clip_crop_box,
    crop_clip_rgba,
    cropped_frames,
    find_foreground,
    key_background,
)
from ss4d.video.masks import read_masks
from ss4d.video.matting import remove_background
from ss4d.video.preview import foreground_warnings, write_preview
from ss4d.video.read import Clip, read_clip
from ss4d.video.stored import let_go, stored
from ss4d.video.write import write_video

__all__ = [
    "Box",
    "Clip",
    "ForegroundError",
    "VideoError",
    "clip_crop_box",
    "crop_clip_rgba",
    "cropped_frames",
    "find_foreground",
    "foreground_warnings",
    "key_background",
    "let_go",
    "read_clip",
    "read_masks",
    "remove_background",
    "stored",
    "write_preview",
    "write_video",
]
