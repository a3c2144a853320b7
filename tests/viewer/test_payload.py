"""The player's payload, decoded by hand; the script's own decoder is tested in a browser by test_player.py."""

from __future__ import annotations

import json
import os
import re
import subprocess
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ss4d.gaussians import Gaussians, GaussianSequence
from ss4d.gaussians.projection import camera_rotations
from ss4d.viewer.__main__ import main
from ss4d.viewer.page import occupied_voxels, write_player
from ss4d.viewer.payload import (
    GRID_BITS,
    POSITION_BITS,
    ROTATION_RANGE,
    clip_ranges,
    encode_frame,
    nearest_to_identity,
    to_text,
    z_order,
)

ROOT = Path(__file__).parent.parent.parent
NO_VOXELS = np.zeros((0, 3), np.int64)


def random_gaussians(count: int, seed: int = 0) -> Gaussians:
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator)

    rotation = torch.nn.functional.normalize(uniform(count, 4) - 0.5, dim=1)
    scale, opacity = 0.002 + 0.02 * uniform(count, 3), 0.1 + 0.8 * uniform(count, 1)
    return Gaussians(uniform(count, 3) - 0.5, scale, rotation, opacity, 2 * uniform(count, 1, 3) - 1)


def covariances(scale: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    axes = camera_rotations(rotation, torch.eye(4, dtype=rotation.dtype)) * scale.T
    return torch.einsum("ijm,kjm->mik", axes, axes)


def planes(data: bytes, count: int) -> np.ndarray:
    """[16, count] bytes of a frame without voxels."""
    raw = zlib.decompress(data, -15)
    assert np.frombuffer(raw[:8], "<u4").tolist() == [count, 0] and len(raw) == 8 + 16 * count
    return np.frombuffer(raw[8:], np.uint8).reshape(16, count)


def test_text_survives_an_html_parser_and_comes_back() -> None:
    data = bytes(range(256)) * 7 + bytes(20) + b"\x0d" * 20 + b"<" * 20 + b"</script><!--"
    text = to_text(data)
    assert not set(text) & set("\x00\r<") and ord(max(text)) <= 0x82
    groups = ["\x00\r<"[ord(c) - 0x80] if ord(c) >= 0x80 else c for c in text]
    bits = "".join(f"{ord(group):07b}" for group in groups)
    assert bytes(int(bits[i : i + 8], 2) for i in range(0, 8 * len(data), 8)) == data
    random = np.random.default_rng(0).bytes(70000)
    assert len(to_text(random).encode("utf-8")) < 1.18 * len(random)


def test_the_nearest_rotation_is_the_same_gaussian() -> None:
    g = random_gaussians(500)
    scale, turn = nearest_to_identity(g.scale.double().numpy(), g.rotation.double().numpy())
    assert np.abs(turn).max() <= ROTATION_RANGE + 1e-9
    rotation = np.concatenate([np.ones((500, 1)), turn], axis=1)
    again = covariances(torch.from_numpy(scale), torch.from_numpy(rotation))
    torch.testing.assert_close(again, covariances(g.scale.double(), g.rotation.double()), rtol=0, atol=1e-9)


def test_a_frame_decodes_to_what_it_was_within_half_a_step() -> None:
    g = random_gaussians(3000)
    ranges = clip_ranges([g])
    rows = planes(encode_frame(g, NO_VOXELS, ranges), 3000).astype(np.int64)
    code = np.cumsum(rows[0] + (rows[1] << 8) + (rows[2] << 16))
    cell = np.stack([sum(((code >> (3 * b + axis)) & 1) << b for b in range(GRID_BITS)) for axis in range(3)])
    position = ((cell << POSITION_BITS) + rows[3:6] + 0.5) * ranges.size / 2 ** (GRID_BITS + POSITION_BITS)
    true_cell = np.floor((g.xyz.double().numpy() - ranges.origin) / ranges.size * 2**GRID_BITS).astype(np.int64)
    order = np.argsort(z_order(true_cell), kind="stable")
    xyz = g.xyz.double().numpy()[order]
    assert np.abs(position.T + ranges.origin - xyz).max() <= 0.5001 * ranges.size / 2 ** (GRID_BITS + POSITION_BITS)
    low, high = ranges.opacity
    opacity = low + rows[12] * (high - low) / (2 ** ranges.to_json()["bits"]["opacity"] - 1)
    assert np.abs(opacity - g.opacity[order, 0].numpy()).max() <= 0.51 * (high - low) / 63
    low, high = ranges.colour
    colour = low + rows[13:16].T * (high - low) / 127
    assert np.abs(colour - g.rgb[order].clamp_min(0).numpy()).max() <= 0.51 * (high - low) / 127


def test_voxels_are_sorted_codes() -> None:
    voxels = np.array([[63, 0, 1], [0, 0, 0], [5, 6, 7]])
    raw = zlib.decompress(encode_frame(random_gaussians(0), voxels, clip_ranges([])), -15)
    rows = np.frombuffer(raw[8:], np.uint8).reshape(3, 3).astype(int)
    assert np.cumsum(rows[0] + (rows[1] << 8) + (rows[2] << 16)).tolist() == sorted(z_order(voxels).tolist())


def test_the_voxels_of_centres() -> None:
    g = random_gaussians(3)
    g.xyz = torch.tensor([[-0.5, 0.0, 0.49], [-0.49, 0.01, 0.499], [0.7, 0.0, 0.0]])  # the last lies outside
    assert occupied_voxels(g, 4).tolist() == [[0, 2, 3], [3, 2, 2]]


def test_the_page_escapes_its_title_and_names_every_frame(tmp_path: Path) -> None:
    title = "</script><script>alert(1)//"
    write_player(tmp_path / "player.html", GaussianSequence([random_gaussians(5), random_gaussians(0)]), title=title)
    page = (tmp_path / "player.html").read_text("utf-8")
    assert "alert(1)" in page and "</script><script>alert(1)" not in page
    found = re.search(r'<script type="application/json" id="clip">(.*?)</script>', page)
    assert found
    header = json.loads(found[1])
    assert header["title"] == title and header["gaussians"] == [5, 0] and header["input"] == []
    assert page.count('<script type="text/plain" id="frame-') == 2
    assert [path.name for path in tmp_path.iterdir()] == ["player.html"]


def test_a_title_that_is_no_text_and_a_new_folder_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "new" / "player.html"
    write_player(path, GaussianSequence([random_gaussians(5)]), title=os.fsdecode(b"caf\xe9"))
    assert "<title>caf?</title>" in path.read_text("utf-8")


def two_kernels() -> GaussianSequence:
    return GaussianSequence([random_gaussians(4), replace(random_gaussians(4), kernel_size=0.3)])


def test_a_few_that_are_far_out_or_bright_do_not_make_the_others_coarse() -> None:
    g = random_gaussians(2000)
    plain, odd = clip_ranges([g]), replace(g, xyz=g.xyz.clone(), sh=g.sh.clone())
    odd.xyz[0], odd.sh[1] = torch.tensor([0.0, 0.0, 100.0]), 200.0
    ranges = clip_ranges([odd])
    assert ranges.size < 3.1 * plain.size and ranges.colour[1] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sequence": GaussianSequence([])}, "no frames"),
        ({"voxels": [NO_VOXELS] * 2}, "2 sets of voxels for 1 frames"),
        ({"images": np.zeros((3, 8, 8, 3), np.uint8)}, "3 images for 1 frames"),
        ({"resolution": 256}, "resolution is 256"),
        ({"fps": float("nan")}, "fps must be positive, but it is nan"),
        ({"fps": 0.0}, "fps must be positive, but it is 0"),
        ({"resolution": 8, "voxels": [np.array([[0, 8, 0]])]}, "Frame 0 has voxels outside of 0 to 7"),
        ({"sequence": two_kernels()}, "Frame 1 has another kernel_size"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict, message: str, tmp_path: Path) -> None:
    sequence = change.pop("sequence", GaussianSequence([random_gaussians(4)]))
    with pytest.raises(ValueError, match=message):
        write_player(tmp_path / "player.html", sequence, **change)
    assert not list(tmp_path.iterdir())


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    g = random_gaussians(4)
    g.opacity[2] = float("nan")
    with pytest.raises(ValueError, match="Frame 0 has values that are not finite"):
        write_player(tmp_path / "player.html", GaussianSequence([g]))


@pytest.mark.parametrize(
    ("report", "message"),
    [
        (None, "holds no result.json"),
        ("{", "is damaged"),
        ('{"num_frames": 1}', "is damaged"),
        ('{"num_frames": 1, "resolution": 8}', "frame_00000.ply is missing"),
    ],
)
def test_a_folder_that_is_no_result_gets_one_sentence(
    report: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if report is not None:
        (tmp_path / "result.json").write_text(report)
    assert main([str(tmp_path)]) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and message in error and "\n" not in error


def test_the_committed_page_is_what_its_sources_build() -> None:
    if not (ROOT / "viewer" / "node_modules").is_dir():
        pytest.skip("needs `npm ci` in viewer/")
    done = subprocess.run(["npm", "run", "check"], cwd=ROOT / "viewer", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
