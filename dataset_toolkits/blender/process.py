"""A Blender beside this process that does jobs for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from dataset_toolkits.engine.stage import StageError

PYTHON_VARIABLE = "SS4D_BLENDER_PYTHON"
SERVER = Path(__file__).with_name("server.py")
SECONDS_TO_CLOSE = 5.0
LOG_TAIL = 2000  # characters of a dead Blender's output that are kept


class BlenderError(ValueError):
    """A job failed, or Blender died of it; the cause holds Blender's own traceback or last output."""


class _BlenderOutput(Exception):
    """Text from the other side, shown as the cause of a `BlenderError`."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def blender_python() -> Path:
    """The Python that has Blender: `SS4D_BLENDER_PYTHON`, or that of the checkout's `.venv-blender`.

    Raises:
        StageError: it is not there.
    """
    named = os.environ.get(PYTHON_VARIABLE)
    path = Path(named) if named else Path(__file__).resolve().parents[2] / ".venv-blender" / "bin" / "python"
    if not path.exists():
        origin = f"{PYTHON_VARIABLE}={named}" if named else str(path)
        raise StageError(f"this stage needs Blender, but {origin} does not exist: run `./setup.sh blender`")
    return path


@dataclass(frozen=True)
class _Running:
    process: subprocess.Popen[str]
    log: IO[bytes]  # what Blender prints

    def tail(self) -> str:
        self.log.seek(0)
        return self.log.read().decode(errors="replace")[-LOG_TAIL:]


class BlenderProcess:
    """Starts Blender at the first job and again after it died.

    Args:
        threads: processor cores that it uses.
    """

    def __init__(self, threads: int = 1):
        self.threads = threads
        self._running: _Running | None = None

    def run(self, job: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        """Do a job of `dataset_toolkits.blender.jobs` and yield its results as they come.

        Blender works on the next result while the caller has the last one, but never further ahead.

        Raises:
            BlenderError: the job failed or killed Blender.
            StageError: there is no Blender.
        """
        if self._running is None or self._running.process.poll() is not None:
            self.close()
            self._running = self._start()
        running = self._running
        running.log.truncate(0)
        finished = False
        try:
            reply = self._exchange(running, {"job": job} | arguments)
            while "result" in reply:
                self._send(running, {"next": True})
                yield reply["result"]
                reply = self._receive(running)
            finished = True
        finally:
            if not finished:  # a dead Blender, or one in the middle of a job whose results are no longer read
                self.close()
        if "error" in reply:
            raise BlenderError(reply["error"]) from _BlenderOutput(reply["traceback"])

    def close(self) -> None:
        """End Blender."""
        if self._running is None:
            return
        process = self._running.process
        self._running = None
        process.kill()
        process.wait(SECONDS_TO_CLOSE)
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()

    def _start(self) -> _Running:
        log = tempfile.TemporaryFile("a+b")  # noqa: SIM115 - lives as long as Blender; appended to, so it can be cut
        # Isolated (-I): neither the script's folder nor PYTHONPATH leads to modules of another environment.
        command = [str(blender_python()), "-I", str(SERVER), str(os.getpid())]
        threads = dict.fromkeys(("LP_NUM_THREADS", "OMP_NUM_THREADS"), str(self.threads))
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            encoding="utf-8",
            env=os.environ | threads,
        )
        return _Running(process, log)

    def _exchange(self, running: _Running, message: dict[str, Any]) -> dict[str, Any]:
        self._send(running, message)
        return self._receive(running)

    def _send(self, running: _Running, message: dict[str, Any]) -> None:
        assert running.process.stdin is not None
        with suppress(BrokenPipeError):  # `_receive` reports the death
            running.process.stdin.write(json.dumps(message) + "\n")
            running.process.stdin.flush()

    def _receive(self, running: _Running) -> dict[str, Any]:
        assert running.process.stdout is not None
        line = running.process.stdout.readline()
        if not line.endswith("\n"):
            code = running.process.wait(SECONDS_TO_CLOSE)
            death = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"
            raise BlenderError(f"Blender {death} during the job") from _BlenderOutput(running.tail())
        return json.loads(line)
