"""What will go into the models, before they run: a picture of it, and warnings where it is likely to go wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from ss4d.files import written_atomically
from ss4d.result_folder import PREVIEW_MARK
from ss4d.video.foreground import clip_crop_box, crop_clip_rgba
from ss4d.video.read import Clip

SOLID = 128  # alpha from which a pixel counts as object
MAX_COLUMNS = 8
PANEL = 192  # pixels, height and width of a picture in the preview
MARGIN = 6
CHECKER = 12
BOX_COLOUR = (230, 40, 40)
BORDER_SHARE = 0.01  # share of the border's pixels that an object covers when it counts as touching it
INVERTED_SHARE = 0.95
OTHER_SHARE = 0.2  # of the largest component, from which a second one counts as an object
FLICKER = 0.3  # share by which a mask's area differs from that of both neighbours


def write_preview(path: Path, clip: Clip | np.ndarray, rgba: np.ndarray) -> None:
    """Write a picture of the chosen frames, with the crop drawn, above the cut-outs that the models will see.

    Args:
        path: the .png file.
        clip: the clip or its frames, uint8 [T, H, W, 3 or 4].
        rgba: uint8 [T, H, W, 4], what `find_foreground` made of it.
    """
    import imageio.v3 as imageio

    frames = clip.frames if isinstance(clip, Clip) else clip
    shown = np.unique(np.linspace(0, len(frames) - 1, min(MAX_COLUMNS, len(frames))).round().astype(int))
    cutouts = crop_clip_rgba(rgba, PANEL, shown)
    box = clip_crop_box(rgba[..., 3])
    step = PANEL + MARGIN
    sheet = Image.new("RGB", (step * len(shown) + MARGIN, 2 * step + MARGIN), "white")
    for column, number in enumerate(shown):
        left = MARGIN + column * step
        panel = _with_box(frames[number], box)
        _label(panel, _caption(clip, number))
        sheet.paste(panel, (left, MARGIN))
        sheet.paste(_on_checkerboard(cutouts[column]), (left, MARGIN + step))
    mark = PngImagePlugin.PngInfo()
    mark.add_text("Software", PREVIEW_MARK.decode())
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_atomically(path) as temporary:
        imageio.imwrite(temporary, np.asarray(sheet), plugin="pillow", extension=".png", pnginfo=mark)


def _caption(clip: Clip | np.ndarray, number: int) -> str:
    if not isinstance(clip, Clip):
        return f"frame {number}"
    if clip.times is None:
        return f"frame {clip.frame_numbers[number]}"
    return f"frame {clip.frame_numbers[number]}, {clip.times[number]:.2f} s"


def _with_box(frame: np.ndarray, box: tuple[int, int, int, int]) -> Image.Image:
    """A frame [H, W, C] scaled into the panel, with the crop drawn."""
    height, width = frame.shape[:2]
    scale = PANEL / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = _on_checkerboard(np.asarray(Image.fromarray(frame).convert("RGBA").resize(size, Image.Resampling.LANCZOS)))
    panel = Image.new("RGB", (PANEL, PANEL), (235, 235, 235))
    offset = ((PANEL - size[0]) // 2, (PANEL - size[1]) // 2)
    panel.paste(small, offset)
    corners = [offset[k % 2] + scale * value for k, value in enumerate(box)]
    ImageDraw.Draw(panel).rectangle(corners, outline=BOX_COLOUR, width=2)
    return panel


def _on_checkerboard(rgba: np.ndarray) -> Image.Image:
    """[H, W, 4] over light and dark squares."""
    rows, columns = np.indices(rgba.shape[:2]) // CHECKER
    board = np.where((rows + columns) % 2, 205, 245)[..., None].astype(np.float32)
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return Image.fromarray((rgba[..., :3] * alpha + board * (1 - alpha)).round().astype(np.uint8))


def _label(panel: Image.Image, text: str) -> None:
    draw = ImageDraw.Draw(panel)
    font = ImageFont.load_default(11)
    draw.rectangle((0, PANEL - 15, draw.textlength(text, font=font) + 6, PANEL), fill="white")
    draw.text((3, PANEL - 14), text, fill=(60, 60, 60), font=font)


def foreground_warnings(rgba: np.ndarray, clip: Clip | None = None) -> list[str]:
    """Sentences about what is likely to spoil a result, each with a suggestion.

    Args:
        rgba: uint8 [T, H, W, 4], what `find_foreground` made of a clip.
        clip: that clip; frames then have the numbers that they have in its source, as in the preview.
    """
    solid = rgba[..., 3] >= SOLID
    names = FrameNames(range(len(rgba)) if clip is None else clip.frame_numbers.tolist())
    part = "take those pictures away" if clip is not None and clip.times is None else "choose a part (--start, --end)"
    found = [
        _border_warning(solid, names, part),
        _absence_warning(solid, names, part),
        _number_warning(solid, names),
        _flicker_warning(solid, names),
    ]
    return [sentence for sentence in found if sentence]


@dataclass(frozen=True)
class FrameNames:
    """What frames are called in a sentence."""

    numbers: Sequence[int]  # in the source

    def __call__(self, places: list[int]) -> str:
        names = ", ".join(str(self.numbers[place]) for place in places[:4]) + (" ..." if len(places) > 4 else "")
        return f"frame{'s' if len(places) > 1 else ''} {names}"


def _border_warning(solid: np.ndarray, names: FrameNames, part: str) -> str | None:
    edges = [solid[:, 0], solid[:, -1], solid[:, 1:-1, 0], solid[:, 1:-1, -1]]
    share = np.concatenate(edges, axis=1).mean(axis=1)
    if (share > INVERTED_SHARE).all():
        return (
            "The mask or alpha covers the whole border of the picture: if it shows the background, invert it; if it is"
            " not meant, leave it out."
        )
    if touching := np.flatnonzero(share > BORDER_SHARE).tolist():
        return (
            f"The object touches the border of the picture in {names(touching)}, and what lies outside is not seen:"
            f" leave some room around it, or {part}."
        )
    return None


def _absence_warning(solid: np.ndarray, names: FrameNames, part: str) -> str | None:
    if absent := np.flatnonzero(~solid.any(axis=(1, 2))).tolist():
        return f"No object is seen in {names(absent)}, and the result is empty there: {part}."
    return None


def _number_warning(solid: np.ndarray, names: FrameNames) -> str | None:
    from scipy import ndimage

    several = []
    for t, mask in enumerate(solid):
        sizes = np.sort(np.bincount(ndimage.label(mask, np.ones((3, 3)))[0].ravel())[1:])
        if len(sizes) > 1 and sizes[-2] > OTHER_SHARE * sizes[-1]:
            several.append(t)
    if 2 * len(several) > len(solid):
        return (
            f"Several separate objects are seen in {names(several)}, and the models know one:"
            " pass masks of the one that is meant (--mask DIR)."
        )
    return None


def _flicker_warning(solid: np.ndarray, names: FrameNames) -> str | None:
    area = solid.sum(axis=(1, 2)).astype(float)
    if len(area) < 3:
        return None
    lower, upper = np.minimum(area[:-2], area[2:]), np.maximum(area[:-2], area[2:])
    jumps = (area[1:-1] < (1 - FLICKER) * lower) | (area[1:-1] > (1 + FLICKER) * upper)
    jumps &= (lower > 0) & (area[1:-1] > 0)  # where no object is seen, another sentence says so
    if flickering := (np.flatnonzero(jumps) + 1).tolist():
        return (
            f"The mask flickers in {names(flickering)}: pass masks of a tracker such as SAM 2 (--mask DIR) or, if a"
            " model cut the object out, try another one (--matting-model)."
        )
    return None
