"""A run folder is one run: what would make it another one is refused before anything is written."""

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
from omegaconf import OmegaConf
from small_runs import fit, logged, overrides, resolve

from ss4d.training import run_folder
from ss4d.training.run import run
from ss4d.training.run_folder import check_same_run, held

BEGUN = ["train.steps=4", "train.save_every=2"]


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, clip_folder: Path) -> Path:
    """A run of four steps."""
    return fit("structure_flow", clip_folder, tmp_path_factory.mktemp("begun"), *BEGUN)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["models.flow.args.num_blocks=1"], "models.flow.args.num_blocks = 1 instead of 2"),
        (["models.flow.args.model_channels=48"], "models.flow.args.model_channels = 48 instead of 24"),
        (["models.flow.args.pe_mode=ape"], "models.flow.args.pe_mode = ape instead of rope_t"),
        (["+models.flow.args.rope_base=100"], "models.flow.args.rope_base = 100 instead of null"),
        (["seed=1"], "seed = 1 instead of 0"),
        (["data.root=elsewhere"], "data.root = elsewhere instead of"),
        (["data.max_stride=1"], "data.max_stride = 1 instead of 3"),
        (["frames=[1]"], "data.frames = [1] instead of [1, 4]"),
        (["batch_size=1"], "batch_size = 1 instead of 64"),
        (["accumulation=2"], "accumulation x processes = 2 instead of 1"),
        (["objective.drop_condition=0.5"], "objective.drop_condition = 0.5 instead of 0.1"),
        (["init_from=nowhere"], "init_from = nowhere instead of None"),
        (["train.steps=3"], "train.steps = 3 instead of 4 ends before the step reached"),
        (["seed=1", "data.root=elsewhere"], "seed = 1 instead of 0; data.root = elsewhere"),
        (["+phases.first.train.steps=9"], "phase first instead of main"),
    ],
)
def test_another_run_is_refused_and_nothing_is_written(
    changes: list[str], message: str, begun: Path, clip_folder: Path
):
    before = contents(begun)
    lines = overrides("structure_flow", clip_folder, begun, *BEGUN, *changes)
    if any("+phases" in line for line in lines):
        lines = [line for line in lines if line not in ("phases=null", BEGUN[0])]
        lines += [f"~phases.{name}" for name in ("single", "varied", "frames8", "frames16")]
    with pytest.raises(ValueError) as error:
        run(resolve(lines))
    assert message in str(error.value) and f"{begun} holds another run, which has reached step 4" in str(error.value)
    assert "\n" not in str(error.value)
    assert contents(begun) == before


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_decoder_may_change_where_no_loss_uses_it(weight: float, begun: Path, clip_folder: Path, tmp_path: Path):
    folder = shutil.copytree(begun, tmp_path / "run")
    saved = OmegaConf.load(folder / "config.yaml")
    saved.objective.occupancy_weight = weight
    OmegaConf.save(saved, folder / "config.yaml")
    changes = [f"objective.occupancy_weight={weight}", "objective.structure_decoder=another"]
    config = resolve(overrides("structure_flow", clip_folder, folder, *BEGUN, *changes))
    if weight:
        with pytest.raises(ValueError, match=r"objective\.structure_decoder = another instead of"):
            check_same_run(folder, config, 1)
    else:
        check_same_run(folder, config, 1)


def test_another_experiment_is_refused(begun: Path, clip_folder: Path):
    before = contents(begun)
    with pytest.raises(ValueError, match=r"objective\.name = structure_vae instead of structure_flow"):
        run(resolve(overrides("structure_vae", clip_folder, begun, *BEGUN)))
    assert contents(begun) == before


def test_what_may_change_is_kept_as_history(begun: Path, clip_folder: Path, tmp_path: Path):
    shutil.copytree(begun, tmp_path / "run")
    changes = ["train.steps=6", "train.learning_rate=5e-4", "train.log_every=2", "data.workers=1"]
    fit("structure_flow", clip_folder, tmp_path, *BEGUN, *changes, folder="run")
    assert len(logged(tmp_path / "run")) == 5
    entries = [json.loads(line) for line in (tmp_path / "run/history.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries] == [0, 4] and entries[0]["changed"] == {}
    changed = entries[1]["changed"]
    assert changed.pop("run_dir")  # the copy lies elsewhere
    assert changed == {
        "train.steps": [4, 6],
        "train.learning_rate": [1e-3, 5e-4],
        "train.log_every": [1, 2],
        "data.workers": [0, 1],
    }


def test_a_phase_ahead_may_change_and_one_that_ended_may_not(clip_folder: Path, tmp_path: Path):
    def start(*changes: str) -> None:
        run(resolve(overrides("structure_vae", clip_folder, tmp_path / "run", "train.steps=???", *changes)))

    start("+phases.a.train.steps=2")
    start("+phases.a.train.steps=2", "+phases.b={frames:[4],train:{steps:1}}")
    assert len(logged(tmp_path / "run")) == 3
    with pytest.raises(ValueError, match=r"phases\.a\.train\.steps = 1 instead of 2"):
        start("+phases.a.train.steps=1", "+phases.b={frames:[4],train:{steps:3}}")
    with pytest.raises(ValueError, match=r"phases\.b\.data\.frames = \[1\] instead of \[4\]"):
        start("+phases.a.train.steps=2", "+phases.b={frames:[1],train:{steps:2}}")


def test_a_checkpoint_with_other_tensors_is_refused(begun: Path, clip_folder: Path, tmp_path: Path):
    """Even where the saved config does not tell: torch would load what fits and go on."""
    for number, change in enumerate(("num_blocks=1", "mlp_ratio=2")):
        folder = tmp_path / f"run{number}"
        shutil.copytree(begun, folder)
        saved = OmegaConf.load(folder / "config.yaml")
        OmegaConf.update(saved, f"models.flow.args.{change.partition('=')[0]}", int(change.partition("=")[2]))
        OmegaConf.save(saved, folder / "config.yaml")
        with pytest.raises(ValueError, match=r"is of another model: .*(is not part of the model|has shape)"):
            fit("structure_flow", clip_folder, tmp_path, *BEGUN, f"models.flow.args.{change}", folder=folder.name)


def test_a_run_folder_that_cannot_be_written_is_refused(clip_folder: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"run_dir = .*file/run cannot be written to"):
        fit("structure_vae", clip_folder, tmp_path / "file", "train.steps=1", folder="run")


def test_each_job_of_a_sweep_has_a_folder_of_its_own(clip_folder: Path, tmp_path: Path):
    lines = overrides("structure_vae", clip_folder, tmp_path / "runs", "train.steps=1", "seed=3,4")
    script = Path(__file__).parents[2] / "train.py"
    command = [sys.executable, str(script), "-m", *lines]
    (tmp_path / "here").mkdir()
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path / "here")
    assert result.returncode == 0, result.stderr[-2000:]
    assert not list((tmp_path / "here").iterdir())
    for seed in (3, 4):
        folder = tmp_path / f"runs/seed={seed}"
        assert len(logged(folder)) == 1 and f"seed: {seed}\n" in (folder / "config.yaml").read_text()


def test_overfit_has_a_folder_for_each_objective():
    experiments = ("structure_vae", "structure_flow", "sparse_vae", "sparse_flow")
    folders = [resolve([f"experiment={name}/tiny", "debug=overfit"]).run_dir for name in experiments]
    assert folders == [f"runs/overfit/{name}" for name in experiments]


def test_another_objective_of_the_running_phase_is_refused(clip_folder: Path, tmp_path: Path):
    phase = "+phases.{}={{train:{{steps:2}},objective:{{kl_weight:{}}}}}"
    rest = ["train.steps=???", phase.format("b", 1)]
    fit("structure_vae", clip_folder, tmp_path, phase.format("a", 0.1), *rest)
    with pytest.raises(ValueError, match=r"phases\.a\.objective\.kl_weight = 0\.2 instead of 0\.1"):
        fit("structure_vae", clip_folder, tmp_path, phase.format("a", 0.2), *rest)


def test_a_config_is_replaced_as_a_whole(
    begun: Path, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A disk that is full while it is written leaves the one before."""
    run_dir = shutil.copytree(begun, tmp_path / "run")

    def full(config: object, file: Path, resolve: bool) -> None:
        Path(file).write_text("")
        raise OSError("No space left on device")

    monkeypatch.setattr("ss4d.training.run.OmegaConf.save", full)
    before = (run_dir / "config.yaml").read_bytes()
    with pytest.raises(OSError, match="No space left"):
        run(resolve(overrides("structure_flow", clip_folder, run_dir, *BEGUN)))
    assert (run_dir / "config.yaml").read_bytes() == before


def test_two_processes_do_not_train_in_one_folder(begun: Path, clip_folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run_folder, "SECONDS_TO_END", 0.2)
    before = contents(begun)
    config = resolve(overrides("structure_flow", clip_folder, begun, *BEGUN, "train.steps=6"))
    with held(begun), pytest.raises(ValueError, match=r"another process trains in .*choose another run_dir"):
        run(config)
    assert contents(begun) == before


def test_a_child_that_outlives_a_run_does_not_keep_its_folder(tmp_path: Path):
    with held(tmp_path):
        child = os.fork()
        if not child:  # it has the open folder, as workers of a loader do
            time.sleep(30)
            os._exit(0)
    try:
        started = time.monotonic()
        with held(tmp_path):
            assert time.monotonic() - started < 5
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_checkpoints_without_their_config_are_refused(begun: Path, clip_folder: Path, tmp_path: Path):
    folder = shutil.copytree(begun, tmp_path / "run")
    (folder / "config.yaml").unlink()
    with pytest.raises(ValueError, match=r"has checkpoints and no config\.yaml"):
        run(resolve(overrides("structure_flow", clip_folder, folder, *BEGUN, "train.steps=6")))


def test_the_best_weights_of_a_run_without_checkpoint_do_not_stay(clip_folder: Path, tmp_path: Path):
    (tmp_path / "run/best").mkdir(parents=True)
    (tmp_path / "run/best/flow.json").write_text("{}")
    folder = fit("structure_flow", clip_folder, tmp_path, "train.steps=1", folder="run")
    assert not (folder / "best").exists()
