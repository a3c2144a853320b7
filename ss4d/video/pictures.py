"""Pictures from files, as they are meant: upright, 16-bit grey scaled, too large ones reduced while they are read.

Pillow is used directly: masks need the indices of a palette, which imageio turns into colours, and very large pictures
are reduced in strips, without a second copy of their pixels.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

from ss4d.files import natural_key
from ss4d.video.errors import VideoError

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
MAX_PIXELS = 400_000_000  # a decoded picture takes four bytes for each
STRIP_ROWS = 512
ORIENTATION_TAG = 0x0112
ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def list_pictures(folder: Path) -> list[Path]:
    """The picture files of a folder in natural order: frame9 comes before frame10."""
    visible = (file for file in folder.iterdir() if not file.name.startswith("."))
    return sorted((file for file in visible if file.suffix.lower() in PICTURE_SUFFIXES), key=natural_key)


def picture_size(file: Path) -> tuple[int, int]:
    """(width, height), upright, from the head of the file.

    Raises:
        VideoError: not a picture, or too large a one.
    """
    with open_picture(file) as image:
        width, height = image.size
        return (height, width) if _orientation(image) >= 5 else (width, height)


def read_picture(file: Path, scale: float = 1.0) -> np.ndarray:
    """uint8 [H, W, 3 or 4], RGB(A), not premultiplied; `scale` below 1 makes it smaller.

    Raises:
        VideoError: a file that cannot be read as a picture.
    """
    with open_picture(file) as image:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        if size != image.size:
            image.draft(image.mode, size)  # JPEG: decoded at an eighth, a quarter or half of its size
        return np.asarray(upright(reduced(image, size), image))


@contextmanager
def open_picture(file: Path) -> Iterator[Image.Image]:
    """An opened picture; whatever goes wrong with it, here or while it is used, is a VideoError."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # ours is larger
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damaged EXIF, which does no harm
            with Image.open(file) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise VideoError(
                        f"{file} has {image.width} x {image.height} pixels, more than {MAX_PIXELS // 10**6} million:"
                        " make it smaller first."
                    )
                yield image
    except VideoError:
        raise
    except Exception as error:  # decoders of damaged files raise nearly everything
        reason = str(error).replace("\n", " ") or type(error).__name__
        raise VideoError(f"{file} cannot be read as an image ({reason}); replace it or take it away.") from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def upright(picture: Image.Image, source: Image.Image) -> Image.Image:
    """Turn or mirror what was made of `source` by the EXIF orientation of that."""
    orientation = _orientation(source)
    return picture.transpose(ORIENTATIONS[orientation]) if orientation in ORIENTATIONS else picture


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 where there is none."""
    try:
        return int(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # damaged EXIF says nothing; the picture itself may be fine
        return 1


def reduced(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """RGB or RGBA, 8 bits, of this size (width, height), in the colours of sRGB."""
    return _in_srgb(_resized(image, size), image)


def _in_srgb(picture: Image.Image, source: Image.Image) -> Image.Image:
    """What was made of `source` converted from its embedded colour profile, if that is of another RGB than sRGB."""
    embedded = source.info.get("icc_profile")
    if not embedded or source.mode not in ("RGB", "RGBA", "P"):
        return picture
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(embedded))
        if "sRGB" in ImageCms.getProfileDescription(profile):
            return picture
        colour = ImageCms.profileToProfile(picture.convert("RGB"), profile, ImageCms.createProfile("sRGB"))
    except (OSError, ImageCms.PyCMSError):  # a damaged profile says nothing; the picture itself may be fine
        return picture
    if colour is not None and picture.mode == "RGBA":
        colour.putalpha(picture.getchannel("A"))
    return colour or picture


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """RGB or RGBA, 8 bits, of this size (width, height)."""
    mode = "RGBA" if image.has_transparency_data else "RGB"
    factor = min(image.width // size[0], image.height // size[1])
    if factor >= 4:  # a large picture: averaged in strips of whole blocks first
        rows = STRIP_ROWS // factor * factor or factor
        tops = range(0, image.height, rows)
        strips = [
            _eight_bits(image.crop((0, top, image.width, min(top + rows, image.height)))).convert(mode).reduce(factor)
            for top in tops
        ]
        whole = Image.new(mode, (strips[0].width, sum(strip.height for strip in strips)))
        for index, strip in enumerate(strips):
            whole.paste(strip, (0, index * strips[0].height))
        return whole.resize(size, Image.Resampling.LANCZOS)
    picture = _eight_bits(image).convert(mode)
    return picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey scaled to 8 bits; other modes as they are."""
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers: save it with 8 or 16 bits")
    if not image.mode.startswith("I"):
        return image
    pixels = np.clip(np.asarray(image), 0, 65535).astype(np.uint32)
    grey = Image.fromarray(((pixels + 128) // 257).astype(np.uint8))
    clear = image.info.get("transparency")  # the one grey that is transparent, which 8 bits may not tell from others
    if isinstance(clear, int):
        grey = grey.convert("LA")
        grey.putalpha(Image.fromarray(np.where(pixels == clear, 0, 255).astype(np.uint8)))
    return grey
