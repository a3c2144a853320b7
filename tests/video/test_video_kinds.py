"""Videos as cameras, editors and web sites make them, read as a player shows them."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from videos import letter, make_video, numbered

from ss4d.video import VideoError, read_clip, write_video

PATCHES = np.array([(70, 110, 180), (30, 160, 40), (200, 30, 30), (40, 60, 200), (128, 128, 128), (235, 225, 215)])
BT709, BT2020, DISPLAY_P3 = 1, 9, 12
CHROMATICITIES = {  # x and y of red, green and blue; white is D65 in all
    BT709: [(0.640, 0.330), (0.300, 0.600), (0.150, 0.060)],
    BT2020: [(0.708, 0.292), (0.170, 0.797), (0.131, 0.046)],
    DISPLAY_P3: [(0.680, 0.320), (0.265, 0.690), (0.150, 0.060)],
}
PQ, HLG = 16, 18


def patches(height: int, width: int) -> np.ndarray:
    """Six broad stripes of colour, uint8 [H, W, 3]."""
    return np.repeat(PATCHES.astype(np.uint8), -(-width // 6), axis=0)[:width][None].repeat(height, axis=0)


def stripes(frame: np.ndarray) -> np.ndarray:
    """The colours in the middle of the stripes [6, 3]."""
    height, width = frame.shape[:2]
    columns = ((np.arange(6) + 0.5) * width / 6).astype(int)
    return frame[height // 2, columns, :3].astype(int)


# The display matrix (a, b, c, d) says where a pixel (x, y) is shown: at (a x + c y, b x + d y).
ORIENTATIONS: dict[tuple[int, ...], Callable[[np.ndarray], np.ndarray]] = {
    (1, 0, 0, 1): lambda p: p,
    (-1, 0, 0, 1): np.fliplr,
    (1, 0, 0, -1): np.flipud,
    (-1, 0, 0, -1): lambda p: np.rot90(p, 2),
    (0, 1, -1, 0): lambda p: np.rot90(p, -1),
    (0, -1, 1, 0): np.rot90,
    (0, 1, 1, 0): lambda p: p.swapaxes(0, 1),
    (0, -1, -1, 0): lambda p: np.rot90(p, 2).swapaxes(0, 1),
}


@pytest.mark.parametrize("matrix", ORIENTATIONS)
def test_all_eight_orientations_are_shown_upright(tmp_path: Path, matrix: tuple[int, ...]) -> None:
    video = make_video(tmp_path / "clip.mp4", np.stack([letter()] * 2), display_matrix=matrix)
    shown = read_clip(video).frames[1].astype(int)
    expected = ORIENTATIONS[matrix](letter())
    assert shown.shape == expected.shape
    assert np.abs(shown - expected).mean() < 4  # the codec's chroma at the edges


def test_the_orientation_of_a_transparent_webm_is_kept(tmp_path: Path) -> None:
    frames = np.concatenate([letter(), np.full((96, 128, 1), 255, np.uint8)], axis=-1)
    frames[:, 64:, 3] = 0
    options = {"auto-alt-ref": "0"}
    make_video(
        tmp_path / "clip.webm", frames[None].repeat(2, 0), codec="libvpx-vp9", pixels="yuva420p", options=options
    )
    clip = read_clip(tmp_path / "clip.webm").frames
    assert clip.shape == (2, 96, 128, 4)
    assert clip[:, :, 70:, 3].max() < 8 and clip[:, :, :58, 3].min() > 247


@pytest.mark.parametrize(("aspect", "width"), [(Fraction(16, 9), 228), (Fraction(16, 15), 137), (Fraction(8, 9), 114)])
def test_pixels_are_square_after_reading(tmp_path: Path, aspect: Fraction, width: int) -> None:
    video = make_video(tmp_path / "clip.mp4", np.stack([letter()] * 2), aspect=aspect)
    frame = read_clip(video).frames[0]
    assert frame.shape == (96, width, 3)
    stem = np.flatnonzero(frame[60, :, 1] < 100)  # the letter's stem, from a quarter of the width to three eighths
    assert stem[0] / width == pytest.approx(0.25, abs=0.02) and (stem[-1] + 1) / width == pytest.approx(0.375, abs=0.02)


def test_pixels_are_made_square_before_the_picture_is_turned(tmp_path: Path) -> None:
    frames = np.stack([letter()] * 2)
    video = make_video(tmp_path / "clip.mp4", frames, aspect=Fraction(2), display_matrix=(0, 1, -1, 0))
    assert read_clip(video).frames.shape == (2, 256, 96, 3)


@pytest.mark.parametrize(
    ("height", "width", "matrix", "full", "tags"),
    [
        (96, 192, "bt709", False, {"colorspace": 1, "color_range": 1}),
        (96, 192, "bt601", False, {"colorspace": 6, "color_range": 1}),
        (96, 192, "bt709", True, {"colorspace": 1, "color_range": 2}),
        (96, 192, "bt601", False, {}),  # players take small videos for BT.601, and wide ones for BT.709
        (96, 1280, "bt709", False, {}),
        (720, 192, "bt709", False, {}),
    ],
)
def test_colours_go_by_the_tag_or_by_the_size(
    tmp_path: Path, height: int, width: int, matrix: str, full: bool, tags: dict[str, int]
) -> None:
    frames = np.stack([patches(height, width)] * 2)
    video = make_video(tmp_path / "clip.mp4", frames, matrix=matrix, full_range=full, tags=tags)
    assert np.abs(stripes(read_clip(video).frames[1]) - PATCHES).max() <= 3


def test_ten_bits_are_read(tmp_path: Path) -> None:
    frames = np.stack([patches(96, 192)] * 2).astype(np.uint16) * 257
    tags = {"colorspace": BT709, "color_range": 1}
    video = make_video(tmp_path / "clip.mp4", frames, codec="libx265", pixels="yuv420p10le", tags=tags)
    assert np.abs(stripes(read_clip(video).frames[1]) - PATCHES).max() <= 2


def hdr_code(rgb: np.ndarray, transfer: int, gain: float = 1.0) -> np.ndarray:
    """sRGB colours as PQ or HLG signals in BT.2020 primaries, uint16; white is reference white times `gain`."""
    value = rgb / 255
    light = gain * np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    light = (
        light
        @ np.array([[0.627404, 0.329283, 0.043313], [0.069097, 0.919540, 0.011362], [0.016391, 0.088013, 0.895595]]).T
    )
    if transfer == PQ:
        power = (light * 203 / 10000) ** (2610 / 16384)
        signal = ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)
    else:
        light = light * 0.2650 / 1.0  # reference white is 75 % of the signal
        signal = np.where(
            light <= 1 / 12,
            np.sqrt(3 * light),
            0.17883277 * np.log(np.maximum(12 * light - 0.28466892, 1e-9)) + 0.55991073,
        )
    return (65535 * signal).round().astype(np.uint16)


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_hdr_becomes_the_sdr_that_it_was_graded_from_and_it_is_said(tmp_path: Path, transfer: int) -> None:
    frames = np.stack([hdr_code(patches(96, 192).astype(float), transfer)] * 2)
    tags = {"colorspace": BT2020, "color_range": 1, "color_primaries": BT2020, "color_trc": transfer}
    options = {"crf": "1"}
    video = make_video(
        tmp_path / "clip.mp4",
        frames,
        codec="libx265",
        pixels="yuv420p10le",
        matrix="bt2020",
        tags=tags,
        options=options,
    )
    with pytest.warns(UserWarning, match=r"is HDR \((PQ|HLG)\); its colours are mapped to SDR"):
        shown = stripes(read_clip(video).frames[1])
    assert np.abs(shown[:5] - PATCHES[:5]).max() <= 3
    assert (shown[5] > 210).all() and (shown[5] < PATCHES[5] + 3).all()  # close to white: compressed a little


def xyz_of(primaries: int) -> np.ndarray:
    """The matrix from linear RGB to XYZ."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in CHROMATICITIES[primaries]]).T
    white = np.array([0.3127 / 0.3290, 1, (1 - 0.3127 - 0.3290) / 0.3290])
    return columns * np.linalg.solve(columns, white)


def in_primaries(rgb: np.ndarray, primaries: int) -> np.ndarray:
    """sRGB colours [..., 3] as codes of the same curve in other primaries, uint8."""
    light = np.where(rgb / 255 <= 0.04045, rgb / 255 / 12.92, ((rgb / 255 + 0.055) / 1.055) ** 2.4)
    light = light @ np.linalg.solve(xyz_of(primaries), xyz_of(BT709)).T
    code = np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 0) ** (1 / 2.4) - 0.055)
    return (255 * code).round().astype(np.uint8)


@pytest.mark.parametrize("primaries", [BT2020, DISPLAY_P3])
def test_wide_gamuts_are_shown_in_srgb(tmp_path: Path, primaries: int) -> None:
    coded = in_primaries(patches(96, 192).astype(float), primaries)
    assert np.abs(stripes(coded) - PATCHES).max() > 25
    tags = {"colorspace": BT709, "color_range": 1, "color_primaries": primaries, "color_trc": 13}
    video = make_video(tmp_path / "clip.mp4", np.stack([coded] * 2), tags=tags, options={"crf": "1"})
    assert np.abs(stripes(read_clip(video).frames[1]) - PATCHES).max() <= 6


def test_highlights_of_hdr_keep_their_order_and_their_hue(tmp_path: Path) -> None:
    from ss4d.video.hdr import tone_map

    ramp = [tone_map(hdr_code(np.array([[[255.0, 128.0, 64.0]]]), PQ, gain), PQ)[0, 0] for gain in (0.5, 1, 2, 4)]
    red = [int(colour[0]) for colour in ramp]
    assert red == sorted(set(red)) and red[-1] <= 255
    assert all(colour[0] > colour[1] > colour[2] for colour in ramp)


def test_interlaced_video_becomes_progressive(tmp_path: Path) -> None:
    """A bar that moves between the two fields of each frame has combed edges, which interpolation mends."""

    def bar(step: int) -> np.ndarray:
        picture = np.full((96, 128, 3), 255, np.uint8)
        picture[16:80, 8 * step : 8 * step + 24] = (200, 30, 30)
        return picture

    woven = np.stack([bar(2 * t) for t in range(5)])
    woven[:, 1::2] = np.stack([bar(2 * t + 1) for t in range(5)])[:, 1::2]
    options = {"flags": "+ilme+ildct", "x264-params": "tff=1"}
    video = make_video(tmp_path / "clip.mp4", woven, interlaced=True, options=options)
    clip = read_clip(video)

    def combing(frame: np.ndarray) -> float:
        rows = frame[24:72, :, 1].astype(int)
        return float(np.abs(2 * rows[1:-1] - rows[:-2] - rows[2:]).mean())

    assert len(clip) == 5 and clip.fps == pytest.approx(12)
    assert combing(woven[2]) > 20 and combing(clip.frames[2]) < 6


def test_written_videos_name_their_matrix(tmp_path: Path) -> None:
    """Wide ones are taken for BT.709 otherwise, small ones for BT.601."""
    for width in (192, 1280):
        write_video(tmp_path / "clip.mp4", np.stack([patches(64, width)] * 2), fps=12)
        assert np.abs(stripes(read_clip(tmp_path / "clip.mp4").frames[0]) - PATCHES).max() <= 3
        with av.open(str(tmp_path / "clip.mp4")) as container:
            context = container.streams.video[0].codec_context
            assert (context.colorspace, context.color_range) == (1, 1)


def test_pixels_beyond_what_is_needed_are_not_kept(tmp_path: Path) -> None:
    video = make_video(tmp_path / "clip.mp4", np.stack([letter(2160, 3840)] * 2), options={"preset": "ultrafast"})
    frames = read_clip(video).frames
    assert frames.shape == (2, 1080, 1920, 3)
    assert np.abs(frames[0].astype(int) - letter(1080, 1920)).mean() < 3


def test_more_frames_than_memory_holds_are_refused_with_what_to_do(tmp_path: Path) -> None:
    from ss4d.video.read import fit_scale

    with pytest.raises(
        VideoError, match=r"18000 frames of 3840 x 2160 .* --num-frames, .* --start and --end, .* --fps"
    ):
        fit_scale((3840, 2160), 18000, "clip.mp4")
    assert fit_scale((320, 240), 1000, "clip.mp4") == 1


@pytest.mark.slow
def test_4k_is_streamed(tmp_path: Path) -> None:
    """Ten seconds of 4K are 6 GB of pixels; 32 of its frames are read within 1 GB, Python and all."""
    frames = np.stack([letter(2160, 3840)])
    second = make_video(tmp_path / "second.mp4", frames.repeat(24, 0), [1 / 24] * 24, options={"preset": "ultrafast"})
    repeat_video(second, tmp_path / "long.mp4", 10)
    script = """
        import re, sys
        from ss4d.video import read_clip
        clip = read_clip(sys.argv[1], 32)
        peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())
        print(len(clip), clip.num_source_frames, int(peak[1]) // 1024)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "long.mp4")]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    count, source, megabytes = (int(word) for word in answer.stdout.split())
    assert (count, source) == (32, 240)
    assert megabytes < 1024


def repeat_video(source: Path, target: Path, times: int) -> None:
    """The same packets again and again."""
    with av.open(str(target), "w") as output:
        stream: Any = None
        for turn in range(times):
            with av.open(str(source)) as container:
                given: Any = container.streams.video[0]
                stream = stream or output.add_stream_from_template(given)
                shift = turn * given.duration
                packets: Any = container.demux(given)
                for packet in packets:
                    if packet.dts is not None:
                        packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                        output.mux(packet)


def test_lists_of_other_files_are_refused(tmp_path: Path) -> None:
    """FFmpeg reads them whatever their name, and one that names itself without end."""
    (tmp_path / "self.mp4").write_text("ffconcat version 1.0\nfile self.mp4\n")
    with pytest.raises(VideoError, match=r"self\.mp4 cannot be read as a video"):
        read_clip(tmp_path / "self.mp4")


def test_damaged_videos_are_one_sentence(tmp_path: Path) -> None:
    """Truncated, bits flipped, sizes changed: read, or refused by a VideoError; nothing else."""
    whole = make_video(tmp_path / "whole.mp4", numbered(6)).read_bytes()
    generator = np.random.default_rng(0)
    for case in range(24):
        content = bytearray(whole)
        if case % 3 == 0:
            content = content[: int(generator.integers(1, len(content)))]
        else:
            for position in generator.integers(0, len(content), 4 if case % 3 == 1 else 40):
                content[position] ^= 1 << int(generator.integers(8))
        (tmp_path / "damaged.mp4").write_bytes(bytes(content))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                read_clip(tmp_path / "damaged.mp4", 3)
            except VideoError as error:
                assert "\n" not in str(error)
