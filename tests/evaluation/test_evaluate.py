"""`python -m scripts.eval run` from end to end on small sets."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from eval_sets import SIZE, psnr_of_pictures, write_consistent4d, write_davis
from PIL import Image
from safetensors.torch import save_file
from tiny import RESOLUTION, box_voxels

from scripts.eval.__main__ import main
from ss4d.evaluation.identity import checkpoint_hash
from ss4d.evaluation.methods.coloured_voxels import even_frames
from ss4d.evaluation.protocol import load_protocol
from ss4d.evaluation.subjects.open import open_subjects
from ss4d.metrics.lpips import LPIPS

ROOT = Path(__file__).parents[2]
BOXES = [
    *("protocol=ss4d_assets", "protocol.split=train", "protocol.size=32", "protocol.crop_size=32"),
    *("protocol.views.rendered=[0,1]", f"protocol.voxel_resolution={RESOLUTION}", "protocol.figure_views=[0,1]"),
    "protocol.figure_frames=[0,2]",
]
DISCS = [
    *("protocol=consistent4d", "protocol.objects=[guppie,skull]", f"protocol.size={SIZE}", "protocol.crop_size=32"),
    *("protocol.views.azimuths=[0,90]", "protocol.figure_views=[0,1]", "protocol.figure_frames=[0,2]"),
]


def results(out: Path) -> dict[str, dict[str, Any]]:
    """All results by method, object and seed."""
    return {
        "/".join(path.parts[-4:-1]): json.loads(path.read_text()) for path in sorted(out.glob("*/*/*/*/result.json"))
    }


def as_results(data: Path, folder: Path, arguments: list[str]) -> Path:
    """The true views of Consistent4D's layout as another method's folder of results."""
    assert main(["run", *arguments, f"data={data}", f"inputs={folder}"]) == 0
    for name in ("guppie", "skull"):
        for view in range(2):
            source = data / "gt" / name / f"eval_{view}"
            target = folder / name / "views" / f"{view:03d}"
            target.mkdir(parents=True)
            for frame in source.iterdir():
                shutil.copy(frame, target / f"{int(frame.stem):05d}.png")
    return folder


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


def test_killed_and_started_again_it_gives_the_same_tables_without_redoing_anything(
    tmp_path: Path, pipeline_folder: Path, capsys
):
    data = write_consistent4d(tmp_path / "data", ("guppie", "skull", "trump"))
    arguments = [argument.replace("[guppie,skull]", "[guppie,skull,trump]") for argument in DISCS]
    arguments += ["method=ours", f"model={pipeline_folder}", f"data={data}", "seeds=[0]", "steps=1"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen(
        [sys.executable, "-m", "scripts.eval", "run", *arguments, f"out={killed}"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 300
    while not results(killed) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in killed.glob("*/*/*/*/result.json")}
    assert 1 <= len(finished) < 3
    for out in (killed, whole):
        assert main(["run", *arguments, f"out={out}"]) == 0
    assert len(results(killed)) == len(results(whole)) == 3
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in finished.items())
    changes = [argument for argument in arguments if argument.startswith("protocol.")]
    texts = []
    for out in (killed, whole):
        assert main(["tables", f"results={out}", f"out={out / 'tables'}", *changes]) == 0
        texts.append((out / "tables" / "tables.md").read_text())
    assert texts[0] == texts[1] and "| ours | n/a | n/a | " in texts[0] and "3 objects" in texts[0]


def test_processes_share_the_objects(tmp_path: Path):
    data = write_consistent4d(tmp_path / "data")
    folder = as_results(data, tmp_path / "theirs", DISCS)
    options = [*DISCS, "method=views", f"results={folder}", f"data={data}", f"out={tmp_path / 'out'}"]
    assert main(["run", *options, "shard=1/2"]) == 0
    assert list(results(tmp_path / "out")) == ["views/skull/seed0"]
    assert main(["run", *options, "shard=0/2"]) == 0
    assert len(results(tmp_path / "out")) == 2


def views_options(data: Path, out: Path, theirs: Path) -> list[str]:
    return ["run", *DISCS, "method=views", f"data={data}", f"out={out}", f"results={theirs}"]


def test_a_result_is_kept_for_the_same_content_alone(tmp_path: Path, capsys):
    data = write_consistent4d(tmp_path / "data")
    first, second = (as_results(data, tmp_path / name / "theirs", DISCS) for name in ("first", "second"))
    options = views_options(data, tmp_path / "out", first)
    assert main(options) == 0
    assert main(views_options(data, tmp_path / "out", second)) == 0  # a copy is the same
    picture = second / "skull" / "views" / "001" / "00001.png"
    Image.open(picture).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(picture)
    assert main(views_options(data, tmp_path / "out", second)) == 1  # another folder of the same name
    said = capsys.readouterr().err
    assert "skull: " in said and "was made with other results; give this method another label=NAME" in said
    shutil.copy(picture, first / "skull" / "views" / "001" / "00001.png")
    assert main(options) == 1  # a file was replaced
    assert main([*options, "label=again"]) == 0
    assert main(["run", *DISCS, "method=truth", "label=again", f"data={data}", f"out={tmp_path / 'out'}"]) == 1
    assert "was made with other method" in capsys.readouterr().err


def test_another_data_set_is_not_the_same(tmp_path: Path, capsys):
    data = write_consistent4d(tmp_path / "data")
    options = ["run", *DISCS, "method=truth", f"data={data}", f"out={tmp_path / 'out'}"]
    assert main(options) == 0 and main(options) == 0
    shutil.copy(data / "gt" / "skull" / "eval_0" / "0.png", data / "gt" / "skull" / "eval_1" / "2.png")
    assert main(options) == 1
    assert "skull: " in (said := capsys.readouterr().err) and "was made with other subject" in said


def test_a_checkpoint_with_another_config_is_another(pipeline_folder: Path, tmp_path: Path):
    folder = shutil.copytree(pipeline_folder, tmp_path / "model")
    before = checkpoint_hash(str(folder))
    assert before == checkpoint_hash(str(pipeline_folder))
    path = folder / "ckpts" / "slat_flow_model.json"
    content = json.loads(path.read_text())
    content["args"]["num_heads"] = 1
    path.write_text(json.dumps(content))
    assert checkpoint_hash(str(folder)) != before


def test_weights_given_later_are_used_and_others_are_refused(tmp_path: Path, capsys):
    data = write_consistent4d(tmp_path / "data")
    large = [argument.replace("crop_size=32", "crop_size=64") for argument in DISCS]
    options = ["run", *large, "method=truth", f"data={data}", f"out={tmp_path / 'out'}"]
    options += ["protocol.metrics=[psnr,lpips_alex]"]
    assert main(options) == 0
    assert results(tmp_path / "out")["truth/skull/seed0"]["metrics"]["lpips_alex"] is None
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        save_file(LPIPS("alex").state_dict(), tmp_path / name / "lpips_alex.safetensors")
    assert main([*options, f"weights={tmp_path / 'first'}"]) == 0
    assert "2 results lack metrics whose weights are given now" in capsys.readouterr().out
    assert results(tmp_path / "out")["truth/skull/seed0"]["metrics"]["lpips_alex"] == pytest.approx(0)
    times = [path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("result.json")]
    assert main(options) == 0 and main([*options, f"weights={tmp_path / 'first'}"]) == 0
    assert times == [path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("result.json")]
    assert main([*options, f"weights={tmp_path / 'second'}"]) == 1
    assert "was made with other lpips_alex" in capsys.readouterr().err


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


def test_the_same_shard_twice_at_once_leaves_one_result_each(tmp_path: Path):
    data = write_consistent4d(tmp_path / "data")
    command = [sys.executable, "-m", "scripts.eval", "run", *DISCS, "method=truth", f"data={data}", "shard=0/1"]
    command += [f"out={tmp_path / 'out'}"]
    both = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        message = process.communicate()[1]
        assert process.returncode == 0, message
    assert len(results(tmp_path / "out")) == 2
    assert not [path for path in (tmp_path / "out").rglob(".*")]  # nothing half-written is left


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
        (["protocol=davis", "azimuth=90"], "azimuth=90 is an option of method=gaussians, not of ours"),
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
