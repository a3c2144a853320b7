"""How a command fails: in one sentence that says what to do, and with a report file where nobody has foreseen it."""

from __future__ import annotations

import io
import os
import platform
import re
import shlex
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent
ROOT = PACKAGE.parent  # where the commands lie
PACKAGES = ("torch", "numpy", "numba", "av", "pillow", "imageio", "safetensors", "huggingface-hub", "rembg")
NO_MEMORY = ("not enough memory", "out of memory", "can't allocate memory")
FOLDERS = re.compile(r"(?<![\w.:/])/(?:[^/\s'\",:;()<>]+/)+")  # of absolute paths


def run_command(work: Callable[[], object], arguments: Sequence[str], debug: bool = False) -> int:
    """Run the work of a command and return its exit status; a failure is said on standard error.

    A ValueError that our own code raises is the user's to mend, and its message is printed. What nobody has foreseen
    is written to a report file, which is named.

    Args:
        arguments: of the command line, for the report.
        debug: print the traceback as well.
    """
    open_standard_streams()
    try:
        work()
    except KeyboardInterrupt as interrupt:
        return _say(str(interrupt) or "interrupted; an earlier result is as it was", 130)
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _say(_sentence(error) or _report(error, arguments), 1)
    return 0


@contextmanager
def notes() -> Iterator[None]:
    """Print the warnings of the enclosed work as notes, a line each; those for programmers are left out."""
    caught: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", UserWarning)
            yield
    finally:
        for message in dict.fromkeys(str(warning.message) for warning in caught):
            note(message)


def show_warnings_as_notes() -> None:
    """From now on, print every warning for users as a note, when it is given."""
    before = warnings.showwarning

    def show(message: Any, category: type[Warning], *place: Any) -> None:
        if category is UserWarning:
            note(str(message))
        else:
            before(message, category, *place)

    warnings.showwarning = show  # type: ignore[assignment]


def print_text(text: str) -> None:
    """Print all of a text to standard output; a reader who has had enough, such as `head`, is no failure."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        with open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), sys.stdout.fileno())  # what Python flushes when it ends goes there


def open_standard_streams() -> None:
    """Put the null device where a standard stream is closed, as daemons have it: else what is printed fails, or, from
    libraries in C, goes into the file that is opened next."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error: names of files may be of any bytes


def note(message: str) -> None:
    """Print a line that is not a failure."""
    print(f"note: {_line(message)}", file=sys.stderr, flush=True)


def _say(sentence: str, status: int) -> int:
    with suppress(OSError, ValueError):  # standard error may be closed
        print(f"error: {_line(sentence)}", file=sys.stderr, flush=True)
    return status


def _sentence(error: BaseException) -> str | None:
    """What to tell about a failure that a user can mend; None for any other."""
    text = str(error)
    if out_of_memory(error):
        return f"the memory is not enough ({_line(text) or 'MemoryError'}): take fewer frames (--num-frames)"
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}: check the path, its rights and the free space"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"the package {error.name.split('.')[0]} is not installed: run `python -m ss4d.doctor` for the command"
    return text if isinstance(error, ValueError) and _raised_by_us(error) else None


def out_of_memory(error: BaseException) -> bool:
    """Whether the memory of this machine or of its GPU was not enough."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in NO_MEMORY)


def _raised_by_us(error: BaseException) -> bool:
    raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    return raised_in.is_relative_to(PACKAGE) or raised_in.parent == ROOT


def _report(error: BaseException, arguments: Sequence[str]) -> str:
    """Write the report of an unforeseen failure, and say where it is."""
    what = f"unforeseen failure, {type(error).__name__} ({_line(str(error))[:200]})"
    lines = [
        f"command: {Path(sys.argv[0]).name} {shlex.join(arguments)}",
        f"machine: {platform.system()} {platform.machine()}, Python {platform.python_version()}, {os.cpu_count()} CPUs",
        f"packages: {', '.join(f'{name} {version}' for name in PACKAGES if (version := _version(name)))}",
        "",
        without_folders("".join(traceback.format_exception(error))),
    ]
    for folder in (Path.cwd(), Path(tempfile.gettempdir())):
        path = folder / f"ss4d-error-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
        try:
            path.write_text("\n".join(lines), "utf-8", errors="backslashreplace")  # names of files may be of any bytes
        except OSError:
            continue
        return f"{what}: please file an issue with the report {path}"
    return f"{what}: run again with --debug and file an issue with what it prints"


def without_folders(text: str) -> str:
    """A text whose absolute paths have lost their folders, but for those within our own code."""
    return FOLDERS.sub("", text.replace(f"{ROOT}/", ""))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _line(text: str) -> str:
    return " ".join(text.split()).encode("utf-8", "backslashreplace").decode("utf-8")  # names may be of any bytes
