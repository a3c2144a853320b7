"""`python -m scripts.eval run` from end to end on small sets."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from eval_runs import DISCS, as_results, results
from eval_sets import SIZE, psnr_of_pictures, write_consistent4d, write_davis
from PIL import Image
from tiny import RESOLUTION, box_voxels

from dataset_toolkits.engine.records import write_table
from scripts.eval.__main__ import main
from ss4d.data.format import artifact_path, read_table
from ss4d.data.views import ViewArchive, ViewArchiveWriter
from ss4d.evaluation.methods.coloured_voxels import even_frames
from ss4d.evaluation.protocol import load_protocol
from ss4d.evaluation.subjects.open import open_subjects

BOXES = [
    *("protocol=ss4d_assets", "protocol.split=train", "protocol.size=32", "protocol.crop_size=32"),
    *("protocol.views.rendered=[0,1]", f"protocol.voxel_resolution={RESOLUTION}", "protocol.figure_views=[0,1]"),
    "protocol.figure_frames=[0,2]",
]


@pytest.mark.parametrize("method", ["true_voxels", "nearest_clip", "average_occupancy", "alpha_copy", "truth", "ours"])
def test_every_method_gets_its_metrics_on_a_prepared_set(
    method: str, clip_folder: Path, pipeline_folder: Path, tmp_path: Path
):
    changes = [*BOXES[1:-1], "protocol.figure_frames=[0,1,2,3]", "protocol.crop=false"]
    arguments = ["protocol=ss4d_assets", *changes, f"method={method}", f"data={clip_folder}", f"out={tmp_path}"]
    arguments += [f"model={pipeline_folder}"] if method == "ours" else []
    assert main(["run", *arguments, "seeds=[0,1]"]) == 0
    protocol = load_protocol("ss4d_assets", [change.removeprefix("protocol.") for change in changes])
    subjects = open_subjects(protocol, clip_folder)
    found = results(tmp_path)
    assert len(found) == 2 * (2 if method == "ours" else 1)
    for path, result in found.items():
        metrics, missing = result["metrics"], result["missing"]
        assert metrics["lpips_alex"] is None and "lpips_alex.safetensors is not given" in missing["lpips_alex"]
        folder = next(tmp_path.glob(f"*/{path}"))
        if method == "alpha_copy":
            assert 0 < metrics["front_iou"] < 1 and metrics["psnr"] is None and metrics["iou"] is None
            assert [file.name for file in folder.iterdir()] == ["result.json"]
            continue
        assert len(list(folder.iterdir())) == 1 + 2 * 4 + 1  # result.json, pictures, a video
        if method == "truth":
            assert metrics["psnr"] == "inf" and metrics["ssim"] == pytest.approx(1)
        else:
            expected = psnr_of_pictures(folder, subjects.load(result["object"]))
            assert metrics["psnr"] == pytest.approx(expected, abs=0.05)  # pictures have 8 bits
        if method in ("true_voxels", "truth"):
            assert (metrics["iou"], metrics["f1"], metrics["chamfer"]) == (1, 1, 0)


def test_the_nearest_clip_is_the_other_object_and_the_average_is_what_both_share(clip_folder: Path, tmp_path: Path):
    for method in ("nearest_clip", "average_occupancy"):
        assert main(["run", *BOXES, f"method={method}", f"data={clip_folder}", f"out={tmp_path}"]) == 0
    found = results(tmp_path)
    assert found["nearest_clip/box0/seed0"]["report"]["clip"] == "box1__slide"
    small, large = (torch.zeros(4, *[RESOLUTION] * 3, dtype=torch.bool) for _ in range(2))
    for grid, side in ((small, 4), (large, 6)):
        grid[tuple(box_voxels(side, 4).long().unbind(1))] = True
    expected = float(((small & large).sum((1, 2, 3)) / (small | large).sum((1, 2, 3))).mean())
    assert found["nearest_clip/box0/seed0"]["metrics"]["iou"] == pytest.approx(expected)
    assert found["average_occupancy/box1/seed0"]["metrics"]["f1"] > 0.5
    assert even_frames(5, 3) == [0, 2, 4] and even_frames(1, 2) == [0, 0]


def test_a_training_clip_seen_edge_on_is_never_the_nearest(clip_folder: Path, tmp_path: Path):
    data = shutil.copytree(clip_folder, tmp_path / "data")
    flat = ViewArchive(artifact_path(data, "render", "box1__slide"))
    picture = np.zeros((flat.index.size, flat.index.size, 4), np.uint8)
    picture[0, 0] = 255  # a single pixel
    with ViewArchiveWriter(flat.path, flat.index) as archive:
        for view, frame in itertools.product(range(2), range(4)):
            archive.add_view(view, frame, picture, np.full(picture.shape[:2], 2.0))
            archive.add_cond(view, frame, picture)
    run = ["run", *BOXES, "method=nearest_clip", f"data={data}", "protocol.objects=[box0]"]
    assert main([*run, f"out={tmp_path / 'alone'}"]) == 1
    failure = next((tmp_path / "alone").rglob("seed0_failed.txt")).read_text()
    assert failure == "there is no other training clip whose input shows enough of it to be compared\n"
    for stage in ("curate", "render", "features", "encode"):
        rows = read_table(data, stage)
        write_table(data, stage, [*rows, json.loads(json.dumps(rows[0]).replace("box0", "box2"))])
        if stage != "curate":
            shutil.copy(artifact_path(data, stage, "box0__slide"), artifact_path(data, stage, "box2__slide"))
    assert main([*run, f"out={tmp_path / 'three'}"]) == 0
    assert results(tmp_path / "three")["nearest_clip/box0/seed0"]["report"]["clip"] == "box2__slide"


def test_the_truth_as_a_folder_of_views_is_perfect(tmp_path: Path):
    data = write_consistent4d(tmp_path / "data")
    folder = as_results(data, tmp_path / "perfect", DISCS)
    options = ["method=views", f"results={folder}", f"data={data}", "label=perfect", f"out={tmp_path / 'out'}"]
    assert main(["run", *DISCS, *options]) == 0
    for result in results(tmp_path / "out").values():
        assert result["metrics"]["psnr"] == "inf" and result["metrics"]["ssim"] == pytest.approx(1)
        assert result["metrics"]["lpips_vgg"] is None


def broken(kind: str, folder: Path) -> Path:
    """Damage the results of one object; returns the file or folder to be named."""
    view = folder / "skull" / "views" / "001"
    file = view / "00001.png"
    if kind == "missing view":
        shutil.rmtree(view)
        return view
    if kind == "wrong size":
        Image.open(file).resize((16, 16)).save(file)
    if kind == "frame count":
        file.unlink()
        return view
    if kind == "not finite":
        file.unlink()
        file = file.with_suffix(".npy")
        np.save(file, np.full((SIZE, SIZE, 3), np.nan, np.float32))
    if kind == "not an image":
        file.write_text("no picture")
    if kind == "other protocol":
        file = folder / "skull" / "protocol.txt"
        file.write_text("0" * 64)
    if kind == "no protocol":
        file = folder / "skull" / "protocol.txt"
        file.unlink()
    return file


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing view", "of view 1 is missing"),
        ("wrong size", "16 x 16 x 4, but the protocol asks for 32"),
        ("frame count", "has 2 frames, but the input has 3"),
        ("not finite", "not finite or not in"),
        ("not an image", "cannot identify image file"),
        ("other protocol", "was made by protocol hash 00000000"),
        ("no protocol", "it holds the hash of the protocol"),
    ],
)
def test_bad_results_are_refused_with_object_and_file(kind: str, says: str, tmp_path: Path, capsys):
    data = write_consistent4d(tmp_path / "data")
    folder = as_results(data, tmp_path / "theirs", DISCS)
    named = broken(kind, folder)
    options = ["method=views", f"results={folder}", f"data={data}", f"out={tmp_path / 'out'}"]
    assert main(["run", *DISCS, *options]) == 1
    message = capsys.readouterr().err
    assert "failed: skull, seed 0: skull: " in message and str(named) in message and says in message
    assert list(results(tmp_path / "out")) == ["views/guppie/seed0"]  # the good one is judged all the same
    changes = [argument for argument in DISCS if argument.startswith("protocol.")]
    assert main(["tables", f"results={tmp_path / 'out'}", f"out={tmp_path}", *changes]) == 0
    assert "this code, 1 object, 1 object failed, 1 seed" in (tmp_path / "tables.md").read_text()
    shutil.rmtree(folder)
    as_results(data, folder, DISCS)
    assert main(["run", *DISCS, *options]) == 0
    assert not list((tmp_path / "out").rglob("*failed*"))  # made now


def test_davis_runs_without_any_truth(tmp_path: Path, pipeline_folder: Path):
    data = write_davis(tmp_path / "data")
    small = ["protocol=davis", "protocol.objects=[]", "protocol.size=32", "protocol.figure_frames=[0,2]"]
    assert (
        main(["run", *small, f"data={data}", f"model={pipeline_folder}", f"out={tmp_path / 'out'}", "seeds=[0]"]) == 0
    )
    found = results(tmp_path / "out")
    assert list(found) == ["ours/bear/seed0", "ours/dog/seed0"]
    assert all(result["metrics"]["flickering"] > 0 for result in found.values())


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (["label=../ours"], "label=../ours names a folder of results: leave out /"),
        (["label=a/b"], "label=a/b names a folder"),
        (["out=/proc/results"], "error: /proc/results: "),  # nobody may write there
        (["out=setup.sh"], "error: setup.sh: File exists"),
    ],
)
def test_a_place_that_cannot_hold_results_is_named_before_anything_is_computed(
    changed: list[str], says: str, tmp_path: Path, capsys
):
    data = write_consistent4d(tmp_path / "data")
    assert main(["run", *DISCS, "method=truth", f"data={data}", f"out={tmp_path / 'out'}", *changed]) == 1
    assert says in capsys.readouterr().err
    assert not (tmp_path / "ours").exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "protocol is missing: give it a value"),
        (["protocol=ss4d"], "There is no protocol 'ss4d'"),
        (["protocol=davis", "metod=ours"], "did you mean method?"),
        (["protocol=davis", "seeds=many"], "seeds"),
        (["protocol=davis", "protocols.size=77"], "there is no option protocols.size; did you mean protocol.?"),
        (["protocol=davis", "method=truth", "steps=3"], "steps=3 is an option of method=ours, not of truth"),
        (["protocol=davis", "refine=true", "method=views"], "refine=True is an option of method=ours, not of views"),
        (["protocol=davis", "azimuth=90"], "azimuth=90 is an option of method=gaussians and meshes, not of ours"),
        (["protocol=davis", "inputs=x", "label=y"], "label=y has no meaning with inputs="),
        (["protocol=davis", "protocol.frmes=3"], "unknown key frmes: did you mean frames?"),
        (["protocol=davis", "protocol.frames=many"], "frames = many must be a whole number"),
        (["protocol=davis", "protocol.metrics=[beauty]"], "there is no metric 'beauty'; choose from psnr"),
        (["protocol=davis", "protocol.metrics=null"], "metrics = null must be a list"),
        (["protocol=davis", "data=nowhere"], "There is no data set of protocol davis at nowhere"),
    ],
)
def test_bad_options_get_one_sentence(arguments: list[str], says: str, capsys):
    assert main(["run", *arguments]) == 1
    assert says in capsys.readouterr().err


def test_the_hash_covers_all_that_is_compared():
    first, second = (load_protocol("davis", [f"crop_margin={margin}"]) for margin in (0, 0.1))
    assert first.hash() != second.hash() and len(first.hash()) == 64
    assert first.hash() == load_protocol("davis").hash()
