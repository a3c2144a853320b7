"""The program that Blender's Python runs: jobs in, results out.

A line of JSON on stdin, `{"job": NAME, ...arguments}`, asks for a job. Each of its results is a line
`{"result": ...}` on stdout and waits for a line of stdin before the job goes on, so that Blender never runs ahead of
the reader by more than one result; `{"done": true}` or `{"error": SENTENCE, "traceback": TEXT}` ends the job. The
program ends when stdin closes or its parent dies. All that Blender prints goes to stderr.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import traceback
import types
from pathlib import Path
from typing import IO, Any

PR_SET_PDEATHSIG = 1


def main(parent: int) -> None:
    """Serve until stdin closes; `parent` is the id of the process that started this one."""
    _die_with(parent)
    replies = _take_stdout()
    _find_package()
    from dataset_toolkits.blender.errors import JobError
    from dataset_toolkits.blender.jobs import JOBS

    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        try:
            for result in JOBS[request.pop("job")](**request):
                _reply(replies, {"result": result})
                if not sys.stdin.readline():
                    return
        except JobError as error:
            _reply(replies, {"error": str(error), "traceback": traceback.format_exc()})
        except Exception as error:
            sentence = f"Blender failed: {type(error).__name__}: {error}"
            _reply(replies, {"error": sentence, "traceback": traceback.format_exc()})
        else:
            _reply(replies, {"done": True})


def _reply(replies: IO[str], message: dict[str, Any]) -> None:
    replies.write(json.dumps(message) + "\n")
    replies.flush()


def _take_stdout() -> IO[str]:
    """The pipe to the client for ourselves: what Blender prints, also from C, goes to stderr instead."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return replies


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        libc: Any = ctypes.CDLL(None)
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before we could ask
        os._exit(1)


def _find_package() -> None:
    """Make `dataset_toolkits` importable, without the folder it lies in: that may hold another numpy."""
    package = types.ModuleType("dataset_toolkits")
    package.__path__ = [str(Path(__file__).resolve().parents[1])]
    sys.modules["dataset_toolkits"] = package


if __name__ == "__main__":
    main(int(sys.argv[1]))
