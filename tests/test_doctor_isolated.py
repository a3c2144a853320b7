"""Snippets run in another process, which dies with a snippet and not with this program."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ss4d.doctor.isolated import Worker, attempt, isolated

PROCESS = "import os; print(os.getpid())"


def test_a_process_takes_snippets_until_one_fails() -> None:
    assert isolated("print('and'); print('error 0 on cpu')") == "error 0 on cpu"
    first = isolated(PROCESS)
    assert isolated(PROCESS) == first
    assert isolated("import os; os.write(1, b'noise'); os._exit(5)") == "failed: noise"
    assert isolated("import os; os._exit(5)") == "failed: status 5"
    assert isolated("import ctypes; ctypes.string_at(0)") == "failed: status -11"
    assert isolated(PROCESS) not in (first, "")


def test_failures_are_one_line() -> None:
    assert attempt("raise SystemExit('no onnxruntime')") == "failed: no onnxruntime"
    assert attempt("import ss4d.nothing").startswith("failed: ModuleNotFoundError: No module named")
    assert attempt("pass") == "nothing"


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker.start()
    yield worker
    worker.stop()


def test_a_snippet_that_does_not_end_is_ended(worker: Worker) -> None:
    assert worker.run("import time; time.sleep(600)", seconds=3) == "failed: no answer within 3 s"
