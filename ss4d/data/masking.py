"""Random masking of conditioning videos: black occluders and motion blur (paper §4.3), and their fixed test (Fig. 7).

Pictures are on black, so what is covered looks as if the object were not there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate, pad

SHAPES = ("rectangle", "ellipse", "bar")
LARGEST_TURN = math.pi / 4  # of an occluder over a clip
LEAST_MOVEMENT = 0.003  # of the object between frames, in picture sides; below it has no direction to speak of


@dataclass(frozen=True)
class MaskingSettings:
    """The `data.masking` section of the config; configs/train.yaml says what each means.

    Raises:
        ValueError: a chance outside of [0, 1], or a range that is none.
    """

    probability: float
    moving: float
    most_moving: int
    independent: float
    size: Sequence[float]
    blur: float
    blur_length: Sequence[float]

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ("size", "blur_length"):
                if len(value) != 2 or not 0 < value[0] <= value[1]:
                    raise ValueError(f"data.masking.{field.name} = {list(value)} must be [least, most], above 0")
            elif field.name == "most_moving":
                if value < 1:
                    raise ValueError(f"data.masking.most_moving = {value} must be at least 1")
            elif not 0 <= value <= 1:
                raise ValueError(f"data.masking.{field.name} = {value} must be a chance between 0 and 1")


def mask_video(images: Tensor, settings: MaskingSettings, generator: np.random.Generator) -> Tensor:
    """A clip with occluders and motion blur, or as it is: whether, and what, is drawn from the generator.

    Args:
        images: float32 [T, 3 or 4, S, S] in [0, 1], on black; alpha is covered and blurred as colours are.

    Returns:
        The same shape and range; the input itself where nothing is drawn.
    """
    box = _object_box(images.amax(1) > 0)
    if generator.random() >= settings.probability or box is None:
        return images
    masked = _blur_frames(images, settings, generator)
    visible = torch.ones_like(images[:, 0], dtype=torch.bool)
    if generator.random() < settings.moving:
        for _ in range(generator.integers(1, settings.most_moving + 1)):
            for frame, occluder in enumerate(_moving(_draw_occluder(box, settings, generator), box, images, generator)):
                visible[frame] &= occluder.distance(images.shape[-1]) > 1
    for frame in range(len(images)):
        if generator.random() < settings.independent:
            visible[frame] &= _draw_occluder(box, settings, generator).distance(images.shape[-1]) > 1
    return masked * visible[:, None]


def moving_occluder(images: Tensor, foreground: Tensor, share: float, generator: np.random.Generator) -> Tensor:
    """A clip behind a black ellipse that moves across it and in every frame covers a fixed share of the object.

    The ellipse grows and shrinks as the object behind it asks for: among those around one centre, the smallest that
    covers so many pixels is taken, so the share is off by pixels at one and the same distance alone.

    Args:
        images: float32 [T, 3, S, S] on black.
        foreground: bool [T, S, S], the object's pixels; a frame without any stays as it is.
        share: of them, in (0, 1).

    Raises:
        ValueError: a share outside of (0, 1), or a foreground of another shape.
    """
    if not 0 < share < 1:
        raise ValueError(f"share = {share} must lie between 0 and 1")
    if foreground.shape != images[:, 0].shape or foreground.dtype != torch.bool:
        raise ValueError(f"foreground must be bool {list(images[:, 0].shape)}, got {list(foreground.shape)}")
    box = _object_box(foreground)
    if box is None:
        return images
    half = np.array([1.0, generator.uniform(0.6, 1.0)])
    occluder = Occluder("ellipse", box.mean(0), half, generator.uniform(0, math.pi))
    masked = images.clone()
    for frame, placed in enumerate(_moving(occluder, box, images, generator)):
        distance = placed.distance(images.shape[-1])
        inside = distance[foreground[frame]]
        if count := round(share * len(inside)):
            masked[frame] *= distance > inside.kthvalue(count).values
    return masked


def contact_sheet(clips: Tensor, columns: int = 8, side: int = 96) -> NDArray[np.uint8]:
    """Clips [B, T, 3, S, S] in [0, 1] as one picture, uint8 [B * side, min(columns, T) * side, 3].

    A row is a clip; where it has more frames than there are columns, these are spread over it.
    """
    frames = np.linspace(0, clips.shape[1] - 1, min(columns, clips.shape[1])).round().astype(int)
    shown = interpolate(clips[:, torch.tensor(frames)].flatten(0, 1), (side, side), mode="area")
    tiles = shown.unflatten(0, (len(clips), -1)).permute(0, 3, 1, 4, 2)  # [B, side, T, side, 3]
    return (255 * tiles.flatten(2, 3).flatten(0, 1).clamp(0, 1)).round().byte().numpy()


@dataclass(frozen=True)
class Occluder:
    """A shape in a picture: `centre` (x, y) and `half` lengths of its axes in pixels, turned by `angle` radians."""

    shape: str
    centre: NDArray[np.float64]
    half: NDArray[np.float64]
    angle: float

    def distance(self, size: int) -> Tensor:
        """How far out each pixel's middle is, float64 [size, size]: 1 at the edge, less inside.

        The shapes of a given distance are scaled copies of one another.
        """
        middle = torch.arange(size, dtype=torch.float64) + 0.5
        x, y = (middle - self.centre[0])[None], (middle - self.centre[1])[:, None]
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        u, v = (cos * x + sin * y) / self.half[0], (cos * y - sin * x) / self.half[1]
        return torch.hypot(u, v) if self.shape == "ellipse" else torch.maximum(u.abs(), v.abs())


def _draw_occluder(box: NDArray[np.float64], settings: MaskingSettings, generator: np.random.Generator) -> Occluder:
    """An occluder somewhere on the object with this box [2, 2]; a bar crosses all of it, a rectangle is upright."""
    shape, sides = str(generator.choice(SHAPES)), box[1] - box[0]
    centre, size = generator.uniform(box[0], box[1]), generator.uniform(settings.size[0], settings.size[1])
    width = size * math.sqrt(sides.prod())
    aspect, angle = 2 ** generator.uniform(-0.5, 0.5), generator.uniform(0, math.pi)
    if shape == "bar":
        return Occluder(shape, centre, np.array([2 * sides.max(), width / 4]), angle)
    half = np.array([aspect, 1 / aspect]) * width / 2
    return Occluder(shape, centre, half, 0.0 if shape == "rectangle" else angle)


def _moving(
    occluder: Occluder, box: NDArray[np.float64], images: Tensor, generator: np.random.Generator
) -> list[Occluder]:
    """The occluder in each frame of images [T, C, S, S]: it moves from one half of the object's box [2, 2] to the other
    and turns slowly."""
    axis, middle = int(generator.integers(2)), box.mean(0)
    low, high = box.copy(), box.copy()
    low[1, axis] = high[0, axis] = middle[axis]
    ends = [generator.uniform(low[0], low[1]), generator.uniform(high[0], high[1])]
    start, end = ends if generator.random() < 0.5 else ends[::-1]
    turn = generator.uniform(-LARGEST_TURN, LARGEST_TURN)
    steps = np.linspace(0, 1, len(images))
    return [
        replace(occluder, centre=start + step * (end - start), angle=occluder.angle + float(step) * turn)
        for step in steps
    ]


def _object_box(foreground: Tensor) -> NDArray[np.float64] | None:
    """Corners ((x, y) low, (x, y) high) of what is seen of the object, bool [T, S, S], over the whole clip."""
    seen = foreground.any(0).nonzero().flip(1)
    if not len(seen):
        return None
    return torch.stack([seen.amin(0), seen.amax(0) + 1]).double().numpy()


def _blur_frames(images: Tensor, settings: MaskingSettings, generator: np.random.Generator) -> Tensor:
    """Images [T, C, S, S] with some frames blurred: along the object's movement, or for half of all clips in one random
    direction."""
    shortest, longest = settings.blur_length
    length = images.shape[-1] * generator.uniform(shortest, longest)
    random_angle, own = generator.uniform(0, math.pi), generator.random() < 0.5
    angles = _movement_angles(images, random_angle) if own else np.full(len(images), random_angle)
    blurred = images.clone()
    for frame, angle in enumerate(angles):
        if generator.random() < settings.blur:
            blurred[frame] = motion_blur(images[frame], float(angle), length)
    return blurred


def _movement_angles(images: Tensor, otherwise: float) -> NDArray[np.float64]:
    """Direction of the brightness' centre from the frame before to the one after, [T] radians."""
    light = images.sum(1).double()
    total = light.sum((1, 2)).clamp_min(1e-9)
    middle = torch.arange(images.shape[-1], dtype=torch.float64) + 0.5
    centres = torch.stack([(light.sum(1) * middle).sum(1), (light.sum(2) * middle).sum(1)], 1) / total[:, None]
    if len(centres) < 2:
        return np.full(len(centres), otherwise)
    step = np.gradient(centres.numpy(), axis=0)
    angles = np.arctan2(step[:, 1], step[:, 0])
    return np.where(np.hypot(*step.T) < LEAST_MOVEMENT * images.shape[-1], otherwise, angles)


def motion_blur(image: Tensor, angle: float, length: float) -> Tensor:
    """Average of a picture [3, S, S] over shifts of -length / 2 to length / 2 pixels along `angle` radians (x to y).

    The sum of all pixels stays what it was, but for light that leaves the picture.
    """
    kernel = _line_kernel(angle, length)
    radius, size = len(kernel) // 2, image.shape[-1]
    padded, out = pad(image, [radius] * 4), torch.zeros_like(image)
    for row, column in kernel.nonzero().tolist():  # few beside a line: quicker than a convolution with the square
        out += kernel[row, column] * padded[:, row : row + size, column : column + size]
    return out


def _line_kernel(angle: float, length: float) -> Tensor:
    """Weights of a line about the centre of a square of pixels, float32 [K, K], sum 1."""
    radius, count = math.ceil(length / 2) + 1, 2 * math.ceil(length) + 1
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1))
    along = np.linspace(-length / 2, length / 2, count)
    x, y = radius + along * math.cos(angle), radius + along * math.sin(angle)
    column, row = np.floor(x).astype(int), np.floor(y).astype(int)
    for right in (0, 1):
        for down in (0, 1):
            weight = abs(1 - right - (x - column)) * abs(1 - down - (y - row))
            np.add.at(kernel, (row + down, column + right), weight)
    return torch.tensor(kernel / kernel.sum(), dtype=torch.float32)
