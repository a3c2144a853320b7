"""What a machine can lack: shared memory, standard error, SLURM. And a signal at the worst moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_runs import fit, logged, overrides
from torch.utils.data import DataLoader

import train
from ss4d.training import stopping
from ss4d.training.command_line import compose_config
from ss4d.training.distributed import _variables_of_slurm

SCRIPT = Path(train.__file__)
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(SCRIPT.parent)}


def test_a_full_shared_memory_is_one_sentence(clip_folder: Path, tmp_path: Path):
    lines = overrides("structure_flow", clip_folder, tmp_path / "run", "train.steps=3", "data.workers=1")
    command = [sys.executable, str(SCRIPT), *lines, "hydra.run.dir=."]
    script = 'mount -t tmpfs -o size=64k tmpfs /dev/shm || exit 77; exec "$@"'
    try:
        result = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script, "sh", *command],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=300,
        )
    except FileNotFoundError:
        pytest.skip("needs unshare")
    if result.returncode == 77 or "unshare" in result.stderr:
        pytest.skip("may not mount")
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr
    said = result.stderr.splitlines()[-1]
    assert said.startswith("train.py: step 1, ") and "data.workers" in said and "docker run --shm-size" in said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),  # not even room for semaphores
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error.\nmore"),
            "killed by signal: Bus error",
        ),
    ],
)
def test_workers_that_cannot_start_or_die_are_one_sentence(
    error: Exception, said: str, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Failing(DataLoader):
        def __iter__(self) -> Any:
            raise error

    monkeypatch.setattr("ss4d.data.loader.DataLoader", Failing)
    with pytest.raises(ValueError) as refused:
        fit("structure_vae", clip_folder, tmp_path, "train.steps=1", "data.workers=1")
    message = str(refused.value)
    assert message.startswith("step 1, data.workers = 1: ") and said in message and "docker run --shm-size" in message
    assert "\n" not in message


def test_with_standard_error_closed_a_run_trains(clip_folder: Path, tmp_path: Path):
    lines = overrides("structure_vae", clip_folder, tmp_path / "run", "train.steps=2")
    command = ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, str(SCRIPT), *lines]
    result = subprocess.run(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, timeout=300)
    assert result.returncode == 0 and len(logged(tmp_path / "run")) == 2
    log = (tmp_path / "run/log.csv").read_text()
    assert all(line.count(",") == 2 for line in log.splitlines())  # nothing that was printed went into a file


def test_the_documented_slurm_command_without_slurm_is_one_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "/nowhere")
    launcher = "hydra/launcher=submitit_slurm"
    with pytest.raises(ValueError, match=r"needs SLURM, and srun is not on this machine.*|pip install hydra-submitit"):
        compose_config(["experiment=structure_flow/paper", "gpus=16", launcher])


def test_a_signal_during_the_exchange_is_seen_after_the_next_step(
    clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """It comes when this process has handed in its value, and is not yet told what all agreed on."""
    exchange, calls = stopping.highest, 0

    def interrupted(value: int | None, world: object) -> int | None:
        nonlocal calls
        calls += 1
        if calls == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return exchange(value, world)  # type: ignore[arg-type]

    monkeypatch.setattr(stopping, "highest", interrupted)
    run_dir = fit("structure_vae", clip_folder, tmp_path, "train.steps=50")
    assert "stopped by signal 15 after step 3;" in capsys.readouterr().out
    assert len(logged(run_dir)) == 3 and (run_dir / "checkpoints/step_00000003").is_dir()


def test_a_signal_in_the_last_step_does_not_call_a_finished_run_stopped(
    clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(stopping, "highest", lambda *_: int(signal.SIGTERM))
    fit("structure_vae", clip_folder, tmp_path, "train.steps=1")
    assert "stopped" not in capsys.readouterr().out


def test_tasks_of_slurm_that_do_not_know_of_each_other_are_refused(monkeypatch: pytest.MonkeyPatch):
    for name in ("SUBMITIT_EXECUTOR", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    with pytest.raises(ValueError, match="SLURM started 2 tasks that do not know of each other"):
        _variables_of_slurm()
    monkeypatch.setenv("WORLD_SIZE", "2")  # torchrun's
    _variables_of_slurm()
