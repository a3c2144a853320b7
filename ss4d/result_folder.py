"""The folder of a result, from which nothing else is ever lost."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ss4d.files import locked

DEFAULT_FPS = 12.0  # of a result from images, which carry no frame rate
REPORT = "result.json"  # its presence says that a folder holds a result
REPORT_KEYS = {"num_frames", "resolution"}  # that the reports of all versions have
# What belongs to a result, the names of earlier versions included; nothing else in its folder is ever touched.
RESULT_FILES = re.compile(
    r"(result\.json|player\.html|preview(\.next)?\.png|(orbit|compare|voxels)\.mp4|frames/(frame_)?\d{5,}\.ply)"
)
NEXT_PREVIEW = "preview.next.png"
PREVIEW_MARK = b"preview of ss4d"
STAGING = ".ss4d-unfinished-"
COMPLETE = ".ss4d-complete-"
KEPT = ".ss4d-kept"
FILE_LIST = "files.txt"
MIN_FREE_BYTES = 8 * 2**20  # a small result takes this much


class DestinationError(ValueError):
    """A result cannot be written where it should; the message is one sentence that says what to do."""


def frame_file(index: int) -> str:
    """The name of a frame's Gaussians within a result; viewers take files that end in numbers for a sequence."""
    return f"frames/frame_{index:05d}.ply"


@dataclass
class ResultFolder:
    """Where a result goes: checked before the work, and never at the price of anything else.

    A result is written into a hidden folder of its own inside the destination, on the same file system, and its files
    are moved into place one by one when it is complete: an existing folder needs nothing of its parent and may be a
    mount point, and a link is followed. A process that ends on the way leaves the earlier result. Should it end within
    the milliseconds in which files are moved, those that are not yet in place are whole in the hidden folder, and the
    next process that writes or reads the result moves them in (`recover`).

    Example:
        >>> folder = ResultFolder.open("outputs")  # before anything is loaded
        >>> place = folder.write(lambda unfinished: save_everything(unfinished))  # doctest: +SKIP
    """

    path: Path  # absolute, links resolved
    given: Path  # as the user wrote it
    only_there: bool = False  # what can no longer be written there is written nowhere else

    @classmethod
    def open(cls, destination: str | os.PathLike[str], only_there: bool = False) -> ResultFolder:
        """Check a destination; nothing is left behind.

        Raises:
            DestinationError: not a folder, not writable, almost full, or holding files that are not a result's.
        """
        given = Path(destination)
        try:
            folder = cls(given.resolve(), given, only_there)
            folder._check()
        except OSError as error:
            raise DestinationError(f"{given} cannot be written: {_reason(error)}; name another folder.") from error
        return folder

    def _check(self) -> None:
        existing = next(place for place in (self.path, *self.path.parents) if place.exists())
        if not existing.is_dir():
            raise DestinationError(f"{self.given} is a file, or lies below one ({existing}): name a folder.")
        with tempfile.TemporaryFile(dir=existing) as probe:
            probe.write(b"0" * 4096)
        if existing == self.path:
            self.recover()
            self._check_content()
        free = shutil.disk_usage(existing).free
        if free < MIN_FREE_BYTES:
            raise DestinationError(
                f"{existing} has only {free / 2**20:.1f} MB free, too little for a result: make room or name another"
                " folder."
            )

    def _check_content(self) -> None:
        """Folders may lie beside a result; files could be mistaken for a part of it."""
        if self.holds_result:
            return
        for entry in sorted(self.path.iterdir()):
            taken = RESULT_FILES.fullmatch(entry.name) is not None or entry.name == "frames"
            if _is_preview(entry) or (not taken and (entry.is_dir() or entry.name.startswith("."))):
                continue
            raise DestinationError(
                f"{self.given} holds something else than an earlier result ({entry.name}): name another folder."
            )

    def recover(self, reading: bool = False) -> None:
        """Clear up behind processes that ended on the way: what is complete is moved in, and unless somebody only reads
        the result, what is unfinished goes."""
        unfinished = [] if reading else self.path.glob(f"{STAGING}*")
        for folder in [*unfinished, *self.path.glob(f"{COMPLETE}*")]:
            lock = os.open(folder, os.O_RDONLY)
            try:
                if not locked(lock):
                    continue  # a run that is still going
                if folder.name.startswith(COMPLETE):
                    self._move_in(folder)
                else:
                    shutil.rmtree(folder)
            finally:
                os.close(lock)

    @property
    def holds_result(self) -> bool:
        """Whether there is an earlier result: a report of ours, not any file of its name."""
        try:
            report = json.loads((self.path / REPORT).read_bytes())
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):
            return False
        return isinstance(report, dict) and report.keys() >= REPORT_KEYS

    @property
    def preview(self) -> Path:
        """Where to write the preview of a run that has just begun; an earlier result keeps its own until the end."""
        return self.path / (NEXT_PREVIEW if self.holds_result else "preview.png")

    @property
    def kept(self) -> Path:
        """A hidden folder for the finished stages of a run, until its result is written."""
        return self.path / KEPT

    def write(self, save: Callable[[Path], None], say: Callable[[str], None] = print) -> Path:
        """Write a result, and put it in the place of an earlier one.

        Args:
            save: writes all files of the result into the empty folder that it is given. It is called again with
                another folder where the first one cannot be written.
            say: is told where the result went, if not to the destination.

        Returns:
            The folder that the result is in, as it was given.

        Raises:
            DestinationError: there is no place to write it to.
        """
        try:
            with self._staging() as unfinished:
                save(unfinished)
                names = sorted(f.relative_to(unfinished).as_posix() for f in unfinished.rglob("*") if f.is_file())
                (unfinished / FILE_LIST).write_text("\n".join(names))
                complete = unfinished.with_name(unfinished.name.replace(STAGING, COMPLETE))
                os.rename(unfinished, complete)
                self._move_in(complete)
                return self.given
        except OSError as error:
            return self._write_elsewhere(save, error, say)

    def _write_elsewhere(self, save: Callable[[Path], None], error: OSError, say: Callable[[str], None]) -> Path:
        reasons = [f"{self.given}: {_reason(error)}"]
        others = [Path.cwd(), Path(tempfile.gettempdir()), Path("/var/tmp"), Path("/dev/shm")]
        for root in [] if self.only_there else dict.fromkeys(others):
            place: Path | None = None
            try:
                place = Path(tempfile.mkdtemp(dir=root, prefix="ss4d-result-"))
                save(place)
            except OSError as failure:
                reasons.append(f"{root}: {_reason(failure)}")
                if place is not None:
                    shutil.rmtree(place, ignore_errors=True)
                continue
            os.chmod(place, 0o755)
            say(f"{self.given} could not be written ({_reason(error)}); the result is in {place} instead.")
            return place
        raise DestinationError(f"The result could be written nowhere ({'; '.join(reasons)}): make room and run again.")

    @contextmanager
    def _staging(self) -> Iterator[Path]:
        """A hidden folder in the destination, locked as long as this process lives; removed at the end."""
        made = [place for place in (self.path, *self.path.parents) if not place.exists()]
        self.path.mkdir(parents=True, exist_ok=True)
        unfinished = self.path / f"{STAGING}{uuid.uuid4().hex[:8]}"
        lock = -1
        try:
            unfinished.mkdir()
            lock = os.open(unfinished, os.O_RDONLY)
            locked(lock)
            yield unfinished
        finally:
            if lock >= 0:
                os.close(lock)
            shutil.rmtree(unfinished, ignore_errors=True)
            for place in made:  # what this process made and did not fill
                if place.is_dir() and not any(place.iterdir()):
                    place.rmdir()

    def _move_in(self, complete: Path) -> None:
        """Move the files of a complete result into place, the report last; those of an earlier one go."""
        if not (complete / FILE_LIST).is_file():  # all are in place: a process ended while it removed the folder
            shutil.rmtree(complete)
            return
        names = (complete / FILE_LIST).read_text().split("\n")
        for name in sorted(names, key=lambda name: name == REPORT):
            (self.path / name).parent.mkdir(exist_ok=True)
            if (complete / name).exists():  # else an interrupted run has moved it already
                os.replace(complete / name, self.path / name)
        for name in self._own_files() - set(names):
            (self.path / name).unlink()
        shutil.rmtree(complete)

    def _own_files(self) -> set[str]:
        found = (file.relative_to(self.path).as_posix() for file in [*self.path.glob("*"), *self.path.glob("frames/*")])
        return {name for name in found if RESULT_FILES.fullmatch(name)}


def _is_preview(file: Path) -> bool:
    """Whether a file is the preview of a run that came no further."""
    if file.name not in ("preview.png", NEXT_PREVIEW) or not file.is_file():
        return False
    with file.open("rb") as stream:
        return PREVIEW_MARK in stream.read(1024)


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
