"""Meshes of other methods through the command: their shape and motion against the true surface."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from eval_sets import SMALL, scores, write_posed_boxes
from tiny import RESOLUTION

from scripts.eval.__main__ import main
from ss4d.data.format import read_table
from ss4d.data.posed_clip import read_posed_clip
from ss4d.evaluation.methods.meshes import Mesh, mesh_voxels

trimesh = pytest.importorskip("trimesh")
CHANGES = [*SMALL, "protocol.metrics=[iou,cd_3d,cd_4d,cd_m]", "protocol.aligned=false"]


@pytest.fixture(scope="module")
def data(clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = shutil.copytree(clip_folder, tmp_path_factory.mktemp("sets") / "data")
    write_posed_boxes(root)
    return root


def write_meshes(data: Path, out: Path, suffix: str = ".glb", y_up: bool = True, still: bool = False) -> Path:
    """The true boxes of the set as another method would write them; `still`: all frames are the first."""
    assert main(["run", *CHANGES, f"data={data}", f"inputs={out}"]) == 0
    for row in read_table(data, "curate"):
        posed = read_posed_clip(data, row["asset"], row["clip"])
        folder = out / row["asset_id"] / "meshes"
        folder.mkdir()
        for frame in range(len(posed.vertices)):
            x, y, z = ((posed.vertices[0 if still else frame] - row["centre"]) * row["scale"]).T
            vertices = np.stack([x, z, -y] if y_up else [x, y, z], axis=1)
            trimesh.Trimesh(vertices, posed.triangles, process=False).export(folder / f"{frame:05d}{suffix}")
    return out


def judged(data: Path, results: Path, out: Path, *options: str) -> dict[str, dict[str, float]]:
    given = [f"data={data}", "method=meshes", f"results={results}", f"out={out}", *options]
    assert main(["run", *CHANGES, *given]) == 0
    return {name.removeprefix("meshes/"): metrics for name, metrics in scores(out).items()}


def test_the_true_meshes_are_at_no_distance_and_still_ones_lack_the_motion(data: Path, tmp_path: Path):
    true = judged(data, write_meshes(data, tmp_path / "true"), tmp_path / "a")
    still = judged(data, write_meshes(data, tmp_path / "still", still=True), tmp_path / "b")
    step = 1 / RESOLUTION  # by which the boxes slide from each of four frames to the next
    for name in ("box0", "box1"):
        # 10,000 points of each surface at random: the nearest of the other is about 0.5 / sqrt(density) away.
        assert max(true[name][metric] for metric in ("cd_3d", "cd_4d", "cd_m")) < 0.02
        assert still[name]["cd_3d"] < 0.02  # each frame alone is right
        assert still[name]["cd_m"] == pytest.approx(2 * 1.5 * step, rel=0.1)  # 0, 1, 2, 3 steps behind, both ways
        assert true[name]["cd_m"] < still[name]["cd_4d"] < still[name]["cd_m"]


def test_every_voxel_that_a_sphere_touches_is_found():
    sphere, resolution = trimesh.creation.icosphere(5, 0.37), 64
    coords = mesh_voxels([Mesh(np.asarray(sphere.vertices), np.asarray(sphere.faces))], resolution).coords
    found = np.zeros((resolution,) * 3, bool)
    found[tuple(coords[:, 1:].numpy().T)] = True
    centres = np.abs((np.stack(np.meshgrid(*[np.arange(resolution)] * 3, indexing="ij"), -1) + 0.5) / resolution - 0.5)
    half = 0.5 / resolution
    nearest, farthest = (np.linalg.norm(np.maximum(centres + side * half, 0), axis=-1) for side in (-1, 1))
    touched = (nearest <= 0.37) & (farthest >= 0.37)
    assert (found & touched).sum() / (found | touched).sum() > 0.99


@pytest.mark.parametrize(("suffix", "y_up"), [(".obj", False), (".ply", True)])
def test_files_and_axes(suffix: str, y_up: bool, data: Path, tmp_path: Path):
    results = write_meshes(data, tmp_path / "results", suffix, y_up)
    found = judged(data, results, tmp_path / "out", f"axes={'y_up' if y_up else 'z_up'}")
    assert found["box0"]["cd_m"] < 0.02 and found["box0"]["iou"] > 0.1


def test_other_triangles_in_each_frame_are_followed_by_the_nearest(data: Path, tmp_path: Path):
    results = write_meshes(data, tmp_path / "results")
    for number, path in enumerate(sorted((results / "box0" / "meshes").iterdir())):
        mesh = trimesh.load_mesh(path, process=False)
        trimesh.Trimesh(mesh.vertices, np.roll(mesh.faces, number, axis=0), process=False).export(path)
    found = judged(data, results, tmp_path / "out")["box0"]
    assert found["cd_3d"] < 0.02 < found["cd_m"]


@pytest.mark.parametrize(
    ("suffix", "content", "says"),
    [(".ply", "no mesh", "cannot be read as a mesh"), (".obj", "v 0 0 0\nv 1 0 0\n", "has no triangles")],
)
def test_what_is_no_mesh_is_refused_with_its_file(
    suffix: str, content: str, says: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    results = write_meshes(data, tmp_path / "results", suffix)
    broken = results / "box0" / "meshes" / f"00002{suffix}"
    broken.write_text(content)
    given = [f"data={data}", "method=meshes", f"results={results}", f"out={tmp_path / 'out'}"]
    assert main(["run", *CHANGES, *given]) == 1
    assert f"failed: box0, seed 0: box0: {broken} {says}" in capsys.readouterr().err
    for azimuth in ("method", "nan", "inf"):
        assert main(["run", *CHANGES, *given, f"azimuth={azimuth}"]) == 1
        assert f"azimuth must be a number of degrees for meshes, but it is {azimuth}" in capsys.readouterr().err
