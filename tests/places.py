"""Folders seen by other users, and what a result's folder holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

from ss4d.result_folder import frame_file

ROOT = os.geteuid() == 0
REPOSITORY = str(Path(__file__).parents[1])


def content(folder: Path) -> dict[str, str]:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_text() for file in files}


def as_nobody(script: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python as a user without rights and without a home."""
    drop = "import os, ss4d.result_folder, ss4d.files; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
    command = [sys.executable, "-c", drop + textwrap.dedent(script), *(str(argument) for argument in arguments)]
    variables = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONPATH": REPOSITORY, **environment}
    return subprocess.run(command, capture_output=True, text=True, env=variables, cwd="/", timeout=60)


def reachable(folder: Path) -> Path:
    """The same folder, which other users can get to now."""
    for place in (folder, *folder.parents):
        if place != Path("/") and not place.stat().st_mode & 0o001:
            place.chmod(place.stat().st_mode | 0o011)
    return folder


def report(frames: int, text: str = "new") -> str:
    """A result.json of ours, of little."""
    return json.dumps({"num_frames": frames, "resolution": 8, "text": text})


def save(frames: int, text: str = "new"):
    """Writes the files of a result."""

    def write(folder: Path) -> None:
        (folder / "frames").mkdir()
        for index in range(frames):
            (folder / frame_file(index)).write_text(f"{text} {index}")
        for name in ("orbit.mp4", "compare.mp4", "voxels.mp4", "preview.png"):
            (folder / name).write_text(text)
        (folder / "result.json").write_text(report(frames, text))

    return write


def result(frames: int, text: str = "new") -> dict[str, str]:
    """What `content` reads then."""
    names = ("orbit.mp4", "compare.mp4", "voxels.mp4", "preview.png")
    gaussians = {frame_file(i): f"{text} {i}" for i in range(frames)}
    return gaussians | dict.fromkeys(names, text) | {"result.json": report(frames, text)}
