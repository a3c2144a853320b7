"""Snippets of Python in another process, since a broken kernel can end a process.

Most of a snippet's time goes into importing torch, so one process takes them all, one after another; after one that
failed, the next gets a new process.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import traceback
from dataclasses import dataclass
from typing import IO

from ss4d.failures import ROOT

SECONDS = 600  # that a snippet may take: gsplat and inria compile their kernels the first time


def isolated(snippet: str) -> str:
    """What a snippet prints last, or why it failed."""
    global _worker
    if _worker is None:
        _worker = Worker.start()
        atexit.register(_worker.stop)
    said = _worker.run(snippet, SECONDS)
    if said.startswith("failed"):
        _worker.stop()
        _worker = None
    return said


@dataclass
class Worker:
    """A process that takes snippets."""

    process: subprocess.Popen[str]
    errors: IO[str]  # what it writes to stderr

    @classmethod
    def start(cls) -> Worker:
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115  # closed by stop
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", "from ss4d.doctor.isolated import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        return cls(process, errors)

    def run(self, snippet: str, seconds: float) -> str:
        """As for `isolated`."""
        assert self.process.stdin and self.process.stdout
        timer = threading.Timer(seconds, self.process.kill)
        timer.start()
        try:
            self.process.stdin.write(json.dumps(snippet) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        finally:
            late = not timer.is_alive()
            timer.cancel()
        if answer:
            return str(json.loads(answer))
        if late:
            return f"failed: no answer within {seconds:g} s"
        status = self.process.wait()
        self.errors.seek(0)
        lines = self.errors.read().strip().splitlines()
        return f"failed: {lines[-1][:200] if lines else f'status {status}'}"

    def stop(self) -> None:
        """End the process; may be called again."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.errors):
            with contextlib.suppress(OSError):  # what was not yet written cannot be
                if stream:
                    stream.close()


_worker: Worker | None = None


def serve() -> None:
    """The worker: a snippet a line comes in as JSON, what it said goes out as JSON."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what compiled code prints is no answer
    for line in sys.stdin:
        print(json.dumps(attempt(json.loads(line))), file=answers, flush=True)


def attempt(snippet: str) -> str:
    """As for `isolated`, in this process."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            exec(snippet, {})
    except BaseException as error:  # rembg exits where onnxruntime is missing
        last = traceback.format_exception_only(error)[-1].strip().splitlines()[-1]
        return f"failed: {last.removeprefix('SystemExit: ')[:200]}"
    return (printed.getvalue().strip().splitlines() or ["nothing"])[-1]
