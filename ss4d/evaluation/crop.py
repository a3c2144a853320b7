"""Pictures over the background, cropped to the object (paper §5: "we crop all images using the ground truth bounding
box to mitigate the influence of background ratio on metrics")."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from ss4d.evaluation.protocol import Protocol


@dataclass(frozen=True)
class CropBox:
    """A rectangle in pixels, right and bottom excluded; it may reach outside the image."""

    left: int
    top: int
    width: int
    height: int


def object_box(alpha: Tensor, margin: float = 0.0, shape: str = "square") -> CropBox:
    """One box around all pixels of a video with alpha above one half in any frame (else: above 0).

    With one for all frames cropping moves nothing.

    Args:
        alpha: uint8 [T, H, W].
        margin: added on each side, as a share of the box's longer side.
        shape: "square", or "tight" for the rectangle itself.

    Raises:
        ValueError: no pixel is covered.
    """
    covered = alpha.amax(0)
    rows, columns = (_extent(covered, axis) for axis in (1, 0))
    if not len(rows):
        raise ValueError("The true pictures of a view show no object in any frame: leave the view or the object out.")
    top, bottom, left, right = (int(value) for value in (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1))
    longer = max(bottom - top, right - left)
    width, height = (longer, longer) if shape == "square" else (right - left, bottom - top)
    width, height = (side + 2 * round(margin * longer) for side in (width, height))
    return CropBox((left + right - width) // 2, (top + bottom - height) // 2, width, height)


def crop_videos(videos: list[Tensor], alpha: Tensor, protocol: Protocol) -> list[Tensor]:
    """Videos [T, 3, H, W] cropped to the object whose `alpha` [T, H, W] this is, as the protocol says.

    A frame without object has the box of the whole clip.
    """
    background, size = torch.tensor(protocol.background), protocol.crop_size
    whole = object_box(alpha, protocol.crop_margin, protocol.crop_shape)
    if protocol.crop_per == "clip":
        return [crop(images, whole, size, background, protocol.crop_filter) for images in videos]
    boxes = [
        object_box(frame[None], protocol.crop_margin, protocol.crop_shape) if frame.any() else whole for frame in alpha
    ]
    return [
        torch.cat(
            [
                crop(image[None], box, size, background, protocol.crop_filter)
                for image, box in zip(images, boxes, strict=True)
            ]
        )
        for images in videos
    ]


def _extent(covered: Tensor, axis: int) -> Tensor:
    strongest = covered.amax(axis)
    return (strongest > 127).nonzero().flatten() if (strongest > 127).any() else strongest.nonzero().flatten()


def crop(images: Tensor, box: CropBox, size: int, background: Tensor, mode: str = "bilinear") -> Tensor:
    """The box of images [T, 3, H, W] as [T, 3, size, size], `background` [3] outside; all but "nearest" antialiased."""
    height, width = images.shape[-2:]
    right, bottom = box.left + box.width - width, box.top + box.height - height
    margins = [max(0, -box.left), max(0, right), max(0, -box.top), max(0, bottom)]
    # Padding takes one number, so the background is what images are relative to.
    relative = pad(images - background[:, None, None], margins)
    left, top = max(0, box.left), max(0, box.top)
    part = relative[..., top : top + box.height, left : left + box.width]
    if (box.height, box.width) != (size, size):
        smooth = {} if mode == "nearest" else {"antialias": True, "align_corners": False}
        part = interpolate(part, (size, size), mode=mode, **smooth)
    return (part + background[:, None, None]).clamp(0, 1)
