"""`ss4d_assets` on a fixed list of objects of several kinds, some of them without motion, as it is and aligned."""

from __future__ import annotations

import csv
import hashlib
import shutil
from pathlib import Path

import pyarrow.parquet
import pytest
from eval_sets import SMALL, scores, write_posed_boxes

from dataset_toolkits.engine.records import write_table
from scripts.eval.__main__ import main
from ss4d.evaluation.protocol import load_protocol

ROOT = Path(__file__).parents[2]


@pytest.fixture
def data(clip_folder: Path, tmp_path: Path) -> Path:
    """The two boxes; of the second there is one frame."""
    root = shutil.copytree(clip_folder, tmp_path / "data")
    rows = pyarrow.parquet.read_table(root / "tables" / "render.parquet").to_pylist()
    write_table(root, "render", [row | {"frames": 1 if row["name"].startswith("box1") else 4} for row in rows])
    (tmp_path / "kinds.yaml").write_text("animated: [box0]\nstatic: [box1]\n")
    return root


def table(path: Path) -> dict[tuple[str, str], str]:
    with path.open() as file:
        return {(row["method"], row["metric"]): row["mean"] for row in csv.DictReader(file)}


def test_static_objects_lack_video_metrics_alone_and_each_kind_has_its_table(data: Path, tmp_path: Path):
    given = [*SMALL, f"protocol.objects_file={tmp_path / 'kinds.yaml'}", f"data={data}", f"out={tmp_path / 'out'}"]
    for method in ("true_voxels", "nearest_clip", "truth", "alpha_copy"):
        assert main(["run", *given, f"method={method}"]) == 0
    found = scores(tmp_path / "out")
    moving, still = found["true_voxels/box0"], found["true_voxels/box1"]
    assert moving["flickering"] > 0 and still["flickering"] is None and still["psnr"] > 0
    assert found["truth/box0"]["flickering"] == moving["flickering_target"] > 0
    assert (moving["iou"], still["iou"]) == (1, 1)
    assert 0 < moving["aligned_iou"] < 1 and moving["aligned_psnr"] > 0 and "aligned_fvd" not in moving
    assert found["truth/box0"]["aligned_f1"] > 0 and found["truth/box0"]["aligned_psnr"] is None
    assert found["alpha_copy/box0"]["aligned_front_iou"] == found["alpha_copy/box0"]["front_iou"]
    changes = [argument for argument in given if argument.startswith("protocol.")]
    assert main(["tables", f"results={tmp_path / 'out'}", f"out={tmp_path}", *changes]) == 0
    categories = table(tmp_path / "table_assets_categories.csv")
    assert float(categories["cube: true_voxels", "psnr"]) == pytest.approx(moving["psnr"])
    assert float(categories["crate: true_voxels", "psnr"]) == pytest.approx(still["psnr"])
    assert ("crate: truth", "fvd") not in categories
    both, static = table(tmp_path / "table_assets.csv"), table(tmp_path / "table_assets_static.csv")
    assert float(both["true_voxels", "flickering"]) == pytest.approx(moving["flickering"])
    assert static["true_voxels", "flickering"] == "n/a"
    assert float(static["true_voxels", "psnr"]) == pytest.approx(still["psnr"])
    aligned = table(tmp_path / "table_assets_aligned_animated.csv")
    assert float(aligned["true_voxels", "aligned_iou"]) == pytest.approx(moving["aligned_iou"])


def test_frames_beyond_the_protocols_are_nobodys(clip_folder: Path, tmp_path: Path):
    """The true voxels are those of the first frames, as the target is, and the nearest clip is as long as the input."""
    given = [*SMALL, "protocol.frames=2", f"data={clip_folder}", f"out={tmp_path}"]
    for method in ("true_voxels", "nearest_clip"):
        assert main(["run", *given, f"method={method}"]) == 0
    found = scores(tmp_path)
    for name in ("box0", "box1"):
        assert (found[f"true_voxels/{name}"]["iou"], found[f"true_voxels/{name}"]["f1"]) == (1, 1)
    # Boxes of 4 and 6 voxels that both start at the same corner and move alike: the small one lies in the large.
    assert found["nearest_clip/box0"]["iou"] == pytest.approx(4**3 / 6**3)


def test_the_list_of_ss4d_assets_is_the_one_it_says():
    path = ROOT / "configs" / "eval" / "objects" / "ss4d_assets.yaml"
    protocol = load_protocol("ss4d_assets", [f"objects_file={path}"])
    assert {kind: len(names) for kind, names in protocol.kinds.items()} == {
        "animated": 13,
        "animated2": 15,
        "static": 40,
    }
    assert len(protocol.objects) == 68 and protocol.objects_file is None
    digests = [hashlib.sha256(name.encode()).hexdigest() for name in protocol.kinds["static"]]
    assert max(digests) < "90"  # the smallest 40 of 77 evenly spread ones
    assert protocol.hash() != load_protocol("ss4d_assets").hash()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read"),
        ("- box0\n", "must map keys to values"),
        ("a: [box0]\nb: [box0]\n", "lists an object twice"),
        ("a: [box7]\n", "no accepted clip of box7"),
    ],
)
def test_a_list_that_cannot_be_used_gets_one_sentence(
    content: str | None, says: str, clip_folder: Path, tmp_path: Path, capsys
):
    path = tmp_path / "list.yaml"
    if content is not None:
        path.write_text(content)
    assert main(["run", *SMALL, f"protocol.objects_file={path}", f"data={clip_folder}", "method=truth"]) == 1
    assert says in capsys.readouterr().err


def test_motion_is_compared_with_the_posed_surface(clip_folder: Path, tmp_path: Path, capsys):
    root = shutil.copytree(clip_folder, tmp_path / "data")
    write_posed_boxes(root)
    options = [*SMALL, "protocol.metrics=[cd_3d,cd_4d,cd_m]", "protocol.aligned=false", f"data={root}"]
    assert main(["run", *options, "method=true_voxels", f"out={tmp_path / 'out'}"]) == 0
    metrics = scores(tmp_path / "out")["true_voxels/box0"]
    assert 0 < metrics["cd_3d"] <= metrics["cd_4d"] < metrics["cd_m"] < 0.15  # voxels are 0.0625 wide, boxes solid
    shutil.rmtree(root / "pose")
    assert main(["run", *options, "method=true_voxels", f"out={tmp_path / 'other'}"]) == 1
    assert "pose" in capsys.readouterr().err
