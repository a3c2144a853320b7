"""The pictures of a prepared clip: one zip archive of views with depth, conditioning videos and cameras.

Layout: docs/data.md. Members are stored with fixed time stamps, so equal pictures give equal files.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

EMPTY_DEPTH = 65535  # no surface along the ray


@dataclass(frozen=True)
class View:
    """A camera of the archive, the same for all frames."""

    extrinsics: Sequence[Sequence[float]]  # [4][4] world to camera, OpenCV
    intrinsics: Sequence[Sequence[float]]  # [3][3] in units of the image size
    azimuth: float  # degrees
    elevation: float
    fov: float  # before any crop
    radius: float
    yaw: int | None = 0  # conditioning videos: the multiple of 90 degrees that counts as their front; None: none does


@dataclass(frozen=True)
class Cameras:
    """`extrinsics` [V, 4, 4] and `intrinsics` [V, 3, 3], float32."""

    extrinsics: NDArray[np.float32]
    intrinsics: NDArray[np.float32]


@dataclass(frozen=True)
class ViewIndex:
    """`transforms.json`: all that an archive says beside its pictures."""

    frames: int
    size: int  # pixels of the views
    cond_size: int  # pixels of the conditioning videos
    scale: float
    centre: Sequence[float]
    depth_range: Sequence[float]  # near, far
    views: Sequence[View]
    cond: Sequence[View]


class ViewArchive:
    """Reads an archive; safe to pickle and to use in several processes, each opens the file for itself.

    Raises:
        ValueError: a missing or damaged archive, named with the remedy.
    """

    def __init__(self, path: Path):
        self.path = path

    @cached_property
    def index(self) -> ViewIndex:
        content = json.loads(self._read("transforms.json"))
        views, cond = ([View(**view) for view in content.pop(name)] for name in ("views", "cond"))
        return ViewIndex(**content, views=views, cond=cond)

    @cached_property
    def cameras(self) -> Cameras:
        """Cameras of the views."""
        return _cameras(self.index.views)

    @cached_property
    def cond_cameras(self) -> Cameras:
        """Cameras of the conditioning videos."""
        return _cameras(self.index.cond)

    def view(self, view: int, frame: int) -> NDArray[np.uint8]:
        """RGBA [S, S, 4], straight alpha."""
        return _decode(self._read(f"views/{view:03d}/{frame:03d}.webp"))

    def cond(self, view: int, frame: int) -> NDArray[np.uint8]:
        """RGBA [C, C, 4] of a conditioning video, straight alpha."""
        return _decode(self._read(f"cond/{view:03d}/{frame:03d}.webp"))

    def depth(self, view: int, frame: int) -> NDArray[np.float32]:
        """Distance along the optical axis [S, S] in world units, infinite where nothing is."""
        with Image.open(io.BytesIO(self._read(f"depth/{view:03d}/{frame:03d}.png"))) as picture:
            stored = np.asarray(picture).astype(np.float32)
        near, far = self.index.depth_range
        return np.where(stored == EMPTY_DEPTH, np.inf, near + stored * ((far - near) / (EMPTY_DEPTH - 1))).astype("f4")

    def _read(self, name: str) -> bytes:
        try:
            return self._file.read(name)
        except (KeyError, zipfile.BadZipFile) as error:
            raise ValueError(f"{self.path} is damaged ({error}): delete it and run the render stage again") from error

    @cached_property
    def _file(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except FileNotFoundError as error:
            raise ValueError(
                f"{self.path} is missing, though the tables list it: run the render stage again"
            ) from error
        except zipfile.BadZipFile as error:
            raise ValueError(f"{self.path} is damaged ({error}): delete it and run the render stage again") from error

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}


class ViewArchiveWriter:
    """Writes an archive picture by picture; use as a context manager."""

    def __init__(self, path: Path, index: ViewIndex):
        self.index = index
        self._file = zipfile.ZipFile(path, "w")
        self._write("transforms.json", (json.dumps(asdict(index), indent=1) + "\n").encode())

    def add_view(self, view: int, frame: int, rgba: NDArray[np.uint8], depth: NDArray[np.floating]) -> None:
        """`rgba` uint8 [S, S, 4] and `depth` [S, S] in world units, infinite where nothing is."""
        near, far = self.index.depth_range
        scaled = np.round((np.where(np.isfinite(depth), depth, near) - near) * ((EMPTY_DEPTH - 1) / (far - near)))
        stored = np.where(np.isfinite(depth), np.clip(scaled, 0, EMPTY_DEPTH - 1), EMPTY_DEPTH).astype(np.uint16)
        buffer = io.BytesIO()
        Image.fromarray(stored).save(buffer, "PNG", compress_level=1)
        self._write(f"depth/{view:03d}/{frame:03d}.png", buffer.getvalue())
        self._write(f"views/{view:03d}/{frame:03d}.webp", _encode(rgba))

    def add_cond(self, view: int, frame: int, rgba: NDArray[np.uint8]) -> None:
        """`rgba` uint8 [C, C, 4]."""
        self._write(f"cond/{view:03d}/{frame:03d}.webp", _encode(rgba))

    def _write(self, name: str, content: bytes) -> None:
        self._file.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content)

    def __enter__(self) -> ViewArchiveWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def _cameras(views: Sequence[View]) -> Cameras:
    return Cameras(
        np.array([view.extrinsics for view in views], np.float32).reshape(-1, 4, 4),
        np.array([view.intrinsics for view in views], np.float32).reshape(-1, 3, 3),
    )


def _encode(rgba: NDArray[np.uint8]) -> bytes:
    """Lossless WebP of [S, S, 4]; colours are kept where alpha is 0."""
    buffer = io.BytesIO()
    Image.fromarray(rgba).save(buffer, "WEBP", lossless=True, quality=50, method=1, exact=True)
    return buffer.getvalue()


def _decode(content: bytes) -> NDArray[np.uint8]:
    """RGBA [S, S, 4]."""
    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture.convert("RGBA"))
