"""A run that ends while it writes its result, and two at once: one whole result is there, the earlier or the new."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
import torch
from places import content, result, save

from ss4d.gaussians import Gaussians, write_ply
from ss4d.result_folder import COMPLETE, STAGING, ResultFolder, frame_file


def ends_at(stop: int, out: Path) -> bool:
    """Write a result in a process of its own that is killed at the `stop`-th step of writing and moving.

    Returns whether it came to its end before.
    """
    process = os.fork()
    if process == 0:
        steps = count(1)

        def counted(function: Callable[..., object]) -> Callable[..., object]:
            def call(*arguments: object, **options: object) -> object:
                if next(steps) == stop:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **options)

            return call

        try:
            folder = ResultFolder.open(out)
            for module, name in ((os, "rename"), (os, "replace"), (os, "mkdir"), (shutil, "rmtree")):
                setattr(module, name, counted(getattr(module, name)))
            folder.write(save(2))
            os._exit(0)
        finally:
            os._exit(1)  # an error; pytest must not go on in this process
    status = os.waitpid(process, 0)[1]
    assert os.WIFSIGNALED(status) or status == 0
    return status == 0


def test_a_process_that_is_killed_leaves_a_whole_result_and_the_next_run_no_trace(tmp_path: Path) -> None:
    """Killed at every step of writing and moving: after the next start one result is there, the earlier or the new."""
    seen = set()
    for stop in range(1, 40):
        out = tmp_path / str(stop)
        ResultFolder.open(out).write(save(3, "old"))
        done = ends_at(stop, out)
        before = content(out)
        ResultFolder.open(out)
        after = content(out)
        assert after in (result(3, "old"), result(2)), f"step {stop}"
        if not any(name.startswith(COMPLETE) for name in before):
            assert {k: v for k, v in before.items() if not k.startswith(STAGING)} == after
        seen.add(after == result(2))
        if done:
            break
    assert seen == {True, False} and done and stop > 5


def test_who_reads_a_result_finishes_the_moving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ended after some files were moved: nobody sees frames of two results as one."""
    from ss4d.viewer.result import read_result

    def save_frames(count: int):
        def write(folder: Path) -> None:
            (folder / "frames").mkdir()
            for index in range(count):
                write_ply(Gaussians(*(torch.full(shape, float(count)) for shape in shapes)), folder / frame_file(index))
            (folder / "result.json").write_text(f'{{"num_frames": {count}, "resolution": 8, "input": "clip.mp4"}}')

        return write

    shapes = ((4, 3), (4, 3), (4, 4), (4, 1), (4, 1, 3))
    ResultFolder.open(tmp_path).write(save_frames(3))
    moved: list[object] = []
    replace = os.replace

    def stop(source: object, target: object) -> None:
        replace(source, target)  # type: ignore[arg-type]
        if COMPLETE in str(source):
            moved.append(target)
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("ss4d.result_folder.os.replace", stop)
        with pytest.raises(KeyboardInterrupt):
            ResultFolder.open(tmp_path).write(save_frames(2))
    assert moved == [tmp_path / frame_file(0)] and len(list(tmp_path.glob("frames/*"))) == 3
    result = read_result(tmp_path)
    assert [float(frame.xyz[0, 0]) for frame in result.gaussians] == [2.0, 2.0]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["frames", "result.json"]


def test_a_run_that_is_still_going_is_left_alone(tmp_path: Path) -> None:
    def meanwhile(folder: Path) -> None:
        save(1)(folder)
        ResultFolder.open(tmp_path).write(save(2, "other"))
        assert content(tmp_path / folder.name)

    ResultFolder.open(tmp_path).write(meanwhile)
    assert content(tmp_path) == result(1)
