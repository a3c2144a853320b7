"""The surface as an animated GLB, read by trimesh and the validator of Khronos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from export_checks import GlbFile, validate

from ss4d.export.__main__ import main
from ss4d.gaussians import Gaussians, GaussianSequence

pytest.importorskip("skimage")
pytest.importorskip("fast_simplification")

FPS = 5.0
FACES = 3000


@pytest.fixture(scope="module")
def mesh(result: Path) -> Path:
    out = result / "exports" / "mesh.glb"
    assert main([str(result), "--to", "mesh", "--faces", str(FACES), "--grid", "64", "--fps", str(FPS)]) == 0
    return out


def test_mesh_by_trimesh(mesh: Path, sequence: GaussianSequence) -> None:
    trimesh = pytest.importorskip("trimesh")
    scene = trimesh.load(mesh)
    assert len(scene.geometry) == len(sequence)
    for index, frame in enumerate(sequence):
        surface = scene.geometry[f"frame {index}"]
        assert 0.9 * FACES <= len(surface.faces) <= FACES
        x, z, y = frame.xyz.T  # of ours; theirs is y up
        low = np.array([x.min(), y.min(), -z.max()])
        high = np.array([x.max(), y.max(), -z.min()])
        np.testing.assert_allclose(surface.bounds, [low, high], atol=0.06)
        # A filled ball, with the knob on top: no second surface inside, and turned outwards.
        assert 4 / 3 * np.pi * 0.3**3 < surface.volume < 4 / 3 * np.pi * 0.35**3
        lit = np.asarray(surface.visual.vertex_attributes["color"], float)
        highest = surface.vertices[:, 1].argmax()
        assert lit[highest, 0] > 5 * lit[highest, 1]
        rightmost = surface.vertices[:, 0].argmax()
        assert lit[rightmost, 0] > 3 * lit[rightmost, 1]


def test_mesh_by_the_validator(mesh: Path) -> None:
    assert validate(mesh) == []


def test_one_frame_is_seen_at_any_time(mesh: Path, sequence: GaussianSequence) -> None:
    file = GlbFile(mesh)
    (animation,) = file.document["animations"]
    for time in np.linspace(0, len(sequence) / FPS, 31):
        seen = []
        for channel in animation["channels"]:
            sampler = animation["samplers"][channel["sampler"]]
            assert channel["target"]["path"] == "scale" and sampler["interpolation"] == "STEP"
            times, scales = file.array(sampler["input"])[:, 0], file.array(sampler["output"])
            if scales[np.searchsorted(times, np.float32(time), side="right") - 1].all():
                seen.append(channel["target"]["node"])
        assert seen == [min(int(time * FPS + 1e-6), len(sequence) - 1)]
    resting = [node.get("scale", [1, 1, 1])[0] for node in file.document["nodes"]]
    assert resting == [1, 0, 0]


def test_a_giant_among_small_ones_does_not_take_all_memory() -> None:
    from ss4d.export.surface import density

    count = 8
    xyz, sizes = 0.01 * torch.rand(count, 3), torch.full((count, 3), 0.002)
    sizes[0] = 0.5
    rotation, shape = torch.tensor([[1.0, 0, 0, 0]]).expand(count, 4), (count, 1)
    field = density(Gaussians(xyz, sizes, rotation, torch.full(shape, 0.9), torch.zeros(count, 1, 3)), 40)
    assert max(field.density.shape) <= 2 * 40 + 12
    assert field.density.max() > 0.5


def test_a_mesh_of_another_kind_of_file_is_refused(tmp_path: Path, sequence: GaussianSequence) -> None:
    from ss4d.export.mesh import write_mesh

    with pytest.raises(ValueError, match=r"Meshes are written as \.glb"):
        write_mesh(sequence, tmp_path / "mesh.gltf", 12)


def test_nothing_dense(tmp_path: Path) -> None:
    from ss4d.export.mesh import write_mesh

    empty = Gaussians(*(torch.zeros(0, *size) for size in ((3,), (3,), (4,), (1,), (1, 3))))
    with pytest.raises(ValueError, match="dense enough"):
        write_mesh(GaussianSequence([empty]), tmp_path / "mesh.glb", 12)
    assert not list(tmp_path.iterdir())
