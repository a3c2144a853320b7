"""Pictures over the background, cropped to the object (paper §5: "we crop all images using the ground truth bounding
box to mitigate the influence of background ratio on metrics")."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import interpolate, pad


@dataclass(frozen=True)
class CropBox:
    """A square in pixels, right and bottom excluded; it may reach outside the image."""

    left: int
    top: int
    side: int


def object_box(alpha: Tensor, margin: float = 0.0) -> CropBox:
    """One square for a whole video around all pixels with alpha above one half in any frame (else: above 0).

    It is one box for all frames, so that cropping moves nothing.

    Args:
        alpha: uint8 [T, H, W].
        margin: added on each side, as a share of the box's side.

    Raises:
        ValueError: no pixel is covered.
    """
    covered = alpha.amax(0)
    rows, columns = (_extent(covered, axis) for axis in (1, 0))
    if not len(rows):
        raise ValueError("The true pictures of a view show no object in any frame: leave the view or the object out.")
    top, bottom, left, right = (int(value) for value in (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1))
    side = max(bottom - top, right - left)
    side += 2 * round(margin * side)
    return CropBox((left + right - side) // 2, (top + bottom - side) // 2, side)


def _extent(covered: Tensor, axis: int) -> Tensor:
    strongest = covered.amax(axis)
    return (strongest > 127).nonzero().flatten() if (strongest > 127).any() else strongest.nonzero().flatten()


def crop(images: Tensor, box: CropBox, size: int, background: Tensor) -> Tensor:
    """The box of images [T, 3, H, W] as [T, 3, size, size] (bilinear, antialiased), `background` [3] outside."""
    height, width = images.shape[-2:]
    right, bottom = box.left + box.side - width, box.top + box.side - height
    margins = [max(0, -box.left), max(0, right), max(0, -box.top), max(0, bottom)]
    # Padding takes one number, so the background is what images are relative to.
    relative = pad(images - background[:, None, None], margins)
    left, top = max(0, box.left), max(0, box.top)
    part = relative[..., top : top + box.side, left : left + box.side]
    if box.side != size:
        part = interpolate(part, (size, size), mode="bilinear", antialias=True, align_corners=False)
    return (part + background[:, None, None]).clamp(0, 1)
