from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from ss4d.video import VideoError, read_clip, write_video


def ramp(num_frames: int, height: int = 32, width: int = 48) -> np.ndarray:
    """Grey frames whose value is eight times their number."""
    values = 8 * np.arange(num_frames, dtype=np.uint8)
    return np.broadcast_to(values[:, None, None, None], (num_frames, height, width, 3)).copy()


def save_images(folder: Path, frames: np.ndarray, names: list[str]) -> None:
    folder.mkdir(exist_ok=True)
    for frame, name in zip(frames, names, strict=True):
        Image.fromarray(frame).save(folder / name)


def write_transparent_webm(path: Path, frames: np.ndarray) -> None:
    """VP9 with an alpha plane [T, H, W, 4] -> webm."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=10, options={"auto-alt-ref": "0"})
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuva420p"
        stream.metadata["alpha_mode"] = "1"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgba").reformat(format="yuva420p")))
        container.mux(stream.encode())


def test_mp4_frames_come_in_order_with_their_rate(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", ramp(12), fps=12)
    clip = read_clip(tmp_path / "clip.mp4")
    assert clip.frames.shape == (12, 32, 48, 3) and clip.frames.dtype == np.uint8
    assert np.abs(clip.frames.astype(int) - ramp(12)).max() <= 3
    assert clip.fps == 12
    assert len(clip) == clip.num_source_frames == 12


@pytest.mark.parametrize("num_frames, expected", [(1, [0]), (3, [0, 6, 11]), (4, [0, 4, 7, 11]), (12, [*range(12)])])
def test_frames_are_sampled_from_first_to_last(tmp_path: Path, num_frames: int, expected: list[int]) -> None:
    write_video(tmp_path / "clip.mp4", ramp(12), fps=12)
    save_images(tmp_path / "images", ramp(12), [f"{number}.png" for number in range(12)])
    video, images = read_clip(tmp_path / "clip.mp4", num_frames), read_clip(tmp_path / "images", num_frames)
    assert video.frame_numbers.tolist() == images.frame_numbers.tolist() == expected
    assert np.array_equal(images.frames, ramp(12)[expected])
    assert np.abs(video.frames.astype(int) - ramp(12)[expected]).max() <= 3
    assert video.fps == pytest.approx(num_frames)  # the second the clip lasts is kept
    assert video.num_source_frames == 12


def test_names_with_colons_are_no_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_video("take-12:30.mp4", ramp(3), fps=10)
    assert len(read_clip("take-12:30.mp4")) == 3


def test_a_short_clip_is_returned_whole_with_a_warning(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", ramp(3), fps=10)
    with pytest.warns(UserWarning, match="only 3 of the 8 frames"):
        clip = read_clip(tmp_path / "clip.mp4", 8)
    assert len(clip) == 3 and clip.fps == 10


def test_images_are_sorted_naturally_and_other_files_ignored(tmp_path: Path) -> None:
    save_images(tmp_path, ramp(3), ["frame10.png", "frame9.webp", "frame1.png"])
    (tmp_path / "notes.txt").write_text("not an image")
    Image.fromarray(ramp(1)[0]).save(tmp_path / ".hidden.png")
    clip = read_clip(tmp_path)
    assert [round(int(frame[0, 0, 0]) / 8) for frame in clip.frames] == [2, 1, 0]
    assert clip.fps is None


def test_one_transparent_image_makes_the_clip_rgba(tmp_path: Path) -> None:
    rgba = np.full((4, 6, 4), 100, np.uint8)
    Image.fromarray(rgba).save(tmp_path / "0.png")
    Image.fromarray(rgba[..., :3]).save(tmp_path / "1.png")
    frames = read_clip(tmp_path).frames
    assert frames.shape == (2, 4, 6, 4)
    assert frames[:, 0, 0].tolist() == [[100] * 4, [100, 100, 100, 255]]


def test_the_alpha_of_a_transparent_webm_is_kept(tmp_path: Path) -> None:
    frames = np.full((3, 32, 48, 4), 255, np.uint8)
    frames[:, :, :24, 3] = 0
    write_transparent_webm(tmp_path / "clip.webm", frames)
    read = read_clip(tmp_path / "clip.webm").frames
    assert read.shape == (3, 32, 48, 4)
    assert read[:, :, :20, 3].max() < 8 and read[:, :, 28:, 3].min() > 247


def test_the_alpha_of_a_gif_is_kept(tmp_path: Path) -> None:
    frames = np.zeros((2, 8, 8, 4), np.uint8)
    frames[0, :4] = (255, 0, 0, 255)
    frames[1, 4:] = (0, 0, 255, 255)
    first, second = (Image.fromarray(frame) for frame in frames)
    first.save(tmp_path / "clip.gif", save_all=True, append_images=[second], duration=100, disposal=2)
    clip = read_clip(tmp_path / "clip.gif")
    assert np.array_equal(clip.frames[..., 3], frames[..., 3])
    assert np.array_equal(clip.frames[frames[..., 3] > 0], frames[frames[..., 3] > 0])
    assert clip.fps == pytest.approx(10)


def test_unusable_inputs_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "clip.xyz").write_bytes(b"RIFF")
    (tmp_path / "garbage.mp4").write_bytes(bytes(range(256)) * 8)
    (tmp_path / "zero.mp4").write_bytes(b"")
    save_images(tmp_path / "sizes", ramp(1, 8, 8), ["a.png"])
    save_images(tmp_path / "sizes", ramp(1, 8, 9), ["b.png"])
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "0.png").write_bytes(b"not a png")
    for name, message in {
        "missing.mp4": "There is no video or folder",
        "empty": r"holds no \.png",
        "clip.xyz": "not a supported video: pass a .mp4, .mov",
        "garbage.mp4": "cannot be read as a video",
        "zero.mp4": "cannot be read as a video",
        "sizes": "a.png is 8 x 8 and b.png is 9 x 8",
        "broken": "0.png cannot be read as an image",
    }.items():
        with pytest.raises(VideoError, match=message) as error:
            read_clip(tmp_path / name)
        assert "\n" not in str(error.value)


def test_a_file_without_pictures_is_an_error(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(VideoError, match="holds no video frames"):
        read_clip(tmp_path / "sound.mp4")


def test_asking_for_no_frames_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="at least 1, but it is 0"):
        read_clip(tmp_path, 0)
