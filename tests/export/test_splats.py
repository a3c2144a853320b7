"""Gaussians in SPZ, glTF and USD, read back by programs that are not ours."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from export_checks import LOSSLESS, QUANTISED, GlbFile, convert, psnr, validate, z_up
from scipy.spatial import KDTree

from ss4d.export.__main__ import main
from ss4d.export.gltf import write_gltf
from ss4d.export.mesh import write_mesh
from ss4d.export.video import write_alpha, write_orbit
from ss4d.gaussians import Gaussians, GaussianSequence, read_ply, write_ply
from ss4d.gaussians.ply import multiply_quaternions

EXTENSION = "KHR_gaussian_splatting"
TOP = 0.45  # height of the red knob, which sticks out at the top


def check(found: Gaussians, expected: Gaussians, decibel: float) -> None:
    """The same count, extents and picture."""
    assert len(found) == len(expected)
    for bound in ("amin", "amax"):
        torch.testing.assert_close(getattr(found.xyz, bound)(0), getattr(expected.xyz, bound)(0), rtol=0, atol=1e-4)
    assert psnr(found, expected) >= decibel


def check_up(positions: np.ndarray, colours: np.ndarray) -> None:
    """The knob, in red, is at the top of a file whose y points up."""
    highest = positions[:, 1].argmax()
    assert positions[highest, 1] > TOP and colours[highest, 0] > 2 * colours[highest, 1]


def grey_gaussian() -> Gaussians:
    """One of sRGB 0.5."""
    place, rotation = torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    return Gaussians(place, torch.full((1, 3), 0.01), rotation, torch.full((1, 1), 0.5), torch.zeros(1, 1, 3))


def test_spz_by_gsply(result: Path, sequence: GaussianSequence) -> None:
    gsply = pytest.importorskip("gsply")
    assert main([str(result), "--to", "spz"]) == 0
    files = sorted((result / "exports" / "spz").iterdir())
    assert [file.name for file in files] == ["frame_00000.spz", "frame_00001.spz", "frame_00002.spz"]
    for file, frame in zip(files, sequence, strict=True):
        data = gsply.spz.read_spz(file)
        check_up(data.means, 0.5 + 0.2820948 * data.sh0)
        opacity = 1 / (1 + np.exp(-data.opacities))
        check(z_up(data.means, np.exp(data.scales), data.quats, opacity, data.sh0), frame, QUANTISED)


def test_spz_says_that_its_opacities_count_on_a_compensated_screen_filter(tmp_path: Path) -> None:
    pytest.importorskip("gsply")
    from ss4d.export.spz import write_spz

    write_spz(grey_gaussian(), tmp_path / "grey.spz")
    assert gzip.decompress((tmp_path / "grey.spz").read_bytes())[14] & 1  # the header's flags


@pytest.mark.slow
def test_spz_by_splat_transform(result: Path, sequence: GaussianSequence, tmp_path: Path) -> None:
    """It holds PLY to be y-down, and turns what it reads from SPZ."""
    pytest.importorskip("gsply")
    assert main([str(result), "--to", "spz", "--out", str(tmp_path / "spz")]) == 0
    convert(tmp_path / "spz" / "frame_00000.spz", tmp_path / "back.ply")
    check(read_ply(tmp_path / "back.ply"), sequence[0], QUANTISED)


def read_gltf(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """The primitive and its attributes."""
    file = GlbFile(path)
    primitive = file.document["meshes"][0]["primitives"][0]
    return primitive, {name: file.array(index) for name, index in primitive["attributes"].items()}


def test_gltf_as_specified(result: Path, sequence: GaussianSequence) -> None:
    assert main([str(result), "--to", "gltf"]) == 0
    for index, frame in enumerate(sequence):
        primitive, values = read_gltf(result / "exports" / "gltf" / f"frame_{index:05d}.glb")
        assert primitive["mode"] == 0
        assert primitive["extensions"][EXTENSION] == {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}
        splat = {name.removeprefix(f"{EXTENSION}:"): array for name, array in values.items()}
        wxyz = np.roll(splat["ROTATION"], 1, axis=1)
        sh = splat["SH_DEGREE_0_COEF_0"]
        check(z_up(splat["POSITION"], splat["SCALE"], wxyz, splat["OPACITY"], sh), frame, LOSSLESS)
        check_up(splat["POSITION"], 0.5 + 0.2820948 * sh)
        np.testing.assert_allclose(splat["COLOR_0"][:, 3], frame.opacity[:, 0], atol=0.002)


def test_the_points_of_gltf_have_linear_colours(tmp_path: Path) -> None:
    write_gltf(grey_gaussian(), tmp_path / "grey.glb")
    linear = ((0.5 + 0.055) / 1.055) ** 2.4
    np.testing.assert_allclose(read_gltf(tmp_path / "grey.glb")[1]["COLOR_0"][0, :3], linear, atol=0.002)


def test_gltf_by_trimesh(result: Path, sequence: GaussianSequence) -> None:
    """Which does not know the extension, and sees coloured points."""
    trimesh = pytest.importorskip("trimesh")
    assert main([str(result), "--to", "gltf"]) == 0
    cloud = next(iter(trimesh.load(result / "exports" / "gltf" / "frame_00000.glb").geometry.values()))
    assert isinstance(cloud, trimesh.PointCloud) and len(cloud.vertices) == len(sequence[0])
    check_up(cloud.vertices, np.asarray(cloud.colors) / 255)


@pytest.mark.slow
def test_gltf_as_splat_transform_writes_it(result: Path, sequence: GaussianSequence, tmp_path: Path) -> None:
    write_ply(sequence[0], tmp_path / "frame.ply", layout="reference")
    convert(tmp_path / "frame.ply", tmp_path / "theirs.glb")
    write_gltf(sequence[0], tmp_path / "ours.glb")
    their_primitive, theirs = read_gltf(tmp_path / "theirs.glb")
    our_primitive, ours = read_gltf(tmp_path / "ours.glb")
    assert their_primitive["extensions"][EXTENSION].items() >= our_primitive["extensions"][EXTENSION].items()
    # It makes y-down files y-up by half a turn about z, which leaves the front at -z; in glTF the front is at +z.
    half_turn = np.array([0.0, 0.0, 1.0, 0.0])  # (w, x, y, z), about y
    theirs["POSITION"] = theirs["POSITION"] * [-1, 1, -1]
    _, order = KDTree(theirs["POSITION"]).query(ours["POSITION"])  # it sorts along a curve
    assert len(set(order)) == len(sequence[0])
    for name in ours.keys() - {"COLOR_0", f"{EXTENSION}:ROTATION"}:
        np.testing.assert_allclose(ours[name], theirs[name][order], atol=1e-4, err_msg=name)
    rotation = multiply_quaternions(half_turn, np.roll(theirs[f"{EXTENSION}:ROTATION"], 1, axis=1).astype(float))
    product = np.roll(ours[f"{EXTENSION}:ROTATION"], 1, axis=1) * rotation[order]
    np.testing.assert_allclose(np.abs(product.sum(1)), 1, atol=1e-4)


def test_gltf_by_the_validator(result: Path) -> None:
    """Version 2.0.0-dev.3.10 does not know the extension, nor that its attributes have a colon in their names."""
    assert main([str(result), "--to", "gltf"]) == 0
    issues = validate(result / "exports" / "gltf" / "frame_00000.glb")
    attributes = ("ROTATION", "SCALE", "OPACITY", "SH_DEGREE_0_COEF_0")
    place = f"/meshes/0/primitives/0/attributes/{EXTENSION}:"
    assert set(issues) == {
        ("UNSUPPORTED_EXTENSION", "/extensionsUsed/0"),
        *(("MESH_PRIMITIVE_INVALID_ATTRIBUTE", place + name) for name in attributes),
    }


def test_usd_by_usd_core(result: Path, sequence: GaussianSequence) -> None:
    pytest.importorskip("pxr")
    from pxr import Usd, UsdGeom, UsdVol

    assert main([str(result), "--to", "usd", "--fps", "5"]) == 0
    stage = Usd.Stage.Open(str(result / "exports" / "clip.usdc"))
    assert UsdGeom.GetStageUpAxis(stage) == "Y" and stage.GetTimeCodesPerSecond() == 5
    assert (stage.GetStartTimeCode(), stage.GetEndTimeCode()) == (0, 2)
    prim = stage.GetDefaultPrim()
    assert prim.IsA(UsdVol.ParticleField3DGaussianSplat)
    assert prim.GetAttribute("radiance:sphericalHarmonicsDegree").Get() == 0
    names = ("positions", "scales", "orientations", "opacities", "radiance:sphericalHarmonicsCoefficients")
    for time, frame in enumerate(sequence):
        assert prim.GetAttribute("positions").GetTimeSamples() == [0, 1, 2]
        # Between two frames the first of them stands, since their arrays differ in length.
        xyz, scale, xyzw, opacity, sh = (np.array(prim.GetAttribute(name).Get(time + 0.4)) for name in names)
        check_up(xyz, 0.5 + 0.2820948 * sh)
        check(z_up(xyz, scale, np.roll(xyzw, 1, axis=1), opacity, sh), frame, LOSSLESS)
        extent = np.array(prim.GetAttribute("extent").Get(time))
        assert (extent[0] < xyz.min(0)).all() and (extent[1] > xyz.max(0)).all()
        shown = np.array(prim.GetAttribute("primvars:displayColor").Get(time))  # linear, as USD has it
        srgb = np.where(shown > 0.0031308, 1.055 * shown.clip(1e-9) ** (1 / 2.4) - 0.055, 12.92 * shown)
        np.testing.assert_allclose(srgb, frame.rgb.clamp(0, 1).numpy(), atol=1e-5)


def test_an_empty_frame(tmp_path: Path) -> None:
    pytest.importorskip("gsply")
    pytest.importorskip("pxr")
    from ss4d.export.spz import write_spz
    from ss4d.export.usd import write_usd

    empty = Gaussians(*(torch.zeros(0, *size) for size in ((3,), (3,), (4,), (1,), (1, 3))))
    write_gltf(empty, tmp_path / "empty.glb")
    assert "meshes" not in GlbFile(tmp_path / "empty.glb").document
    write_spz(empty, tmp_path / "empty.spz")
    write_usd(GaussianSequence([empty]), tmp_path / "empty.usda", 12)
    assert {file.name for file in tmp_path.iterdir()} == {"empty.glb", "empty.spz", "empty.usda"}


def test_values_that_are_not_finite(sequence: GaussianSequence, tmp_path: Path) -> None:
    broken = replace(sequence[0], opacity=torch.full_like(sequence[0].opacity, torch.nan))
    with pytest.raises(ValueError, match="not finite"):
        write_gltf(broken, tmp_path / "broken.glb")
    clip = GaussianSequence([broken])
    for write in (
        lambda: write_orbit(clip, tmp_path / "orbit.mp4", 12, size=(32, 32), frames=2),
        lambda: write_alpha(clip, tmp_path / "alpha.webm", 12, size=(32, 32), frames=2),
        lambda: write_mesh(clip, tmp_path / "mesh.glb", 12),
    ):
        with pytest.raises(ValueError, match="not finite"):
            write()
    assert not list(tmp_path.iterdir())
