"""`python -m scripts.eval run` again: what is kept, what is made anew, what is refused; and several at once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from eval_runs import DISCS, as_results, results
from eval_sets import write_consistent4d
from PIL import Image
from safetensors.torch import save_file

from scripts.eval.__main__ import main
from ss4d.evaluation.evaluate import replaced
from ss4d.evaluation.identity import checkpoint_hash
from ss4d.metrics.lpips import LPIPS

ROOT = Path(__file__).parents[2]


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
    path = tmp_path / "out"
    path = next(path.rglob("truth/skull/seed0/result.json"))
    before = path.read_text().replace('"lpips_alex": "', '"lpips_vgg": "')
    path.write_text(before)
    assert main([*options, f"weights={tmp_path / 'first'}"]) == 1
    assert "has metrics by lpips_vgg, which are not given now: give all weights at once" in capsys.readouterr().err
    assert path.read_text() == before


def test_a_result_that_cannot_be_made_again_stays(tmp_path: Path):
    folder = tmp_path / "skull" / "seed0"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text("earlier")
    with pytest.raises(KeyboardInterrupt), replaced(folder):
        raise KeyboardInterrupt
    assert (folder / "result.json").read_text() == "earlier" and os.listdir(tmp_path / "skull") == ["seed0"]
    with replaced(folder):
        folder.mkdir()
    assert os.listdir(tmp_path / "skull") == ["seed0"] and not os.listdir(folder)


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
