"""Pictures and masks as cameras and segmentation tools leave them."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms
from videos import letter

from ss4d.video import ForegroundError, VideoError, clip_crop_box, find_foreground, read_clip, read_masks

OBJECT = (letter() < 250).any(axis=-1)  # bool [96, 128]


def save(folder: Path, *pictures: Image.Image, suffix: str = "png", **options: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, picture in enumerate(pictures):
        picture.save(folder / f"{index:03d}.{suffix}", **options)  # type: ignore[arg-type]
    return folder


@pytest.fixture
def noisy(tmp_path: Path) -> np.ndarray:
    """Two frames of the letter before noise, which nothing but a mask can part."""
    noise = np.random.default_rng(0).integers(0, 256, (2, *OBJECT.shape, 3)).astype(np.uint8)
    return np.where(OBJECT[..., None], letter(), noise)


def test_16_bit_grey_is_scaled(tmp_path: Path) -> None:
    grey = np.linspace(0, 65535, 96 * 128).round().astype(np.uint16).reshape(96, 128)
    frames = read_clip(save(tmp_path / "grey", Image.fromarray(grey))).frames
    assert frames.shape == (1, 96, 128, 3)
    assert np.abs(frames[0, ..., 1].astype(float) - grey / 257).max() <= 0.5


def test_16_bit_grey_on_white_is_keyed(tmp_path: Path) -> None:
    grey = np.where(OBJECT, 20000, 65535).astype(np.uint16)
    rgba = find_foreground(read_clip(save(tmp_path / "grey", Image.fromarray(grey))))
    assert (rgba[0, ..., 3] > 0).mean() == pytest.approx(OBJECT.mean(), abs=0.01)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    """The picture is stored so that the orientation makes it upright again."""
    inverse = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose: how it lies in the file
    upright = Image.fromarray(letter())
    stored = upright.transpose(Image.Transpose(inverse[orientation])) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    frames = read_clip(save(tmp_path / "photos", stored, exif=exif)).frames
    assert np.array_equal(frames[0], letter())


def test_a_single_picture_is_a_clip(tmp_path: Path) -> None:
    save(tmp_path, Image.fromarray(letter()))
    clip = read_clip(tmp_path / "000.png")
    assert np.array_equal(clip.frames, letter()[None]) and clip.fps is None


@pytest.mark.parametrize("suffix", ["webp", "png"])
def test_animated_pictures_are_clips_with_their_times(tmp_path: Path, suffix: str) -> None:
    pictures = [Image.fromarray(np.full((16, 20, 3), 20 + 50 * number, np.uint8)) for number in range(4)]
    path, times = tmp_path / f"clip.{suffix}", [100, 100, 300, 100]
    options: dict = {"lossless": True} if suffix == "webp" else {}
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=times, loop=0, **options)
    clip = read_clip(path)
    assert clip.frames[:, 0, 0, 0].tolist() == [20, 70, 120, 170]
    assert clip.durations is not None and clip.durations.tolist() == pytest.approx([0.1, 0.1, 0.3, 0.1])
    assert read_clip(path, start=0.2, fps=10).frames[:, 0, 0, 0].tolist() == [120, 120, 120, 170]
    assert read_clip(path, 2).frame_numbers.tolist() == [0, 3]
    with pytest.raises(VideoError, match="nothing of it is left"):
        read_clip(path, start=5)


def test_pages_are_a_clip_without_times(tmp_path: Path) -> None:
    pages = [Image.fromarray(np.full((16, 20), 50 * number, np.uint8)) for number in range(3)]
    pages[0].save(tmp_path / "clip.tif", save_all=True, append_images=pages[1:])
    clip = read_clip(tmp_path / "clip.tif")
    assert clip.frames[:, 0, 0, 0].tolist() == [0, 50, 100] and clip.fps is None
    with pytest.raises(VideoError, match="does not say when"):
        read_clip(tmp_path / "clip.tif", fps=5)


def test_pictures_beside_the_picture_are_no_frames(tmp_path: Path) -> None:
    """Gain maps of HDR photos, second views, thumbnails: a photo is one frame."""
    for name, kind in (("photo.jpg", "MPO"), ("photo.tif", "TIFF")):
        small = Image.new("RGB", (32, 24), "grey")
        Image.fromarray(letter()).save(tmp_path / name, kind, save_all=True, append_images=[small])
        clip = read_clip(tmp_path / name)
        assert clip.frames.shape == (1, 96, 128, 3) and np.abs(clip.frames[0].astype(int) - letter()).mean() < 4


def test_the_picture_for_other_programs_is_no_frame(tmp_path: Path) -> None:
    poster, *frames = (Image.fromarray(np.full((16, 20, 3), 50 * number, np.uint8)) for number in range(4))
    poster.save(tmp_path / "clip.png", save_all=True, default_image=True, append_images=frames, duration=100)
    clip = read_clip(tmp_path / "clip.png")
    assert clip.frames[:, 0, 0, 0].tolist() == [50, 100, 150] and clip.fps == pytest.approx(10)


def test_frames_of_no_duration_are_shown_as_in_browsers(tmp_path: Path) -> None:
    pictures = [Image.fromarray(np.full((16, 20, 3), 50 * number, np.uint8)) for number in range(3)]
    times = [0, 50, 50]
    pictures[0].save(tmp_path / "clip.webp", save_all=True, append_images=pictures[1:], duration=times, lossless=True)
    durations = read_clip(tmp_path / "clip.webp").durations
    assert durations is not None and durations.tolist() == pytest.approx([0.1, 0.05, 0.05])


@pytest.mark.parametrize(("suffix", "mode"), [("png", "RGB"), ("png", "RGBA"), ("jpg", "RGB")])
def test_embedded_colour_profiles_are_followed(tmp_path: Path, suffix: str, mode: str) -> None:
    profile = swapped_profile()
    values = np.full((16, 20, len(mode)), 100, np.uint8)
    values[..., 0] = 200
    Image.fromarray(values).save(tmp_path / f"a.{suffix}", icc_profile=profile)
    shown = read_clip(tmp_path / f"a.{suffix}").frames[0, 8, 10].astype(int)
    assert np.abs(shown[:3] - (100, 100, 200)).max() <= 3 and shown[3:].tolist() == [100] * (len(mode) - 3)
    Image.fromarray(values).save(tmp_path / f"b.{suffix}", icc_profile=profile[:60])
    assert np.abs(read_clip(tmp_path / f"b.{suffix}").frames[0, 8, 10, :3].astype(int) - (200, 100, 100)).max() <= 3


def swapped_profile() -> bytes:
    """The ICC profile of an RGB whose red is sRGB's blue, and the other way round."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be"))
    return profile.replace(b"rXYZ", b"swap").replace(b"bXYZ", b"rXYZ").replace(b"swap", b"bXYZ")


def test_the_transparent_grey_of_16_bits_is_transparent(tmp_path: Path) -> None:
    grey = np.full((16, 20), 1000, np.uint16)
    grey[4:9, 5:15] = 1001  # the same in 8 bits
    Image.fromarray(grey).save(tmp_path / "grey.png", transparency=1000)
    alpha = read_clip(tmp_path / "grey.png").frames[0, ..., 3]
    assert np.array_equal(alpha > 0, grey == 1001)


def test_a_photo_of_200_megapixels_is_read_within_memory(tmp_path: Path) -> None:
    photo = Image.new("1", (16320, 12240), 1)
    photo.paste(0, (4080, 3060, 8160, 9180))
    photo.save(tmp_path / "0.png")
    script = """
        import re, sys
        from ss4d.video import read_clip, find_foreground, clip_crop_box
        clip = read_clip(sys.argv[1])
        peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())
        print(clip.frames.shape, int(peak[1]) // 1024, tuple(clip_crop_box(find_foreground(clip)[..., 3])))
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "0.png")]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    numbers = [int(word) for word in re.findall(r"-?\d+", answer)]
    assert numbers[:4] == [1, 1440, 1920, 3] and numbers[4] < 1500
    assert np.abs(np.array(numbers[5:]) - (288, 288, 1152, 1152)).max() <= 2  # 1.2 times 720 about (720, 720)


def test_photos_are_reduced_like_small_ones(tmp_path: Path) -> None:
    from ss4d.video.pictures import read_picture

    for mode in ("RGB", "RGBA", "L", "P", "I;16"):
        picture = Image.fromarray(letter(960, 1280))
        grey = np.asarray(picture.convert("L")).astype(np.uint16) * 257
        picture = Image.fromarray(grey) if mode == "I;16" else picture.convert(mode)
        picture.save(tmp_path / "large.png")
        small = read_picture(tmp_path / "large.png", 0.1)
        expected = np.asarray(Image.fromarray(letter()).convert("L" if mode in ("L", "I;16") else "RGB").convert("RGB"))
        assert small.shape[:2] == (96, 128)
        assert np.abs(small[..., :3].astype(int) - expected).mean() < 4


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.png", b"", "cannot be read as an image"),
        ("noise.jpg", bytes(range(256)), "cannot be read as an image"),
        ("huge.bmp", None, r"has 30000 x 30000 pixels, more than 400 million"),
    ],
)
def test_pictures_that_cannot_be_read_are_one_sentence(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is None:
        small = tmp_path / "small.bmp"
        Image.new("L", (4, 4)).save(small)
        head = small.read_bytes()
        content = head[:18] + (30000).to_bytes(4, "little") * 2 + head[26:]
        small.unlink()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(VideoError, match=message) as error:
        read_clip(tmp_path / name)
    assert "\n" not in str(error.value)


def test_damaged_pictures_are_one_sentence(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for suffix in ("png", "jpg", "webp"):
        whole = next(save(tmp_path / suffix, Image.fromarray(letter()), suffix=suffix).iterdir()).read_bytes()
        for case in range(20):
            content = bytearray(whole)
            if case % 2:
                content = content[: int(generator.integers(0, len(content)))]
            for position in generator.integers(0, max(1, len(content)), 5):
                if content:
                    content[position] ^= 1 << int(generator.integers(8))
            damaged = tmp_path / f"damaged.{suffix}"
            damaged.write_bytes(bytes(content))
            try:
                read_clip(damaged)
            except VideoError as error:
                assert "\n" not in str(error)


def palette(indices: np.ndarray) -> Image.Image:
    """A picture of indices with DAVIS' colours: 1 is dark red, 2 dark green."""
    picture = Image.fromarray(indices.astype(np.uint8), "P")
    picture.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
    return picture


def two_objects() -> np.ndarray:
    """Indices 0, 1, 2."""
    indices = OBJECT.astype(np.uint8)
    indices[:, 48:] *= 2
    return indices


MASKS = {
    "white": lambda: Image.fromarray(255 * OBJECT.astype(np.uint8)),
    "0 and 1": lambda: Image.fromarray(OBJECT.astype(np.uint8)),
    "labels": lambda: Image.fromarray(two_objects()),
    "labels of grey": lambda: Image.fromarray(two_objects() * 38),  # a palette's colours turned grey
    "palette": lambda: palette(OBJECT),
    "palette of two": lambda: palette(two_objects()),
    "one bit": lambda: Image.fromarray(OBJECT),
    "16 bit": lambda: Image.fromarray(65535 * OBJECT.astype(np.uint16)),
    "16 bit labels": lambda: Image.fromarray(OBJECT.astype(np.uint16)),
    "white in RGB": lambda: Image.fromarray(np.repeat(255 * OBJECT[..., None].astype(np.uint8), 3, -1)),
    "alpha over white": lambda: Image.fromarray(np.dstack([letter(), 255 * OBJECT.astype(np.uint8)])),
}


@pytest.mark.parametrize("kind", MASKS)
def test_masks_mean_object_and_background(tmp_path: Path, noisy: np.ndarray, kind: str) -> None:
    folder = save(tmp_path / "masks", *[MASKS[kind]()] * 2)
    alpha = find_foreground(noisy, folder)[..., 3]
    assert np.array_equal(alpha, 255 * np.stack([OBJECT] * 2))


def test_lossy_masks_keep_their_outline(tmp_path: Path, noisy: np.ndarray) -> None:
    folder = save(tmp_path / "masks", *[MASKS["white"]()] * 2, suffix="jpg", quality=80)
    alpha = find_foreground(noisy, folder)[..., 3]
    assert ((alpha > 128) == OBJECT).mean() > 0.999
    box, expected = clip_crop_box(alpha), clip_crop_box(np.stack([OBJECT]).astype(np.uint8))
    assert np.abs(np.array(box) - expected).max() <= 12  # a block of JPEG


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_masks_of_another_size_are_scaled(tmp_path: Path, noisy: np.ndarray, scale: float) -> None:
    mask = MASKS["white"]()
    mask = mask.resize((round(128 * scale), round(96 * scale)), Image.Resampling.BILINEAR)
    alpha = find_foreground(noisy, save(tmp_path / "masks", *[mask] * 2))[..., 3]
    assert ((alpha > 128) == OBJECT).mean() > 0.97


def test_masks_of_another_shape_or_number_are_refused(tmp_path: Path, noisy: np.ndarray) -> None:
    square = save(tmp_path / "square", *[Image.new("L", (64, 64), 255)] * 2)
    with pytest.raises(ForegroundError, match="are 64 x 64 pixels, but the frames are 128 x 96"):
        find_foreground(noisy, square)
    with pytest.raises(ForegroundError, match="holds 1 masks, but the clip needs 2"):
        find_foreground(noisy, save(tmp_path / "one", Image.fromarray(OBJECT)))
    with pytest.raises(ForegroundError, match=r"There are no masks at .*nowhere: it does not exist"):
        find_foreground(noisy, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ForegroundError, match=r"holds no \.png, .* masks"):
        find_foreground(noisy, tmp_path / "empty")


def test_a_folder_for_each_object_as_sam_2_writes_them(tmp_path: Path, noisy: np.ndarray) -> None:
    for label in (1, 2):
        one = Image.fromarray((two_objects() == label).astype(np.uint8))
        save(tmp_path / "masks" / f"{label:03d}", *[one] * 2)
    assert np.array_equal(read_masks(tmp_path / "masks", noisy), 255 * np.stack([OBJECT] * 2))


def test_masks_of_the_whole_video_follow_the_chosen_frames(tmp_path: Path, noisy: np.ndarray) -> None:
    frames = save(tmp_path / "frames", *[Image.fromarray(noisy[0])] * 5)
    indices = [palette(np.roll(OBJECT, shift, axis=1)) for shift in range(5)]
    clip = read_clip(frames, 3)
    alpha = read_masks(save(tmp_path / "masks", *indices), clip)
    assert np.array_equal(alpha, 255 * np.stack([np.roll(OBJECT, shift, axis=1) for shift in (0, 2, 4)]))


@pytest.mark.parametrize("haze", [1, 2, 7])
def test_faint_alpha_around_the_object_does_not_change_the_crop(haze: int) -> None:
    rgba = np.dstack([letter(), 255 * OBJECT.astype(np.uint8)])[None].repeat(2, 0)
    box = clip_crop_box(find_foreground(rgba)[..., 3])
    rgba[..., 3] = np.where(
        np.random.default_rng(0).random(rgba.shape[:3]) < 0.5, np.maximum(rgba[..., 3], haze), rgba[..., 3]
    )
    cleared = find_foreground(rgba)[..., 3]
    assert clip_crop_box(cleared) == box and np.array_equal(cleared, 255 * np.stack([OBJECT] * 2))


@pytest.mark.parametrize("first", [0, 1])
def test_single_masks_of_one_bit_mean_the_same_as_the_others(tmp_path: Path, noisy: np.ndarray, first: int) -> None:
    """As ImageMagick writes those without soft edges."""
    soft = np.where(OBJECT, 255, 0).astype(np.uint8)
    soft[0, 0] = 100
    both = [Image.fromarray(OBJECT), Image.fromarray(soft)]
    alpha = read_masks(save(tmp_path / "masks", both[first], both[1 - first]), noisy)
    expected = [255 * OBJECT, soft]
    assert np.array_equal(alpha, np.stack([expected[first], expected[1 - first]]))


@pytest.mark.parametrize("suffix", ["webp", "tiff"])
def test_masks_in_one_file_of_several_pictures(tmp_path: Path, suffix: str) -> None:
    masks = [np.zeros((16, 20), np.uint8) for _ in range(3)]
    for number, mask in enumerate(masks):
        mask[4 : 8 + number, 5:15] = 255
    pictures = [Image.fromarray(mask) for mask in masks]
    options: dict = {"lossless": True, "duration": 100} if suffix == "webp" else {}
    pictures[0].save(tmp_path / f"masks.{suffix}", save_all=True, append_images=pictures[1:], **options)
    alpha = read_masks(tmp_path / f"masks.{suffix}", np.zeros((3, 16, 20, 3), np.uint8))
    assert np.array_equal(alpha > 127, np.stack(masks) > 127)


def test_pictures_with_and_without_alpha_are_a_note(tmp_path: Path) -> None:
    rgba = np.dstack([letter()[..., :3], np.full(letter().shape[:2], 255, np.uint8)])
    rgba[:4, ..., 3] = 0
    Image.fromarray(rgba).save(tmp_path / "0.png")
    Image.fromarray(letter()[..., :3]).save(tmp_path / "1.png")
    with pytest.warns(UserWarning, match=r"1 of 2 pictures have no alpha, 1\.png first"):
        assert read_clip(tmp_path).frames.shape[-1] == 4


def test_a_picture_by_the_name_of_a_video_is_refused(tmp_path: Path) -> None:
    Image.fromarray(letter()).save(tmp_path / "picture.png")
    (tmp_path / "picture.png").rename(tmp_path / "clip.mp4")
    with pytest.raises(VideoError, match="holds a picture and not a video"):
        read_clip(tmp_path / "clip.mp4")
