"""Jobs: the clip of a visitor, looked at when it is uploaded, and its result, computed one at a time."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import threading
import time
import warnings
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ss4d.app.sentences import for_visitors, of_failed_run
from ss4d.files import written_atomically
from ss4d.result_folder import REPORT
from ss4d.video import VideoError, find_foreground, foreground_warnings, read_clip, write_preview
from ss4d.video.read import VIDEO_SUFFIXES

ROOT = Path(__file__).parent.parent.parent  # where inference.py lies
SERVED = {"preview.png": "preview.png", "player.html": "result/player.html", "result.zip": "result.zip"}
DAY = 86400.0  # seconds
PROGRESS = re.compile(r"(.+?):\s+(\d+)%\|")  # a line of tqdm


class JobError(ValueError):
    """A visitor's request that cannot be met; the message is one sentence that says why."""


@dataclass(frozen=True)
class Limits:
    """What a visitor may ask for; the page says so before anything is uploaded."""

    megabytes: int = 100  # of an upload
    seconds: int = 60  # of a clip
    frames: int = 32
    steps: int = 50
    waiting: int = 20  # visitors in the queue


@dataclass(frozen=True)
class Settings:
    """Of a run."""

    frames: int = 8
    steps: int = 4
    refine: bool = False
    seed: int = 42

    def arguments(self) -> list[str]:
        """Of `inference.py`."""
        refine = "--refine" if self.refine else "--no-refine"
        return [f"--num-frames={self.frames}", f"--steps={self.steps}", f"--seed={self.seed}", refine]

    def check(self, limits: Limits) -> None:
        """JobError where a number is out of range; sliders keep to it, but requests need not come from the page."""
        for name, value, most in (("frames", self.frames, limits.frames), ("steps", self.steps, limits.steps)):
            if not 1 <= value <= most:
                raise JobError(f"{value} {name} were asked for, but this app takes 1 to {most}.")
        if not 0 <= self.seed < 2**31:
            raise JobError(f"The seed is {self.seed}, but it must be 0 to {2**31 - 1}.")


@dataclass
class Job:
    """One upload and what became of it; its folder's name is the secret by which its page asks for files."""

    folder: Path
    clip: Path
    notes: list[str] = field(default_factory=list)  # what is likely to spoil the result
    process: subprocess.Popen[str] | None = None  # while it runs
    cancelled: bool = False
    waiting: bool = False  # for its turn in the queue
    used: float = field(default_factory=time.monotonic)

    @property
    def token(self) -> str:
        return self.folder.name


class Jobs:
    """All jobs of a running app, at most one for each page that is open.

    Args:
        folder: of the app, see `ss4d.app.folder`.
        model: checkpoint folder or Hub id.
    """

    def __init__(self, folder: Path, model: str, limits: Limits):
        self.folder, self.model, self.limits = folder, model, limits
        self.uploads = folder / "uploads"
        self.examples: set[Path] = set()  # files among the uploads that stay
        self._of_session: dict[str, Job] = {}
        self._turn = threading.Lock()

    def upload(self, path: str) -> Path:
        """The file of a request, which must lie among the uploads, whatever the request says."""
        file = Path(path).resolve()
        if not file.is_relative_to(self.uploads.resolve()) or not file.is_file():
            raise JobError(f"{file.name} was not uploaded here: upload a clip.")
        return file

    def add(self, session: str, upload: Path, frames: int) -> Job:
        """Take over an uploaded clip in the place of an earlier one, and look at it.

        Raises:
            JobError, VideoError: too large, too long, not a video, or no object in it.
        """
        self.remove(session)
        megabytes = upload.stat().st_size / 1e6
        if megabytes > self.limits.megabytes:
            raise JobError(f"{upload.name} has {megabytes:.0f} MB, but this app takes {self.limits.megabytes} MB.")
        if upload.suffix.lower() not in VIDEO_SUFFIXES:
            raise JobError(f"{upload.name} is not a video: upload a {', '.join(VIDEO_SUFFIXES)} file.")
        folder = self.folder / "jobs" / secrets.token_hex(16)
        (folder / "clip").mkdir(parents=True)
        job = self._of_session[session] = Job(folder, folder / "clip" / upload.name)
        try:
            shutil.copyfile(upload, job.clip)
            self._check_length(job.clip)
            self.look(session, frames)
        except VideoError as error:
            self.remove(session)
            raise JobError(for_visitors(str(error))) from error
        except BaseException:
            self.remove(session)
            raise
        return job

    def _check_length(self, clip: Path) -> None:
        durations = read_clip(clip, num_frames=1).durations
        seconds = 0.0 if durations is None else durations.sum()
        if seconds > self.limits.seconds:
            raise JobError(
                f"{clip.name} lasts {seconds:.0f} seconds, but this app takes {self.limits.seconds}: cut it first."
            )

    def look(self, session: str, frames: int) -> Job:
        """Write the preview of a job: the frames that are taken, their crop and the cut-outs."""
        Settings(frames=frames).check(self.limits)
        job = self.find(session)
        job.used = time.monotonic()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            clip = read_clip(job.clip, frames)
            rgba = find_foreground(clip)
        said = [str(warning.message) for warning in caught]
        job.notes = [for_visitors(note) for note in (*said, *foreground_warnings(rgba, clip))]
        write_preview(job.folder / "preview.png", clip, rgba)
        return job

    def find(self, session: str) -> Job:
        """The job of a page."""
        job = self._of_session.get(session)
        if job is None:
            raise JobError("There is no clip: upload one first.")
        return job

    def wait(self, session: str) -> None:
        """Note that the job of a page, if there is one, waits for its turn."""
        job = self._of_session.get(session)
        if job is not None:
            job.waiting, job.used = True, time.monotonic()

    def generate(self, session: str, settings: Settings, progress: Callable[[float, str], None]) -> Job:
        """Run a job to its end; while another one runs, wait.

        Args:
            progress: is told the share of a stage that is done, and the stage's name.

        Raises:
            JobError: it failed, or was cancelled.
        """
        settings.check(self.limits)
        job = self.find(session)
        job.cancelled = False
        with self._turn:
            if job.cancelled:
                raise JobError("Cancelled.")
            shutil.rmtree(job.folder / "result", ignore_errors=True)
            process = job.process = self._start(job, settings)
            try:
                sentence = follow(process, progress)
            finally:
                end(process)
                job.process, job.waiting, job.used = None, False, time.monotonic()
        if job.cancelled:
            raise JobError("Cancelled.")
        if process.returncode or not (job.folder / "result" / REPORT).is_file():
            print(f"job failed with status {process.returncode}: {sentence}", file=sys.stderr, flush=True)
            raise JobError(of_failed_run(sentence))
        try:
            pack(job)
        except OSError as error:  # no room: the player can be seen, and saved, all the same
            print(f"the result could not be packed: {error}", file=sys.stderr, flush=True)
        return job

    def _start(self, job: Job, settings: Settings) -> subprocess.Popen[str]:
        """The process of a job; it works in the job's folder."""
        arguments = [f"clip/{job.clip.name}", "--out", "result", "--model", self.model, *settings.arguments()]
        command = [sys.executable, "-m", "ss4d.app.worker", *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=job.folder, stdin=pipe, stdout=subprocess.DEVNULL, stderr=pipe, text=True, env=environment()
        )

    def cancel(self, session: str) -> None:
        """End the run of a page, if there is one; its clip stays."""
        job = self._of_session.get(session)
        if job is not None:
            job.cancelled, job.waiting = True, False
            if job.process is not None:
                end(job.process)

    def remove(self, session: str) -> None:
        """End the job of a page and remove its files."""
        self.cancel(session)
        job = self._of_session.pop(session, None)
        if job is not None:
            shutil.rmtree(job.folder, ignore_errors=True)

    def remove_old(self, seconds: float) -> None:
        """Remove uploads, and jobs that do not run, that nobody has touched for so long; those that wait for their turn
        stay a day, should their page be gone without a word."""
        now = time.monotonic()
        for session, job in list(self._of_session.items()):
            if job.process is None and now - job.used > (max(seconds, DAY) if job.waiting else seconds):
                self.remove(session)
        for file in set(self.uploads.rglob("*")) - self.examples:
            with suppress(FileNotFoundError):
                if file.is_file() and time.time() - file.stat().st_mtime > seconds:
                    file.unlink()

    def close(self) -> None:
        """End all jobs."""
        for session in list(self._of_session):
            self.remove(session)

    def file(self, token: str, name: str) -> Path | None:
        """A file that the page with this token may show; None for anything else."""
        job = {job.token: job for job in list(self._of_session.values())}.get(token)
        if job is None or name not in SERVED:
            return None
        path = job.folder / SERVED[name]
        return path if path.is_file() else None


def follow(process: subprocess.Popen[str], progress: Callable[[float, str], None]) -> str | None:
    """Pass on the progress of a run until it ends; what it says about its failure, if anything."""
    sentence = None
    assert process.stderr is not None
    for line in process.stderr:  # a bar of tqdm ends its lines with carriage returns, which count as well
        if found := PROGRESS.match(line):
            progress(int(found[2]) / 100, found[1])
        elif line.startswith("error: "):
            sentence = line.removeprefix("error: ").replace("clip/", "").strip()
    process.wait()
    return sentence


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


def environment() -> dict[str, str]:
    """Of a run: it finds this code, whatever folder it works in."""
    places = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(places)}


def pack(job: Job) -> None:
    """All files of a result in one; its report names the model without the place on this machine."""
    result = job.folder / "result"
    report = json.loads((result / REPORT).read_text("utf-8"))
    report["model"] = Path(report["model"]).name
    (result / REPORT).write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    with written_atomically(job.folder / "result.zip") as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for file in sorted(result.rglob("*")):
            archive.write(file, f"{job.clip.stem}/{file.relative_to(result)}")
