"""Another method's results: a folder of rendered views, or of Gaussians as PLY files.

    RESULTS/<object>/protocol.txt                     the protocol's hash, as `write_inputs` leaves it
    RESULTS/<object>/views/<view>/<frame>.png         square, RGB or RGBA; or .npy, [S, S, 3 or 4] in [0, 1]
    RESULTS/<object>/gaussians/<frame>.ply            instead of views

An object's `/` is `__`, views and frames are numbered from 0 and sort naturally (0, 1, ..., 10). Alpha is straight, not
premultiplied; RGB stands over the protocol's background. Whatever does not fit the protocol is refused, with the object
and the file.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ss4d.evaluation.misread import check_alpha, check_background, frame_numbers
from ss4d.evaluation.protocol import Protocol
from ss4d.evaluation.results import check_hash
from ss4d.evaluation.subjects.subject import Subject, file_name
from ss4d.files import natural_key
from ss4d.gaussians import GaussianSequence
from ss4d.gaussians.gaussians import TENSORS
from ss4d.gaussians.ply import Up, has_higher_harmonics, read_ply
from ss4d.video.pictures import read_picture

HASH_FILE = "protocol.txt"
T = TypeVar("T")


def open_object(root: Path, subject: Subject, protocol: Protocol) -> Path:
    """The folder of an object, its protocol hash checked.

    Raises:
        ValueError: it is not there, or was made by another protocol.
    """
    folder = root / file_name(subject.name)
    path = folder / HASH_FILE
    if not path.is_file():
        raise ValueError(f"{subject.name}: {path} is missing; it holds the hash of the protocol, {protocol.hash()}.")
    check_hash(path.read_text().strip(), protocol, subject.name, path)
    return folder


def files_of(root: Path, name: str, kind: str) -> list[Path]:
    """All files of an object's result of a kind, "views", "gaussians" or "meshes"."""
    return [path for path in (root / file_name(name) / kind).rglob("*") if path.is_file()]


def read_views(root: Path, subject: Subject, protocol: Protocol) -> Tensor:
    """The rendered views of an object, float32 [V, T, 3, S, S] in [0, 1] over the protocol's background.

    Raises:
        ValueError: a missing view, a wrong size or number of frames, values that are not finite.
    """
    folder = open_object(root, subject, protocol) / "views"
    views = []
    there = {p for p in folder.iterdir() if p.is_dir()} if folder.is_dir() else set()
    for number in range(len(subject.cameras)):
        found = sorted(there & {folder / f"{number:03d}", folder / str(number)})
        if not found:
            raise ValueError(f"{subject.name}: the folder {folder / f'{number:03d}'} of view {number} is missing.")
        there -= {view := found[0]}
        files = frame_files(view, (".png", ".npy"), subject)
        views.append(torch.stack([_read_image(file, subject, protocol) for file in files]))
    if there:
        raise ValueError(
            f"{subject.name}: {min(there)} is none of the {len(views)} views of the protocol: were others rendered?"
        )
    return torch.stack(views)


def read_gaussians(root: Path, subject: Subject, protocol: Protocol, up: Up | None) -> GaussianSequence:
    """The Gaussians of an object, one per frame, turned from the files' axes to ours.

    Raises:
        ValueError: a wrong number of frames, a file that is no Gaussian PLY, values that are not finite.
    """
    folder = open_object(root, subject, protocol) / "gaussians"
    frames = []
    for file in frame_files(folder, (".ply",), subject):
        gaussians = named(subject, partial(read_ply, file, up))
        if named(subject, partial(has_higher_harmonics, file)):
            raise ValueError(
                f"{subject.name}: {file} has colours that depend on the view (spherical harmonics above degree 0), "
                "which would be lost: render it and give views, or train it with degree 0."
            )
        if not all(bool(torch.isfinite(getattr(gaussians, name)).all()) for name in TENSORS):
            raise ValueError(f"{subject.name}: {file} has values that are not finite.")
        frames.append(gaussians)
    return GaussianSequence(frames)


def frame_files(folder: Path, suffixes: tuple[str, ...], subject: Subject) -> list[Path]:
    """One file per frame, sorted naturally.

    Raises:
        ValueError: a wrong number of frames, or numbers with a gap or a late start.
    """
    there = list(folder.iterdir()) if folder.is_dir() else []
    there = [file for file in there if not file.name.startswith(".")]
    files = sorted((file for file in there if file.suffix in suffixes), key=natural_key)
    if len(files) != subject.frames:
        raise ValueError(f"{subject.name}: {folder} has {len(files)} frames, but the input has {subject.frames}.")
    numbers = named(subject, partial(frame_numbers, files))
    if numbers[0] > 1:
        raise ValueError(f"{subject.name}: the frames in {folder} begin with {numbers[0]}: number them from 0.")
    return files


def _read_image(file: Path, subject: Subject, protocol: Protocol) -> Tensor:
    """float32 [3, S, S]."""
    if file.suffix == ".npy":
        pixels = torch.from_numpy(named(subject, lambda: _read_array(file))).float()
    else:
        pixels = torch.from_numpy(named(subject, lambda: read_picture(file)).copy()).float() / 255
    if tuple(pixels.shape[:2]) != (protocol.size, protocol.size) or pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        size = " x ".join(str(side) for side in pixels.shape)
        raise ValueError(f"{subject.name}: {file} is {size}, but the protocol asks for {protocol.size} pixels square.")
    if not bool(torch.isfinite(pixels).all()) or pixels.min() < 0 or pixels.max() > 1:
        raise ValueError(f"{subject.name}: {file} has values that are not finite or not in [0, 1].")
    background = torch.tensor(protocol.background)
    colours, alpha = pixels[..., :3], pixels[..., 3:]
    if alpha.numel():
        named(subject, lambda: check_alpha(pixels.numpy(), file))
        colours = alpha * colours + (1 - alpha) * background
    image = colours.movedim(-1, 0)
    named(subject, lambda: check_background(image, background, file))
    return image


def _read_array(file: Path) -> np.ndarray:
    """The array of a .npy file.

    Raises:
        ValueError: it is damaged, or its values are no real numbers.
    """
    try:
        array = np.load(file, allow_pickle=False)
    except EOFError as error:
        raise ValueError(f"{file} is empty") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        raise ValueError(f"{file} does not hold an array of real numbers")
    return array


def named(subject: Subject, read: Callable[[], T]) -> T:
    """The result of `read`; its error gets the object's name."""
    try:
        return read()
    except (ValueError, OSError) as error:
        raise ValueError(f"{subject.name}: {error}") from error
