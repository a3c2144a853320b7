"""What a command says when it fails, and the report of what nobody has foreseen."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from places import REPOSITORY

from ss4d.failures import note, run_command, without_folders


def fail(error: BaseException):
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out/a.ply"), "error: out/a.ply: No space left on device"),
        (MemoryError(), "error: the memory is not enough (MemoryError): take fewer frames"),
        (RuntimeError("CUDA out of memory. Tried to\nallocate 9 GiB"), "error: the memory is not enough (CUDA out of"),
        (ModuleNotFoundError("No module", name="gsplat.rendering"), "error: the package gsplat is not installed"),
    ],
)
def test_what_a_user_can_mend_is_one_sentence(
    error, sentence, capsys: pytest.CaptureFixture[str], tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert run_command(fail(error), []) == 1
    said = capsys.readouterr().err
    assert said.startswith(sentence) and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_names_of_any_bytes_are_reported(capsys: pytest.CaptureFixture[str], tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"caf\xe9.mp4")
    assert run_command(fail(TypeError(name)), [name]) == 1
    (report,) = tmp_path.glob("ss4d-error-*.txt")
    assert "udce9" in report.read_text("utf-8") and str(report.name) in capsys.readouterr().err


def test_an_interruption_is_no_failure_of_ours(capsys: pytest.CaptureFixture[str]):
    assert run_command(fail(KeyboardInterrupt()), []) == 130
    assert capsys.readouterr().err.startswith("error: interrupted")


def test_a_value_error_of_our_own_code_is_its_message(capsys: pytest.CaptureFixture[str]):
    from ss4d.video import write_video

    assert run_command(lambda: write_video("clip.gif", np.zeros((1, 8, 8, 3), np.uint8), 1.0), []) == 1
    assert capsys.readouterr().err == "error: Videos are written as .mp4, but the path is clip.gif.\n"


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]):
    from ss4d.video import read_clip

    assert run_command(lambda: read_clip("nowhere.mp4"), [], debug=True) == 1
    said = capsys.readouterr().err
    assert said.startswith("Traceback") and said.splitlines()[-1].startswith("error: There is no video")


@pytest.mark.parametrize("error", [RuntimeError("at /secret/place/x.py"), ValueError("of a library")])
def test_an_unforeseen_failure_writes_a_report_without_private_paths(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    assert run_command(fail(error), ["my clip.mp4", "--seed", "3"]) == 1
    (report,) = tmp_path.glob("ss4d-error-*.txt")
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and type(error).__name__ in said and str(report) in said
    text = report.read_text()
    assert "'my clip.mp4' --seed 3" in text and "numpy " in text and "raise error" in text
    assert "secret" not in text and str(Path.home()) not in text and str(tmp_path) not in text


def test_folders_of_paths_are_left_out():
    text = 'File "/opt/me/env/torch/nn.py", line 3: no /data/my films/clip.mp4, see https://example.org/a/b'
    assert without_folders(text) == 'File "nn.py", line 3: no my films/clip.mp4, see https://example.org/a/b'


def test_a_note_is_one_line(capsys: pytest.CaptureFixture[str]):
    note("first\nsecond")
    assert capsys.readouterr().err == "note: first second\n"


@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_leave_files_alone(closed: str, tmp_path: Path):
    """What is printed, by Python or below it, must not go into the file that takes the free number."""
    script = (
        "import os, sys\n"
        "from ss4d.failures import note, run_command\n"
        "def work():\n"
        "    with open(sys.argv[1], 'w') as file:\n"
        "        file.write('content'); file.flush(); os.write(2, b'noise'); note('noise'); print('noise')\n"
        "sys.exit(run_command(work, []))\n"
    )
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-c", script, str(tmp_path / "file")]
    assert subprocess.run(command, cwd=REPOSITORY).returncode == 0
    assert (tmp_path / "file").read_text() == "content"
