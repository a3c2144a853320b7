"""A grid of inputs, methods and targets as in the paper's Figs. 4, 5 and 9-11.

A row per method and one for the target, a block of columns per object: the protocol's figure views at its figure
frames, above them the input. Pictures come from the results; nothing is generated again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ss4d.compositing import over_background
from ss4d.evaluation.options import FiguresOptions
from ss4d.evaluation.protocol import Protocol
from ss4d.evaluation.results import protocol_folder, result_folder
from ss4d.evaluation.subjects.open import open_subjects
from ss4d.evaluation.subjects.subject import Subject
from ss4d.video import crop_clip_rgba

Picture = NDArray[np.uint8]
LABEL_WIDTH, GAP = 230, 8  # pixels
DEFAULT_OBJECTS = 4


def run(options: FiguresOptions) -> list[str]:
    """Draw the grid into a file."""
    save_picture(draw(options), Path(options.out))
    return []


def save_picture(picture: Picture, path: Path) -> None:
    """Write an image file and print its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
    print(path)


def draw(options: FiguresOptions) -> Picture:
    """The whole grid, uint8 [H, W, 3].

    Raises:
        ValueError: an object or a method without results, named.
    """
    protocol, size = options.load_protocol(), options.size
    if size < 1 or not protocol.figure_frames:
        raise ValueError(f"size={size} and figure_frames={protocol.figure_frames} show nothing.")
    subjects = open_subjects(protocol, Path(options.data))
    names = options.objects or subjects.names()[:DEFAULT_OBJECTS]
    if unknown := sorted(set(names) - set(subjects.names())):
        raise ValueError(f"{options.data} has no object {unknown[0]} of protocol {protocol.name}.")
    folder = protocol_folder(Path(options.results), protocol)
    blocks = []
    for name in names:
        subject = subjects.load(name)
        if not cells(protocol, subject):
            raise ValueError(f"{name} has {len(subject.cameras)} views, none of figure_views={protocol.figure_views}.")
        folders = [result_folder(folder, method, name, options.seed) for method in options.methods]
        rows = [input_row(subject, protocol, size)]
        rows += [method_row(result, subject, protocol, size) for result in folders]
        rows += [] if subject.views is None else [target_row(subject, subject.views, protocol, size)]
        blocks.append(np.concatenate([np.pad(row, ((0, GAP), (0, 0), (0, 0)), constant_values=255) for row in rows]))
    labels = ["input", *options.methods, *(["truth"] if has_target(protocol) else [])]
    left = np.concatenate([label(text, size) for text in labels])
    gap = np.full((len(left), 2 * GAP, 3), 255, np.uint8)
    return np.concatenate([left, *(part for block in blocks for part in (block, gap))], axis=1)


def has_target(protocol: Protocol) -> bool:
    """Whether the protocol's data set has views from other sides."""
    return protocol.dataset != "davis"


def cells(protocol: Protocol, subject: Subject) -> list[tuple[int, int]]:
    """(view, frame) of the columns, by position; frames beyond the clip are its last, views beyond the last are left
    out."""
    views = protocol.figures_of(len(subject.cameras))
    return [(view, min(frame, subject.frames - 1)) for frame in protocol.figure_frames for view in views]


def input_row(subject: Subject, protocol: Protocol, size: int) -> Picture:
    """The input's figure frames, cropped as the models see them, each above the views of that frame."""
    cropped = torch.from_numpy(crop_clip_rgba(subject.video.numpy(), size))
    pictures = to_pictures(over_background(cropped, torch.tensor(protocol.background)))
    frames = [frame for _, frame in cells(protocol, subject)]
    blank = np.full((size, size, 3), 255, np.uint8)
    each = len(protocol.figures_of(len(subject.cameras)))
    return np.concatenate([pictures[f] if i % each == 0 else blank for i, f in enumerate(frames)], axis=1)


def method_row(folder: Path, subject: Subject, protocol: Protocol, size: int) -> Picture:
    """Pictures that a result kept; blank for a method that has no views."""
    if not folder.is_dir():
        raise ValueError(f"{subject.name}: {folder} is missing; run the evaluation of that method first.")
    row = []
    for view, frame in cells(protocol, subject):
        path = folder / f"view{view}_frame{frame}.png"
        image = Image.open(path).convert("RGB") if path.exists() else Image.new("RGB", (size, size), "white")
        row.append(np.asarray(image.resize((size, size), Image.Resampling.LANCZOS)))
    return np.concatenate(row, axis=1)


def target_row(subject: Subject, views: torch.Tensor, protocol: Protocol, size: int) -> Picture:
    """What the evaluation cameras see of the object."""
    row = []
    for view, frame in cells(protocol, subject):
        picture = to_pictures(over_background(views[view, frame], torch.tensor(protocol.background))[None])[0]
        row.append(np.asarray(Image.fromarray(picture).resize((size, size), Image.Resampling.LANCZOS)))
    return np.concatenate(row, axis=1)


def to_pictures(images: torch.Tensor) -> Picture:
    """[N, 3, H, W] in [0, 1] as uint8 [N, H, W, 3]."""
    return (255 * images).round().byte().movedim(1, -1).numpy()


def label(text: str, size: int) -> Picture:
    """A row's name, uint8 [size + GAP, LABEL_WIDTH, 3]."""
    image = Image.new("RGB", (LABEL_WIDTH, size + GAP), "white")
    font = ImageFont.load_default(16)
    ImageDraw.Draw(image).text((LABEL_WIDTH - 8, size // 2), text.replace("_", " "), "black", font, anchor="rm")
    return np.asarray(image)
