"""PLY files: against the released writer, the `plyfile` package and, where installed, splat-transform."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ss4d.gaussians import Gaussians
from ss4d.gaussians.ply import (
    COLUMNS,
    REST,
    Layout,
    Up,
    canonical_quaternions,
    has_higher_harmonics,
    read_ply,
    write_ply,
)

GOLDEN = Path(__file__).parents[1] / "fixtures" / "golden" / "i_gaussian_ply"


def random_gaussians(count: int, seed: int = 0) -> Gaussians:
    g = torch.Generator().manual_seed(seed)
    return Gaussians(
        torch.rand(count, 3, generator=g) - 0.5,
        torch.exp(torch.randn(count, 3, generator=g) - 4),
        torch.nn.functional.normalize(torch.randn(count, 4, generator=g), dim=1),
        torch.sigmoid(3 * torch.randn(count, 1, generator=g)),
        torch.randn(count, 1, 3, generator=g),
    )


def golden_gaussians() -> tuple[Gaussians, dict[str, torch.Tensor]]:
    golden = load_file(GOLDEN.with_suffix(".safetensors"))
    names = ("xyz", "scaling", "rotation", "opacity", "features")
    return Gaussians(*(golden[f"out.get_{name}"] for name in names)), golden


def table(path: Path) -> np.ndarray:
    plyfile = pytest.importorskip("plyfile")
    vertex = plyfile.PlyData.read(path)["vertex"]
    assert [p.name for p in vertex.properties] == list(COLUMNS)
    return np.stack([vertex[name] for name in COLUMNS], axis=1)


def test_columns_are_the_released_ones() -> None:
    assert list(COLUMNS) == json.loads(GOLDEN.with_suffix(".json").read_text())["columns"]


def test_the_screen_filter_travels_with_the_file(tmp_path: Path) -> None:
    write_ply(dataclasses.replace(random_gaussians(3), kernel_size=0.3), tmp_path / "g.ply")
    assert read_ply(tmp_path / "g.ply").kernel_size == 0.3
    without = (tmp_path / "g.ply").read_bytes().replace(b"comment ss4d kernel_size 0.3\n", b"")
    (tmp_path / "other.ply").write_bytes(without)
    assert read_ply(tmp_path / "other.ply").kernel_size == 0.1


def test_minus_y_up_equals_the_released_file(tmp_path: Path) -> None:
    gaussians, golden = golden_gaussians()
    write_ply(gaussians, tmp_path / "g.ply")
    np.testing.assert_allclose(table(tmp_path / "g.ply"), golden["out.ply_default"], atol=2e-6)


def test_plus_z_up_equals_the_released_file_up_to_quaternion_length_and_sign(tmp_path: Path) -> None:
    gaussians, golden = golden_gaussians()
    write_ply(gaussians, tmp_path / "g.ply", up="+z")
    ours, theirs = table(tmp_path / "g.ply"), golden["out.ply_notransform"].numpy()
    np.testing.assert_allclose(ours[:, :13], theirs[:, :13], atol=2e-6)
    theirs_unit = theirs[:, 13:] / np.linalg.norm(theirs[:, 13:], axis=1, keepdims=True)
    np.testing.assert_allclose(np.abs((ours[:, 13:] * theirs_unit).sum(1)), 1, atol=1e-6)


@pytest.mark.parametrize("layout", ["compact", "reference"])
@pytest.mark.parametrize("up", ["-y", "+y", "+z"])
@pytest.mark.parametrize("count", [0, 1, 500])
def test_round_trip(tmp_path: Path, up: Up, layout: Layout, count: int) -> None:
    before = random_gaussians(count)
    write_ply(before, tmp_path / "g.ply", up, layout)
    after = read_ply(tmp_path / "g.ply")  # the header says which axis is up
    for name in ("xyz", "scale", "opacity", "sh"):
        torch.testing.assert_close(getattr(after, name), getattr(before, name), atol=1e-6, rtol=1e-6)
    sign = torch.sign((after.rotation * before.rotation).sum(1, keepdim=True))
    torch.testing.assert_close(after.rotation * sign, before.rotation, atol=1e-6, rtol=0)
    assert os.listdir(tmp_path) == ["g.ply"]


def test_extreme_opacity_and_scale_stay_finite(tmp_path: Path) -> None:
    g = random_gaussians(2)
    g.opacity[:, 0] = torch.tensor([0.0, 1.0])
    g.scale[0] = 0
    write_ply(g, tmp_path / "g.ply")
    after = read_ply(tmp_path / "g.ply")
    torch.testing.assert_close(after.opacity, g.opacity, atol=1e-6, rtol=0)
    torch.testing.assert_close(after.scale, g.scale, atol=1e-6, rtol=0)


def test_logits_and_logarithms_beyond_all_numbers_and_rotations_of_length_0_are_read(tmp_path: Path) -> None:
    g = random_gaussians(3)
    write_ply(g, tmp_path / "g.ply")
    data, columns = (tmp_path / "g.ply").read_bytes(), len(COLUMNS)
    values = np.frombuffer(data[-4 * 3 * columns :], "<f4").reshape(3, columns).copy()
    values[0, COLUMNS.index("opacity")], values[1, COLUMNS.index("scale_0")] = -1000, 100
    values[2, COLUMNS.index("rot_0") :] = 0
    (tmp_path / "h.ply").write_bytes(data[: -4 * 3 * columns] + values.tobytes())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        after = read_ply(tmp_path / "h.ply")
    assert float(after.opacity[0, 0]) == 0 and math.isinf(float(after.scale[1, 0]))
    assert after.rotation[2].tolist() == [1.0, 0.0, 0.0, 0.0]


def test_extra_columns_and_elements_are_read_over(tmp_path: Path) -> None:
    plyfile = pytest.importorskip("plyfile")
    g = random_gaussians(5)
    write_ply(g, tmp_path / "g.ply")
    ours = table(tmp_path / "g.ply")
    names = ["f_rest_0", *reversed(COLUMNS)]
    vertex = np.zeros(5, dtype=[(name, "<f4") for name in names])
    for name, values in zip(COLUMNS, ours.T, strict=True):
        vertex[name] = values
    other = plyfile.PlyElement.describe(np.zeros(2, dtype=[("k", "<i4")]), "other")
    plyfile.PlyData([plyfile.PlyElement.describe(vertex, "vertex"), other]).write(tmp_path / "h.ply")
    torch.testing.assert_close(read_ply(tmp_path / "h.ply").xyz, g.xyz, atol=1e-6, rtol=0)


def test_colours_depend_on_the_view_where_a_higher_harmonic_is_not_0(tmp_path: Path) -> None:
    plyfile = pytest.importorskip("plyfile")
    write_ply(random_gaussians(3), tmp_path / "g.ply", layout="reference")
    assert not has_higher_harmonics(tmp_path / "g.ply")
    data = plyfile.PlyData.read(tmp_path / "g.ply")
    data["vertex"]["f_rest_7"][1] = 0.5
    data.write(tmp_path / "h.ply")
    assert has_higher_harmonics(tmp_path / "h.ply")


def test_the_largest_component_of_a_rotation_becomes_positive() -> None:
    given = np.array([[-2.0, 0.0, 0.0, 0.0], [3.0, 0.0, -4.0, 0.0], [0.0, 4.0, 0.0, -3.0]])
    expected = [[1.0, 0.0, 0.0, 0.0], [-0.6, 0.0, 0.8, 0.0], [0.0, 0.8, 0.0, -0.6]]
    np.testing.assert_allclose(canonical_quaternions(given), expected, atol=1e-12)


def test_broken_files_raise_one_clear_sentence(tmp_path: Path) -> None:
    write_ply(random_gaussians(4), tmp_path / "good.ply")
    good = (tmp_path / "good.ply").read_bytes()
    cases = {
        "is not a PLY file": b"PK\x03\x04 something else",
        "has no complete PLY header": good[:60],
        "is truncated: 4 Gaussians": good[:-1],
        "is not binary little endian": good.replace(b"binary_little_endian", b"ascii"),
        "lacks the columns": good.replace(b"property float opacity", b"property float opaqueness"),
        "not a plain number": good.replace(b"property float opacity", b"property list uchar int opacity"),
        "does not begin with a vertex element": good.replace(b"element vertex", b"element face"),
        "was written with -y up": good,
        "bad.ply says that its kernel_size is abc": good.replace(b"kernel_size 0.1", b"kernel_size abc"),
        "bad.ply says that its kernel_size is 0": good.replace(b"kernel_size 0.1", b"kernel_size 0"),
        "says that '\\+x' points up": good.replace(b"comment ss4d up -y", b"comment ss4d up +x"),
    }
    for message, content in cases.items():
        (tmp_path / "bad.ply").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_ply(tmp_path / "bad.ply", "+z" if content is good else None)
    with pytest.raises(ValueError, match="up must be"):
        read_ply(tmp_path / "good.ply", "+x")  # type: ignore[arg-type]


def test_a_huge_count_is_a_truncated_file(tmp_path: Path) -> None:
    write_ply(random_gaussians(4), tmp_path / "g.ply")
    content = (tmp_path / "g.ply").read_bytes().replace(b"element vertex 4", b"element vertex 99999999999999")
    (tmp_path / "g.ply").write_bytes(content)
    with pytest.raises(ValueError, match="is truncated: 99999999999999 Gaussians"):
        read_ply(tmp_path / "g.ply")


@pytest.mark.parametrize(("up", "former"), [("-y", "y_up"), ("+z", "z_up")])
def test_files_of_earlier_versions_are_read(tmp_path: Path, up: Up, former: str) -> None:
    """Their comment stood on the third line, and called -y up "y_up"."""
    g = random_gaussians(5)
    write_ply(g, tmp_path / "g.ply", up)
    content = (tmp_path / "g.ply").read_bytes().replace(f"comment ss4d up {up}\n".encode(), b"")
    old = content.replace(b"element vertex", f"comment ss4d axes {former}\nelement vertex".encode())
    (tmp_path / "g.ply").write_bytes(old)
    torch.testing.assert_close(read_ply(tmp_path / "g.ply").xyz, g.xyz, atol=1e-6, rtol=0)


def test_files_without_our_comment_have_minus_y_up(tmp_path: Path) -> None:
    g = random_gaussians(5)
    write_ply(g, tmp_path / "g.ply")
    (tmp_path / "g.ply").write_bytes((tmp_path / "g.ply").read_bytes().replace(b"comment ss4d up -y\n", b""))
    torch.testing.assert_close(read_ply(tmp_path / "g.ply").xyz, g.xyz, atol=1e-6, rtol=0)


def test_what_is_up_here_lies_at_negative_y_in_the_file(tmp_path: Path) -> None:
    """COLMAP's axes, as in all scenes of 3D Gaussian Splatting: the camera of the front view, at -y here, looks
    along +z there, with +x to the right and +y down."""
    g = random_gaussians(1)
    g.xyz[0] = torch.tensor([0.1, -0.2, 0.3])  # right, towards the viewer, up
    write_ply(g, tmp_path / "g.ply")
    np.testing.assert_allclose(table(tmp_path / "g.ply")[0, :3], [0.1, -0.3, -0.2], atol=1e-6)


def test_the_reference_layout_suits_readers_that_fix_line_and_stride(tmp_path: Path) -> None:
    g = random_gaussians(3)
    write_ply(g, tmp_path / "g.ply", layout="reference")
    header, data = (tmp_path / "g.ply").read_bytes().split(b"end_header\n", 1)
    lines = header.decode().splitlines()
    assert lines[:3] == ["ply", "format binary_little_endian 1.0", "element vertex 3"]
    names = [line.split()[-1] for line in lines if line.startswith("property float ")]
    assert names == [*COLUMNS[:9], *REST, *COLUMNS[9:]] and len(names) == 62
    assert lines.index("property float x") == 3 and lines[65:] == ["comment ss4d up -y", "comment ss4d kernel_size 0.1"]
    records = np.frombuffer(data, "<f4").reshape(3, 248 // 4)
    assert not records[:, 9:54].any()
    write_ply(g, tmp_path / "h.ply")
    np.testing.assert_array_equal(np.delete(records, np.s_[9:54], axis=1), table(tmp_path / "h.ply"))


def test_values_that_are_not_finite_leave_no_file(tmp_path: Path) -> None:
    g = random_gaussians(3)
    g.scale[1, 1] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        write_ply(g, tmp_path / "g.ply")
    assert os.listdir(tmp_path) == []


def test_splat_transform_reads_the_same_scene(tmp_path: Path) -> None:
    tool = os.environ.get("SPLAT_TRANSFORM") or shutil.which("splat-transform")
    if tool is None:
        pytest.skip("needs @playcanvas/splat-transform on PATH or named by SPLAT_TRANSFORM")
    write_ply(random_gaussians(300), tmp_path / "in.ply")
    subprocess.run([tool, "in.ply", "out.csv"], cwd=tmp_path, check=True, capture_output=True, timeout=120)
    header, *rows = (tmp_path / "out.csv").read_text().strip().splitlines()
    theirs = np.array([[float(v) for v in row.split(",")] for row in rows])
    names, ours = header.split(","), table(tmp_path / "in.ply")
    assert len(rows) == 300
    for k, axis in enumerate("xyz"):
        column = theirs[:, names.index(axis)]
        assert [column.min(), column.max()] == pytest.approx([ours[:, k].min(), ours[:, k].max()], abs=1e-5)


@pytest.mark.parametrize(("up", "place"), [("-y", (1, -3, 2)), ("+y", (1, 3, -2)), ("+z", (1, 2, 3))])
def test_the_axis_that_points_up(tmp_path: Path, up: Up, place: tuple[int, int, int]) -> None:
    """Where the file has the point (1, 2, 3) of our world, 3 above the ground."""
    g = random_gaussians(1)
    g.xyz[:] = torch.tensor([1.0, 2.0, 3.0])
    write_ply(g, tmp_path / "g.ply", up)
    with (tmp_path / "g.ply").open("rb") as file:
        table = np.frombuffer(file.read().split(b"end_header\n")[1], "<f4")
    np.testing.assert_allclose(table[:3], place, atol=1e-6)
