"""Stopped in any way, a run resumes from its last good checkpoint bit for bit."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import pytest
from small_runs import fit, logged, overrides, same_weights

import train
from ss4d.training.stopping import LAUNCHER_SECONDS

STEPS = 60
LINES = ["threads=1", f"train.steps={STEPS}", "train.save_every=5", "train.learning_rate=1e-3", "frames=[1]"]


def start(lines: list[str]) -> subprocess.Popen[str]:
    """train.py as a process of its own, which Ctrl-C stops even if the tests run in the background of a shell."""
    script = Path(train.__file__)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    command = [sys.executable, str(script), *lines]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True, preexec_fn=heard)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never appeared"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, clip_folder: Path) -> Path:
    """A run that nothing stops."""
    return fit("structure_flow", clip_folder, tmp_path_factory.mktemp("whole"), *LINES)


def finish(clips: Path, run_dir: Path) -> None:
    fit("structure_flow", clips, run_dir.parent, *LINES, folder=run_dir.name)


def test_signals_save_and_a_kill_loses_only_a_few_steps(whole: Path, clip_folder: Path, tmp_path: Path):
    run_dir = tmp_path / "killed"
    lines = overrides("structure_flow", clip_folder, run_dir, *LINES)
    process = start(lines)
    wait_for(run_dir / "checkpoints/step_00000005")
    process.kill()
    process.communicate()
    process = start(lines)
    wait_for(run_dir / "checkpoints/step_00000010")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143 and "stopped by signal 15 after step" in output
    saved = sorted((run_dir / "checkpoints").glob("step_*"))[-1]
    assert f"after step {int(saved.name.removeprefix('step_'))};" in output
    process = start(lines)
    wait_for(run_dir / "checkpoints/step_00000020")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "stopped by signal 2 after step" in output
    finish(clip_folder, run_dir)
    assert same_weights(whole, run_dir)
    assert logged(run_dir) == logged(whole)  # no step is logged twice


def test_a_truncated_checkpoint_is_passed_over(whole: Path, clip_folder: Path, tmp_path: Path):
    run_dir = tmp_path / "truncated"
    fit("structure_flow", clip_folder, tmp_path, *LINES, "train.steps=10", folder="truncated")
    # A shorter schedule has another learning rate: take up the long one from its start.
    fit("structure_flow", clip_folder, tmp_path, *LINES, "train.keep=20", folder="long")
    newest = sorted((tmp_path / "long/checkpoints").glob("step_*"))[-1]
    data = next(newest.glob("*.distcp"))
    data.write_bytes(data.read_bytes()[:-100])
    (newest.parent / f"step_{STEPS - 5:08d}" / "manifest.json").unlink()
    for path in sorted(newest.parent.glob("step_*"))[:-3]:
        assert path.is_dir()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        finish(clip_folder, tmp_path / "long")
    messages = [str(warning.message) for warning in caught if "is damaged" in str(warning.message)]
    assert len(messages) == 2 and "bytes instead of" in messages[0] and "manifest.json is missing" in messages[1]
    assert same_weights(whole, tmp_path / "long")
    assert run_dir.exists()
    aside = sorted(path.name for path in newest.parent.glob("damaged_step_*"))  # they do not count among those kept
    assert aside == [f"damaged_step_{STEPS - 5:08d}", f"damaged_step_{STEPS:08d}"]


def test_a_full_disk_stops_the_run_and_leaves_the_last_checkpoint(whole: Path, clip_folder: Path, tmp_path: Path):
    run_dir = tmp_path / "full"
    lines = overrides("structure_flow", clip_folder, run_dir, *LINES)
    fit("structure_flow", clip_folder, tmp_path, *LINES, "train.steps=5", folder="probe")
    size = max(path.stat().st_size for path in (tmp_path / "probe/checkpoints").rglob("*.distcp"))
    process = start(lines)
    wait_for(run_dir / "checkpoints/step_00000010")
    # What a file may grow to from now on: too little for the next checkpoint.
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size // 2, size // 2))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "could not be written" in errors and "resumes from the last good checkpoint" in errors
    assert "Traceback" not in errors
    assert not list((run_dir / "checkpoints").glob(".step_*"))
    finish(clip_folder, run_dir)
    assert same_weights(whole, run_dir)


def test_killed_before_its_export_a_finished_run_exports_when_started_again(clip_folder: Path, tmp_path: Path):
    whole, killed = (fit("sparse_vae", clip_folder, tmp_path, "train.steps=2", folder=name) for name in ("a", "b"))
    shutil.rmtree(killed / "ckpts")
    fit("sparse_vae", clip_folder, tmp_path, "train.steps=2", folder="b")
    assert same_weights(whole, killed)


def test_a_signal_to_all_processes_of_a_job_ends_it_in_order(clip_folder: Path, tmp_path: Path):
    """As `timeout` and batch systems send it, to the processes that load data too."""
    run_dir = tmp_path / "job"
    lines = overrides("structure_flow", clip_folder, run_dir, *LINES, "train.steps=100000", "data.workers=1")
    command = [sys.executable, str(Path(train.__file__)), *lines]
    pipe, environment = subprocess.PIPE, {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    wait_for(run_dir / "checkpoints/step_00000005")
    os.killpg(process.pid, signal.SIGTERM)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 143, error[-2000:]
    assert "the same command resumes" in out
    with pytest.raises(ProcessLookupError):  # nobody is left
        os.killpg(process.pid, 0)


def test_a_second_interrupt_ends_what_hangs():
    script = """
import time
from ss4d.training.stopping import StopSignal
with StopSignal().caught():
    print("caught", flush=True)
    while True:
        time.sleep(0.1)  # a step that does not end
"""
    heard = partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heard
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "caught\n"
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)  # as a launcher passes it on
        time.sleep(LAUNCHER_SECONDS + 0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT and errors.count("Ctrl-C again ends at once") == 1
