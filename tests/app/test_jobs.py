"""Jobs of the web app: what is refused, that one runs at a time, and that nothing stays behind."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from ss4d.app.folder import work_folder
from ss4d.app.jobs import ROOT, Job, JobError, Jobs, Limits, Settings
from ss4d.app.page import attempt, show_result
from ss4d.viewer.result import read_result

pytestmark = pytest.mark.slow

CLIP = ROOT / "assets" / "demo.mp4"
MODEL = str(ROOT / "checkpoints" / "ss4d-tiny")
# What a run leaves, by a process that takes no time.
STAND_IN = 'mkdir result && echo start >>../../log && sleep 0.2 && echo end >>../../log && echo \'{"model": "/m"}\''


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    jobs = Jobs(tmp_path, MODEL, Limits())
    yield jobs
    jobs.close()


def stand_in(job: Job, settings: Settings) -> subprocess.Popen[str]:
    command = ["sh", "-c", f"{STAND_IN} >result/result.json"]
    return subprocess.Popen(command, cwd=job.folder, stderr=subprocess.PIPE, text=True)


def ignore(share: float, stage: str) -> None:
    pass


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def runs(process: int) -> bool:
    """Whether there is a process with this number that has not ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_clip_is_looked_at(jobs: Jobs) -> None:
    job = jobs.add("page", CLIP, 2)
    assert jobs.file(job.token, "preview.png") == job.folder / "preview.png"
    first = (job.folder / "preview.png").read_bytes()
    jobs.look("page", 5)
    assert (job.folder / "preview.png").read_bytes() != first


def test_from_clip_to_result(jobs: Jobs) -> None:
    stages: dict[str, float] = {}
    jobs.add("page", CLIP, 1)
    job = jobs.generate("page", Settings(frames=1, steps=1), lambda share, stage: stages.update({stage: share}))
    assert stages["structure"] == stages["latents"] == stages["videos"] == 1
    archive, player = jobs.file(job.token, "result.zip"), jobs.file(job.token, "player.html")
    assert archive and player and player.stat().st_size > 10**5
    zipfile.ZipFile(archive).extractall(jobs.folder / "taken")
    assert len(read_result(jobs.folder / "taken" / "demo").gaussians) == 1
    report = (jobs.folder / "taken" / "demo" / "result.json").read_text()
    assert str(ROOT) not in report and str(jobs.folder) not in report
    jobs.remove("page")
    assert not list((jobs.folder / "jobs").iterdir()) and jobs.file(job.token, "result.zip") is None


def long_video(folder: Path) -> Path:
    """Ten minutes of a square, a frame every five seconds."""
    with av.open(str(folder / "long.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(1, 5))
        stream.width = stream.height = 32
        stream.time_base = Fraction(5)
        for _ in range(120):
            picture = np.full((32, 32, 3), 255, np.uint8)
            picture[10:20, 10:20] = 0
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode(None))
    return folder / "long.mp4"


def zip_named_mp4(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "clip.mp4", "w") as archive:
        archive.writestr("clip.txt", "no video" * 1000)
    return folder / "clip.mp4"


def huge_file(folder: Path) -> Path:
    with (folder / "huge.mp4").open("wb") as file:
        file.truncate(2 * 10**9)
    return folder / "huge.mp4"


def script(folder: Path) -> Path:
    (folder / "clip.sh").write_text("echo no video")
    return folder / "clip.sh"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (long_video, "long.mp4 lasts 600 seconds, but this app takes 60"),
        (zip_named_mp4, "^clip.mp4 cannot be read as a video"),
        (huge_file, "huge.mp4 has 2000 MB, but this app takes 100 MB"),
        (script, "clip.sh is not a video"),
    ],
)
def test_what_is_no_clip_is_refused(jobs: Jobs, tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(JobError, match=message) as caught:
        jobs.add("page", make(tmp_path), 2)
    assert "\n" not in str(caught.value) and str(tmp_path) not in str(caught.value)
    assert not list(tmp_path.glob("jobs/*"))
    with pytest.raises(JobError, match="upload one first"):
        jobs.generate("page", Settings(), ignore)


@pytest.mark.parametrize("settings", [Settings(frames=33), Settings(frames=0), Settings(steps=51), Settings(seed=-1)])
def test_numbers_out_of_range_are_refused(jobs: Jobs, settings: Settings) -> None:
    with pytest.raises(JobError, match="but"):
        jobs.generate("page", settings, ignore)


def test_only_files_of_a_job_are_served(jobs: Jobs) -> None:
    job = jobs.add("page", CLIP, 1)
    assert jobs.file(job.token, "preview.png")
    for name in ("../../../etc/passwd", "clip/demo.mp4", "/etc/passwd", "player.html", "result.zip", "", "."):
        assert jobs.file(job.token, name) is None
    assert jobs.file("../jobs/" + job.token, "preview.png") is None


def test_only_uploads_are_taken(jobs: Jobs) -> None:
    upload = jobs.uploads / "a" / "clip.mp4"
    upload.parent.mkdir(parents=True)
    upload.write_bytes(b"0")
    (jobs.uploads / "link.mp4").symlink_to(CLIP)
    assert jobs.upload(str(upload)) == upload.resolve()
    for path in (CLIP, jobs.uploads / ".." / "other.mp4", jobs.uploads / "link.mp4", "../demo.mp4", jobs.uploads / "a"):
        with pytest.raises(JobError, match="was not uploaded here"):
            jobs.upload(str(path))


def test_one_job_runs_at_a_time(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_start", stand_in)
    pages = ["one", "two", "three"]
    for page in pages:
        jobs.add(page, CLIP, 1)
    threads = [threading.Thread(target=jobs.generate, args=(page, Settings(), ignore)) for page in pages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (jobs.folder / "log").read_text().split() == ["start", "end"] * 3


def test_a_run_is_cancelled(jobs: Jobs) -> None:
    job = jobs.add("page", CLIP, 1)
    said: list[str] = []

    def run() -> None:
        try:
            jobs.generate("page", Settings(frames=1, steps=50), ignore)
        except JobError as error:
            said.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: job.process)
    jobs.cancel("page")
    thread.join(10)
    assert said == ["Cancelled."] and job.clip.is_file() and not (job.folder / "result").exists()


def test_a_failure_is_one_sentence(jobs: Jobs) -> None:
    jobs.model = "no-such-folder"
    jobs.add("page", CLIP, 1)
    with pytest.raises(JobError, match="no-such-folder") as caught:
        jobs.generate("page", Settings(frames=1), ignore)
    assert "\n" not in str(caught.value)


def test_a_result_that_cannot_be_packed_can_be_seen(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Jobs, "_start", lambda self, job, settings: stand_in(job, settings))
    monkeypatch.setattr("ss4d.app.jobs.zipfile.ZipFile", full)
    jobs.add("page", CLIP, 1)
    job = jobs.generate("page", Settings(frames=1), ignore)
    shown = show_result(job)
    assert "player.html" in shown and "result.zip" not in shown and not list(job.folder.glob("*zip*"))
    assert "could not be packed: [Errno 28]" in capsys.readouterr().err


def test_without_room_a_visitor_is_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    def full() -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    shown, done = attempt(full)
    assert not done and "The server has no room at the moment" in shown
    assert "No space left" in capsys.readouterr().err


def test_what_nobody_uses_is_removed(jobs: Jobs) -> None:
    example, upload = jobs.uploads / "a" / "demo.mp4", jobs.uploads / "b" / "mine.mp4"
    for file in (example, upload):
        file.parent.mkdir(parents=True)
        file.write_bytes(b"0")
        os.utime(file, (0, 0))
    jobs.examples = {example}
    job = jobs.add("page", CLIP, 1)
    jobs.remove_old(60)
    assert job.folder.exists() and example.exists() and not upload.exists()
    jobs.wait("page")
    job.used -= 61
    jobs.remove_old(60)  # it waits for its turn
    assert job.folder.exists()
    job.waiting = False
    jobs.remove_old(60)
    assert not job.folder.exists()


def test_killed_in_the_middle_it_starts_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = f"""
        from pathlib import Path
        from ss4d.app.folder import work_folder
        from ss4d.app.jobs import Jobs, Limits, Settings
        with work_folder() as folder:
            jobs = Jobs(folder, {MODEL!r}, Limits())
            jobs.add("page", Path({str(CLIP)!r}), 1)
            tell = lambda share, stage: print(jobs.find("page").process.pid, flush=True)
            jobs.generate("page", Settings(frames=1, steps=50), tell)
    """
    killed = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(app)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert killed.stdout is not None
    worker = int(killed.stdout.readline())
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (left,) = tmp_path.glob("ss4d-app-*")
    with work_folder() as other:
        assert left.exists() and other != left  # of an app that runs
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    until(lambda: not runs(worker))
    with work_folder() as fresh:
        assert list(tmp_path.glob("ss4d-app-*")) == [fresh] and not list(fresh.iterdir())
    assert not list(tmp_path.glob("ss4d-app-*"))
