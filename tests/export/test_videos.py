"""Videos of a result, decoded by FFmpeg's libraries, VP9 by libvpx, whose decoder knows alpha."""

from __future__ import annotations

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
