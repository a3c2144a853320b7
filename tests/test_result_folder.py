"""Where a result may go, and that nothing is lost on the way: neither what lies there nor what was computed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from places import REPOSITORY, ROOT, as_nobody, content, reachable, report, result, save

from ss4d.result_folder import DestinationError, ResultFolder


def test_a_result_is_written_into_a_new_folder(tmp_path: Path) -> None:
    folder = ResultFolder.open(tmp_path / "deep" / "out")
    assert not (tmp_path / "deep").exists()  # checking leaves nothing
    assert folder.write(save(3)) == tmp_path / "deep" / "out"
    assert content(tmp_path) == {f"deep/out/{name}": text for name, text in result(3).items()}


def test_an_earlier_result_is_replaced_and_all_else_stays(tmp_path: Path) -> None:
    out = tmp_path / "outputs"
    ResultFolder.open(out).write(save(5, "old"))
    ResultFolder.open(out / "second").write(save(2, "second"))
    others = {"eval/table.csv": "numbers", "notes.txt": "mine", "frames/notes.txt": "mine", "frames/7.ply": "mine"}
    for name, text in others.items():
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text(text)
    ResultFolder.open(out).write(save(3))
    second = {f"second/{name}": text for name, text in result(2, "second").items()}
    assert content(out) == result(3) | second | others


def test_files_of_earlier_versions_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "00000.ply").write_text("old")
    (tmp_path / "result.json").write_text(report(1, "old"))
    ResultFolder.open(tmp_path).write(save(2))
    assert content(tmp_path) == result(2)


@pytest.mark.parametrize("name", ["thesis.txt", "orbit.mp4", "frames/00000.ply", "preview.png", "result.json"])
def test_files_that_are_not_a_results_are_refused_before_the_work(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("years of work")
    with pytest.raises(DestinationError, match="holds something else than an earlier result"):
        ResultFolder.open(tmp_path)
    assert content(tmp_path) == {name: "years of work"}


def test_folders_of_others_are_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "eval").mkdir()
    (tmp_path / "lost+found").mkdir()
    ResultFolder.open(tmp_path).write(save(1))
    assert (tmp_path / "result.json").exists() and (tmp_path / "eval").is_dir()


def test_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text in ("old", "new"):
        ResultFolder.open(".").write(save(2, text))
    assert content(tmp_path) == result(2)


def test_a_symbolic_link_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    for text in ("old", "new"):
        ResultFolder.open(tmp_path / "link").write(save(2, text))
    assert (tmp_path / "link").is_symlink() and content(tmp_path / "disk") == result(2)


def test_a_link_into_nothing_makes_its_target(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    ResultFolder.open(tmp_path / "link").write(save(1))
    assert content(tmp_path / "disk") == result(1)


def test_files_and_what_lies_below_them_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(DestinationError, match="is a file, or lies below one"):
            ResultFolder.open(place)


WRITE = """
    import sys
    from pathlib import Path
    from ss4d.result_folder import DestinationError, ResultFolder
    try:
        folder = ResultFolder.open(sys.argv[1])
        folder.write(lambda place: (place / "result.json").write_text('{"num_frames": 1, "resolution": 8}'))
    except DestinationError as error:
        sys.exit(str(error))
"""


@pytest.mark.skipif(not ROOT, reason="needs two users")
def test_an_existing_writable_folder_needs_nothing_of_its_parent(tmp_path: Path) -> None:
    (reachable(tmp_path) / "mine").mkdir()
    os.chown(tmp_path / "mine", 65534, 65534)
    for _ in range(2):
        answer = as_nobody(WRITE, tmp_path / "mine")
        assert answer.returncode == 0, answer.stderr
    assert content(tmp_path) == {"mine/result.json": '{"num_frames": 1, "resolution": 8}'}


@pytest.mark.skipif(not ROOT, reason="needs two users")
def test_a_folder_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    (reachable(tmp_path) / "theirs").mkdir()
    for place in (tmp_path / "theirs", tmp_path / "new"):
        answer = as_nobody(WRITE, place)
        assert answer.returncode == 1 and answer.stderr.count("\n") == 1
        assert f"{place} cannot be written" in answer.stderr and "Permission denied" in answer.stderr
    assert content(tmp_path) == {}


@pytest.mark.skipif(not ROOT, reason="needs a mount")
def test_a_mount_point_keeps_its_results(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write = textwrap.dedent(WRITE)
    (tmp_path / "write.py").write_text(write)
    script = f"""
        mount -t tmpfs -o size=64m none {tmp_path}/out || exit 77
        {sys.executable} {tmp_path}/write.py {tmp_path}/out && mkdir {tmp_path}/out/mine &&
        {sys.executable} {tmp_path}/write.py {tmp_path}/out && ls -A {tmp_path}/out
    """
    variables = {**os.environ, "PYTHONPATH": REPOSITORY}
    command = ["unshare", "-m", "bash", "-c", script]
    answer = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=60)
    if answer.returncode in (1, 77) and "permitted" in answer.stderr:
        pytest.skip("this machine lets nobody mount")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.split() == ["mine", "result.json"]


def test_too_little_room_is_said_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("usage", (), {"free": 3 * 2**20})
    monkeypatch.setattr("ss4d.result_folder.shutil.disk_usage", lambda place: usage)
    with pytest.raises(DestinationError, match=r"has only 3.0 MB free, too little for a result"):
        ResultFolder.open(tmp_path)


def test_a_disk_that_fills_up_does_not_cost_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    out = tmp_path / "out"
    ResultFolder.open(out).write(save(2, "old"))

    def full(folder: Path) -> None:
        save(3)(folder)
        if folder.is_relative_to(out):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    said: list[str] = []
    place = ResultFolder.open(out).write(full, said.append)
    assert content(out) == result(2, "old") and place.parent == tmp_path / "elsewhere"
    assert content(place) == result(3)
    assert said == [f"{out} could not be written (No space left on device); the result is in {place} instead."]
    with pytest.raises(DestinationError, match=r"could be written nowhere \(.*out: No space left on device\): make"):
        ResultFolder.open(out, only_there=True).write(full)
    assert list((tmp_path / "elsewhere").iterdir()) == [place]


def test_nowhere_to_write_to_is_one_sentence(tmp_path: Path) -> None:
    def full(folder: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(DestinationError, match=r"could be written nowhere \(.*No space left on device.*\): make room"):
        ResultFolder.open(tmp_path / "out").write(full)
    assert not (tmp_path / "out").exists()


def test_a_failure_that_has_nothing_to_do_with_files_leaves_nothing(tmp_path: Path) -> None:
    def broken(folder: Path) -> None:
        save(1)(folder)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        ResultFolder.open(tmp_path / "new" / "out").write(broken)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_whose_files_are_all_in_place_goes(tmp_path: Path) -> None:
    """A process that ended while it removed the hidden folder, the list of files first."""
    ResultFolder.open(tmp_path).write(save(1))
    (tmp_path / ".ss4d-complete-0123/frames").mkdir(parents=True)
    ResultFolder.open(tmp_path)
    assert content(tmp_path) == result(1)


def test_who_reads_leaves_what_others_write(tmp_path: Path) -> None:
    (tmp_path / ".ss4d-unfinished-0123").mkdir()
    ResultFolder(tmp_path, tmp_path).recover(reading=True)
    assert (tmp_path / ".ss4d-unfinished-0123").is_dir()
    ResultFolder.open(tmp_path)
    assert not (tmp_path / ".ss4d-unfinished-0123").exists()


def test_the_preview_of_a_run_does_not_touch_an_earlier_result(tmp_path: Path) -> None:
    from ss4d.result_folder import PREVIEW_MARK

    folder = ResultFolder.open(tmp_path)
    assert folder.preview == tmp_path / "preview.png"
    folder.preview.write_bytes(PREVIEW_MARK)  # a run that came no further
    ResultFolder.open(tmp_path).write(save(1, "old"))
    folder = ResultFolder.open(tmp_path)
    folder.preview.write_bytes(PREVIEW_MARK)
    assert content(tmp_path) == result(1, "old") | {"preview.next.png": PREVIEW_MARK.decode()}
    folder.write(save(1))
    assert content(tmp_path) == result(1)
