from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dataset_toolkits.blender.process import BlenderError, BlenderProcess
from dataset_toolkits.engine.stage import StageError

REPOSITORY = Path(__file__).parents[3]


def pose_arguments(path: Path, folder: Path) -> dict:
    return {
        **{"path": str(path), "hide_nodes": [], "clips": [], "clips_per_asset": None, "folder": str(folder)},
        **{"sampling": {"mode": "spread", "frames": 2, "fps": 24.0}, "max_triangles": 100},
    }


def test_missing_blender_names_the_remedy(monkeypatch):
    monkeypatch.setenv("SS4D_BLENDER_PYTHON", "/nowhere/python")
    with pytest.raises(StageError, match=r"/nowhere/python does not exist: run `./setup.sh blender`"):
        list(BlenderProcess().run("pose"))


def test_failure_is_one_sentence_with_blenders_traceback(blender, tmp_path):
    path = tmp_path / "model.xyz"
    with pytest.raises(BlenderError, match="is not a format that is read here") as caught:
        list(blender.run("pose", **pose_arguments(path, tmp_path)))
    assert "open_asset" in str(caught.value.__cause__)


def test_unexpected_failure_says_what_blender_raised(blender):
    with pytest.raises(BlenderError, match="Blender failed: TypeError"):
        list(blender.run("pose", nonsense=1))


def test_death_is_reported_and_the_next_job_gets_a_new_blender(blender, tmp_path):
    with pytest.raises(BlenderError, match="not a format"):
        list(blender.run("pose", **pose_arguments(tmp_path / "a.xyz", tmp_path)))
    process = blender._running.process
    process.send_signal(signal.SIGSTOP)  # so that it dies in the job, not before
    killer = subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -SEGV {process.pid}; kill -CONT {process.pid}"])
    with pytest.raises(BlenderError, match="SIGSEGV"):
        list(blender.run("pose", **pose_arguments(tmp_path / "a.xyz", tmp_path)))
    killer.wait()
    with pytest.raises(BlenderError, match="not a format"):
        list(blender.run("pose", **pose_arguments(tmp_path / "a.xyz", tmp_path)))


def test_blender_dies_with_its_parent(blender):
    program = (
        "import os, signal\nfrom dataset_toolkits.blender.process import BlenderError, BlenderProcess\n"
        "blender = BlenderProcess()\ntry:\n    list(blender.run('pose'))\nexcept BlenderError:\n"
        "    print(blender._running.process.pid, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    parent = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert parent.returncode == -signal.SIGKILL
    child = int(parent.stdout)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and alive(child):
        time.sleep(0.05)
    assert not alive(child)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
