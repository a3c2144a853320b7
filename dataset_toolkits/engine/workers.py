"""A child process that makes the items of a stage one by one; if it dies or hangs, only one item is lost.

The child is long-lived, so that imports and the start of Blender are paid once. It leads its own process group: when an
item takes too long, the group is killed with everything that the child started. The child dies with its parent.
"""

from __future__ import annotations

import ctypes
import faulthandler
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from threading import Lock
from typing import IO

from dataset_toolkits.engine.stage import Item, Stage, StageError

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"
SECONDS_TO_CLOSE = 10.0
LOG_TAIL = 4000  # characters of a dead child's output that are kept

_SERVE = "import sys; sys.path[:] = sys.argv[3:]; from dataset_toolkits.engine.workers import serve; serve()"


@dataclass(frozen=True)
class Outcome:
    """What became of an item; `error` is None where it was made."""

    name: str
    error: str | None = None


class WorkerClosed(Exception):
    """The worker was closed, by another thread, while it made an item."""


@dataclass(frozen=True)
class _Child:
    process: subprocess.Popen[bytes]
    connection: Connection
    log: IO[bytes]  # what the child and its children print

    def tail(self) -> str:
        self.log.flush()
        self.log.seek(0)
        return self.log.read().decode(errors="replace")[-LOG_TAIL:]

    def kill(self) -> None:
        """End the child and all that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.connection.close()


class Worker:
    """Makes items in a child process.

    Args:
        stage: sent to the child, so it must pickle.
        time_limit: seconds per item.
        threads: of numerical libraries in the child, unless the environment sets them.
        gpu: the only one that the child sees, as CUDA_VISIBLE_DEVICES names it; None: all that this process sees.
    """

    def __init__(self, stage: Stage, time_limit: float, threads: int, gpu: str | None = None):
        self.stage, self.time_limit, self.threads, self.gpu = stage, time_limit, threads, gpu
        self._child: _Child | None = None
        self._closed = False
        self._lock = Lock()

    def make(self, item: Item) -> Outcome:
        """Make an item; if it fails, takes too long or kills the child, that is recorded as its failure.

        Raises:
            StageError: the child cannot start.
            WorkerClosed: another thread has closed this worker.
        """
        if self._child is None or self._child.process.poll() is not None:
            self._start()
        child = self._child
        assert child is not None
        child.log.truncate(0)
        try:
            child.connection.send(item)
            if child.connection.poll(self.time_limit):
                return child.connection.recv()
            error = f"took longer than {self.time_limit:g} s"
            _print_stack(child.process.pid)
        except (EOFError, OSError):  # the other end is closed
            if self._closed:
                raise WorkerClosed from None
            error = _death(child.process)
        child.kill()
        self._child = None
        self.stage.fail(item, error, child.tail())
        return Outcome(item.name, error)

    def close(self) -> None:
        """Let the child end its stage and go; kill what stays."""
        self._closed = True
        if self._child is not None:
            self._child.connection.close()
            with suppress(subprocess.TimeoutExpired):
                self._child.process.wait(SECONDS_TO_CLOSE)
            self._child.kill()

    def kill(self) -> None:
        """End the child now, whatever it does; any thread may call this."""
        with self._lock:
            self._closed = True
            if self._child is not None:
                self._child.kill()

    def _start(self) -> None:
        connection, theirs = multiprocessing.Pipe()
        log = tempfile.TemporaryFile("a+b")  # noqa: SIM115 - lives as long as the child; appended to, so it can be cut
        limits = {name: str(self.threads) for name in THREAD_VARIABLES if name not in os.environ}
        if self.gpu is not None:
            limits[VISIBLE_GPUS] = self.gpu
        with self._lock:
            if self._closed:
                raise WorkerClosed
            process = subprocess.Popen(
                [sys.executable, "-c", _SERVE, str(theirs.fileno()), str(os.getpid()), *sys.path],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=os.environ | limits,
            )
            self._child = _Child(process, connection, log)
        theirs.close()
        try:
            connection.send(self.stage)
            connection.recv()
        except (EOFError, OSError):
            if self._closed:
                raise WorkerClosed from None
            self._child.kill()
            raise StageError(f"a worker process of {self.stage.name} cannot start:\n{self._child.tail()}") from None


def serve() -> None:
    """The child: make items until the parent closes the connection."""
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    _die_with(parent)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)
    os.set_inheritable(descriptor, False)  # a child that outlives this process must not hold the connection open
    connection = Connection(descriptor)
    stage: Stage = connection.recv()
    connection.send("ready")
    try:
        while True:
            connection.send(_attempt(stage, connection.recv()))
    except EOFError:
        stage.close()


def _attempt(stage: Stage, item: Item) -> Outcome:
    try:
        stage.run(item)
    except Exception as exception:
        error = _sentence(exception)
        stage.fail(item, error, traceback.format_exc())
        return Outcome(item.name, error)
    return Outcome(item.name)


def _sentence(exception: Exception) -> str:
    """One line; errors that this code raises on purpose are ValueErrors and speak for themselves."""
    text = " ".join(str(exception).split())
    if isinstance(exception, ValueError) and text:
        return text
    return f"{type(exception).__name__}: {text}" if text else type(exception).__name__


def _death(process: subprocess.Popen[bytes]) -> str:
    try:
        code = process.wait(SECONDS_TO_CLOSE)
    except subprocess.TimeoutExpired:
        return "the worker process closed its connection"
    if code >= 0:
        return f"the worker process exited with status {code}"
    name = signal.Signals(-code).name
    return f"the worker process died of {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


def _print_stack(pid: int) -> None:
    """Let the child print where it is; faulthandler does so even from inside a library that holds Python's lock."""
    os.kill(pid, signal.SIGUSR1)
    time.sleep(0.2)


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, however it dies (Linux)."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
        if os.getppid() != parent:  # died before the call
            os.kill(os.getpid(), signal.SIGKILL)
