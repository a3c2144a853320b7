"""Files that would be read as something else are read right, or refused with their name, through the real command."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from eval_sets import SIZE, disc, write_consistent4d, write_davis
from PIL import Image
from tiny import RESOLUTION

from scripts.eval.__main__ import main
from ss4d.evaluation.methods.coloured_voxels import voxel_gaussians
from ss4d.gaussians.ply import write_ply

DISCS = [
    *("protocol=consistent4d", "protocol.objects=[guppie]", f"protocol.size={SIZE}", "protocol.crop_size=32"),
    *("protocol.views.azimuths=[0,90]", "protocol.figure_views=[0,1]", "protocol.figure_frames=[0]"),
    "protocol.metrics=[psnr]",
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_consistent4d(tmp_path / "data", ("guppie",))


def theirs(data: Path, folder: Path, change: Callable[[np.ndarray], Any], suffix: str = ".png") -> Path:
    """The true views, straight alpha [S, S, 4] in [0, 1], changed and written as another method's."""
    assert main(["run", *DISCS, f"data={data}", f"inputs={folder}"]) == 0
    for view in range(2):
        target = folder / "guppie" / "views" / f"{view:03d}"
        target.mkdir(parents=True)
        for frame in range(3):
            image = change(soft(disc(frame, shift=view) / 255.0))
            if suffix == ".npy":
                np.save(target / f"{frame}.npy", image.astype(np.float32))
            else:
                Image.fromarray(image).save(target / f"{frame}.png")
    return folder


def soft(rgba: np.ndarray) -> np.ndarray:
    """With a rim of half alpha in the disc's colours."""
    return np.where(np.arange(SIZE)[:, None, None] % 4 == 0, rgba * [1, 1, 1, 0.5], rgba)


def eight_bits(image: np.ndarray) -> np.ndarray:
    return (255 * image).round().astype(np.uint8)


def over(image: np.ndarray, colour: float) -> np.ndarray:
    return image[..., 3:] * image[..., :3] + (1 - image[..., 3:]) * colour


def judge(data: Path, folder: Path, out: Path, method: str = "views") -> int:
    return main(["run", *DISCS, f"method={method}", f"results={folder}", f"data={data}", f"out={out}"])


def psnr(out: Path) -> float:
    return float(json.loads(next(out.rglob("result.json")).read_text())["metrics"]["psnr"])


def test_float_rgba_and_8_bit_rgba_and_rgb_over_white_are_the_same(data: Path, tmp_path: Path):
    found = []
    kinds: list[tuple[str, str, Callable[[np.ndarray], Any]]] = [
        ("float", ".npy", lambda image: image),
        ("rgba", ".png", eight_bits),
        ("rgb", ".png", lambda image: eight_bits(over(image, 1.0))),
    ]
    for name, suffix, change in kinds:
        assert judge(data, theirs(data, tmp_path / name, change, suffix), tmp_path / f"out_{name}") == 0
        found.append(psnr(tmp_path / f"out_{name}"))
    assert found == pytest.approx([found[0]] * 3, abs=0.05)


def test_16_bit_grey_is_scaled(data: Path, tmp_path: Path):
    def grey(image: np.ndarray) -> np.ndarray:
        return (65535 * over(image, 1.0).mean(axis=2)).astype(np.uint16)

    def grey_8(image: np.ndarray) -> np.ndarray:
        return (grey(image) / 257).round().astype(np.uint8)

    found = []
    for name, change in (("8", grey_8), ("16", grey)):
        assert judge(data, theirs(data, tmp_path / name, change), tmp_path / f"out_{name}") == 0
        found.append(psnr(tmp_path / f"out_{name}"))
    assert found[0] == pytest.approx(found[1], abs=0.01)


@pytest.mark.parametrize(
    ("change", "suffix", "says"),
    [
        (lambda image: eight_bits(over(image, 0.0)), ".png", "stands on the colour (0.00, 0.00, 0.00), but"),
        (lambda image: over(image, 0.0), ".npy", "stands on the colour (0.00, 0.00, 0.00), but"),
        (lambda image: np.dstack([over(image, 0.0), image[..., 3]]), ".npy", "premultiplied"),
        (lambda image: eight_bits(np.dstack([over(image, 0.0), image[..., 3]])), ".png", "premultiplied"),
    ],
)
def test_other_backgrounds_and_premultiplied_alpha_are_refused(
    change: Callable[[np.ndarray], Any], suffix: str, says: str, data: Path, tmp_path: Path, capsys
):
    folder = theirs(data, tmp_path / "theirs", change, suffix)
    assert judge(data, folder, tmp_path / "out") == 1
    message = capsys.readouterr().err
    assert says in message and str(folder / "guppie" / "views" / "000" / f"0{suffix}") in message


@pytest.mark.parametrize("kind", ["empty", "text", "complex"])
def test_arrays_of_no_real_numbers_are_refused_by_name(kind: str, data: Path, tmp_path: Path, capsys):
    folder = theirs(data, tmp_path / "theirs", lambda image: over(image, 1.0), ".npy")
    file = folder / "guppie" / "views" / "000" / "0.npy"
    if kind == "empty":
        file.write_bytes(b"")
    else:
        np.save(file, np.full(np.load(file).shape, "x" if kind == "text" else 1j))
    assert judge(data, folder, tmp_path / "out") == 1
    says = "is empty" if kind == "empty" else "does not hold an array of real numbers"
    assert f"failed: guppie, seed 0: guppie: {file} {says}" in capsys.readouterr().err


def broken(kind: str, folder: Path) -> Path:
    views = folder / "guppie" / "views"
    first = views / "000"
    if kind == "gap":
        (first / "1.png").rename(first / "7.png")
        return first
    if kind == "late":
        for number in (2, 1, 0):
            (first / f"{number}.png").rename(first / f"{number + 7}.png")
        return first
    if kind == "twice":
        (first / "1.png").rename(first / "00.png")
        return first
    if kind == "no number":
        for path in first.iterdir():
            path.rename(first / f"{'abc'[int(path.stem)]}.png")
        return first / "a.png"
    named = views / {"unknown view": "002", "named view": "front", "view twice": "1"}[kind]
    shutil.copytree(first, named)
    return views / "1" if kind == "view twice" else named


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("gap", "has a gap: frame 0 is followed by 2"),
        ("late", "begin with 7: number them from 0"),
        ("twice", "is a second frame 0"),
        ("no number", "has no number in its name"),
        ("unknown view", "is none of the 2 views of the protocol"),
        ("named view", "is none of the 2 views of the protocol"),
        ("view twice", "is none of the 2 views of the protocol"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(kind: str, says: str, data: Path, tmp_path: Path, capsys):
    folder = theirs(data, tmp_path / "theirs", eight_bits)
    named = broken(kind, folder)
    assert judge(data, folder, tmp_path / "out") == 1
    message = capsys.readouterr().err
    assert "failed: guppie, seed 0: guppie: " in message and str(named) in message and says in message


def test_colours_that_depend_on_the_view_are_refused(data: Path, tmp_path: Path, capsys):
    folder = tmp_path / "theirs"
    assert main(["run", *DISCS, f"data={data}", f"inputs={folder}"]) == 0
    target = folder / "guppie" / "gaussians"
    target.mkdir()
    for frame in range(3):
        write_ply(
            voxel_gaussians(torch.tensor([[8, 8, 8]]), torch.ones(3), RESOLUTION),
            target / f"{frame}.ply",
            layout="reference",
        )
    assert judge(data, folder, tmp_path / "out", "gaussians") == 0  # all of its higher harmonics are 0
    file = target / "1.ply"
    content = file.read_bytes()
    head, data_bytes = content.split(b"end_header\n")
    place = 4 * [line.split()[-1] for line in head.decode().splitlines() if line.startswith("property")].index(
        "f_rest_7"
    )
    file.write_bytes(head + b"end_header\n" + data_bytes[:place] + np.float32(0.3).tobytes() + data_bytes[place + 4 :])
    assert judge(data, folder, tmp_path / "other", "gaussians") == 1
    assert f"guppie: {file} has colours that depend on the view" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("gap", "has a gap: frame 0 is followed by 2"),
        ("shifted", "have other numbers than those in"),
        ("premultiplied", "look premultiplied"),
        ("view", "has no azimuth in the protocol"),
    ],
)
def test_a_data_set_that_would_be_misread_is_refused(kind: str, says: str, data: Path, tmp_path: Path, capsys):
    folder = data / "gt" / "guppie" / "eval_1"
    if kind == "gap":
        (folder / "1.png").rename(folder / "3.png")
    if kind == "shifted":
        for frame in (2, 1, 0):
            (folder / f"{frame}.png").rename(folder / f"{frame + 1}.png")
    if kind == "view":
        shutil.copytree(folder, folder.with_name("eval_2"))
        folder = folder.with_name("eval_2")
    if kind == "premultiplied":
        for frame in range(3):
            image = soft(disc(frame) / 255.0)
            Image.fromarray(eight_bits(np.dstack([over(image, 0.0), image[..., 3]]))).save(folder / f"{frame}.png")
    assert main(["run", *DISCS, "method=truth", f"data={data}", f"out={tmp_path / 'out'}"]) == 1
    message = capsys.readouterr().err
    assert says in message and str(folder) in message


def test_masks_of_other_frames_are_refused_and_16_bit_labels_are_read(tmp_path: Path, pipeline_folder: Path, capsys):
    data = write_davis(tmp_path / "data", ("bear",))
    options = ["protocol=davis", "protocol.objects=[bear]", "protocol.size=32", f"data={data}"]
    masks = data / "Annotations" / "480p" / "bear"
    for file in masks.iterdir():
        label = np.asarray(Image.open(file)).astype(np.uint16)  # 1 of 65535 is an object all the same
        Image.fromarray(label).save(file)
    assert main(["run", *options, f"inputs={tmp_path / 'inputs'}"]) == 0
    with Image.open(tmp_path / "inputs" / "bear" / "input" / "00000.png") as image:
        assert 0.1 < (np.asarray(image)[..., 3] > 127).mean() < 0.9
    (masks / "00002.png").rename(masks / "00003.png")
    assert main(["run", *options, f"inputs={tmp_path / 'inputs'}"]) == 1
    assert f"{masks} has a gap: frame 1 is followed by 3" in capsys.readouterr().err
