"""Videos of a result, decoded by FFmpeg's libraries, VP9 by libvpx, whose decoder knows alpha."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest

from ss4d.cameras import Orbit, orbit_camera
from ss4d.export.__main__ import main
from ss4d.export.path import View, interpolate, parse_size, parse_view
from ss4d.gaussians import GaussianSequence, rasterize
from ss4d.view_frame import ViewFrame

VIDEO_PSNR = 30.0  # dB


def decode(path: Path) -> tuple[list[np.ndarray], float]:
    """Frames uint8 [H, W, 4] and their rate."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        decoder = stream.codec_context
        if stream.codec_context.name.startswith("vp9") or "vp9" in stream.codec_context.name:
            decoder = av.CodecContext.create("libvpx-vp9", "r")
            decoder.extradata = stream.codec_context.extradata
        frames = [
            frame for packet in container.demux(stream) for frame in decoder.decode(packet if packet.size else None)
        ]
        return [frame.to_ndarray(format="rgba") for frame in frames], float(stream.average_rate or 0)


def picture(sequence: GaussianSequence, index: int, azimuth: float, elevation: float, size: int) -> np.ndarray:
    """[size, size, 4], premultiplied."""
    image = rasterize(sequence[index], orbit_camera(azimuth, elevation), size, (0.0, 0.0, 0.0))
    return np.concatenate([image.colour.clamp(0, 1).numpy(), image.alpha.numpy()]).transpose(1, 2, 0)


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return float(-10 * np.log10(np.square(first - second).mean() + 1e-12))


@pytest.mark.parametrize(("name", "file"), [("webm", "alpha.webm"), ("prores", "alpha.mov")])
def test_alpha(result: Path, sequence: GaussianSequence, name: str, file: str) -> None:
    assert main([str(result), "--to", name, "--size", "128", "--fps", "8"]) == 0
    frames, fps = decode(result / "exports" / file)
    assert len(frames) == len(sequence) and fps == pytest.approx(8, abs=0.01)
    for index, frame in enumerate(frames):
        straight = frame.astype(float) / 255
        expected = picture(sequence, index, 0, 0, 128)
        assert psnr(straight[..., 3], expected[..., 3]) > VIDEO_PSNR
        assert psnr(straight[..., :3] * straight[..., 3:], expected[..., :3]) > VIDEO_PSNR
        # Seen on black or on white, there is no fringe: the colour goes on where the object ends.
        faint = (expected[..., 3] > 0.1) & (expected[..., 3] < 0.4)
        assert straight[faint, :3].max(axis=1).mean() > 0.35


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="needs ffprobe and ffmpeg: apt-get install ffmpeg")
@pytest.mark.parametrize(
    ("name", "file", "expected"),
    [
        ("webm", "alpha.webm", {"codec_name": "vp9", "tags": "1"}),  # FFmpeg's own decoder leaves the alpha out
        (
            "prores",
            "alpha.mov",
            {
                **{"codec_name": "prores", "profile": "4444", "pix_fmt": "yuva444p12le"},
                **{"color_primaries": "bt709", "color_transfer": "bt709"},
            },
        ),
        ("orbit", "orbit.mp4", {"codec_name": "h264", "pix_fmt": "yuv420p"}),
    ],
)
def test_ffprobe_and_ffmpeg_read_them(
    result: Path, sequence: GaussianSequence, name: str, file: str, expected: dict[str, str]
) -> None:
    path = result / "probed" / file
    options = ["--size", "160x120", "--fps", "8", "--frames", "5"]
    assert main([str(result), "--to", name, "--out", str(path), *options]) == 0
    (stream,) = json.loads(run("ffprobe", "-count_frames", "-show_streams", "-of", "json", path))["streams"]
    stream["tags"] = stream["tags"].get("alpha_mode")
    alike = {"width": 160, "height": 120, "nb_read_frames": "5", "avg_frame_rate": "8/1", "color_space": "bt709"}
    assert {key: stream.get(key) for key in alike | expected} == alike | expected
    if name != "orbit":
        decoder = ["-c:v", "libvpx-vp9"] if name == "webm" else []
        raw = run("ffmpeg", *decoder, "-i", path, "-vf", "alphaextract,format=gray", "-f", "rawvideo", "-")
        alpha = np.frombuffer(raw, np.uint8).reshape(5, 120, 160)[:, :, 20:140] / 255
        assert all(psnr(alpha[i], picture(sequence, i % 3, 0, 0, 120)[..., 3]) > VIDEO_PSNR for i in range(5))


def run(program: str, *arguments: str | Path) -> bytes:
    """What it writes; it must have nothing to complain about."""
    done = subprocess.run([program, "-v", "error", *map(str, arguments)], capture_output=True, check=True)
    assert not done.stderr, done.stderr
    return done.stdout


def test_orbit_of_any_size_and_path(result: Path, sequence: GaussianSequence) -> None:
    path = ["--path", "-30,15", "30,45,1.5"]
    assert main([str(result), "--to", "orbit", "--size", "161x120", "--frames", "6", "--fps", "10", *path]) == 0
    frames, fps = decode(result / "exports" / "orbit.mp4")
    assert len(frames) == 6 and fps == pytest.approx(10, abs=0.01)
    assert frames[0].shape == (120, 162, 4)  # H.264 needs even sides
    first = picture(sequence, 0, -30, 15, 120)
    middle = frames[0][:, 20:140, :3] / 255.0
    # The picture is wider on both sides, by 20.5 pixels.
    assert psnr(middle, first[..., :3] + 1 - first[..., 3:]) > 20
    assert np.abs(frames[0].astype(float) - frames[-1]).mean() > 2


def test_an_orbit_of_another_suffix_is_refused_before_anything_is_rendered(
    result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ss4d.export.path.rasterize", lambda *_, **__: pytest.fail("rendered"))
    assert main([str(result), "--to", "orbit", "--out", str(tmp_path / "orbit.webm")]) == 1
    assert "Videos are written as .mp4" in capsys.readouterr().err


def test_a_result_in_the_frame_of_its_view_is_taken_as_near_as_the_input(
    framed: Path, sequence: GaussianSequence
) -> None:
    assert main([str(framed), "--to", "webm", "--size", "128"]) == 0
    alpha = decode(framed / "exports" / "alpha.webm")[0][0][..., 3] / 255
    image = rasterize(sequence[0], ViewFrame(crop=0.8, distance=1.4).camera(), 128)
    assert psnr(alpha, image.alpha[0].numpy()) > VIDEO_PSNR


def test_paths() -> None:
    closed = interpolate([View(0, 15, 2), View(360, 15, 2)], 4)
    assert [view.azimuth for view in closed] == [0, 90, 180, 270]
    opened = interpolate([View(0, 0, 2), View(90, 30, 1)], 3)
    assert opened == [View(0, 0, 2), View(45, 15, 1.5), View(90, 30, 1)]
    assert interpolate([View(20, 10, 2)], 2) == [View(20, 10, 2)] * 2
    assert parse_view("-30,15", Orbit(1.4)) == View(-30, 15, 1.4) and parse_size("1920x1080") == (1080, 1920)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to", "orbit", "--size", "big"], "write 512 or 1920x1080"),
        (["--to", "orbit", "--size", "0"], "write 512 or 1920x1080"),
        (["--to", "webm", "--path", "1"], "write AZIMUTH,ELEVATION"),
        (["--to", "webm", "--path", "0,95"], "elevation from -90 to 90"),
        (["--to", "webm", "--fps", "0"], "--fps must be positive"),
        (["--to", "webm", "--frames", "-3"], "--frames must be positive"),
    ],
)
def test_bad_options(result: Path, tmp_path: Path, options: list[str], message: str, capsys) -> None:  # type: ignore[no-untyped-def]
    assert main([str(result), "--out", str(tmp_path / "video.mp4"), *options]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
