"""The repository itself: what importing needs, what is tracked, and the set-up script."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAX_FILE_MB = 20

# Refuses every module that is neither in the standard library nor torch, numpy, or needed by torch itself.
IMPORT_WITHOUT_OPTIONAL_PACKAGES = """
import sys, torch

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in {"torch", "numpy", "ss4d", *sys.stdlib_module_names}:
            raise ImportError(f"{name} is not one of the packages that import ss4d may need")

for name in {"PIL", "av", "scipy", "numba", "tqdm", "safetensors", "omegaconf"} & set(sys.modules):
    del sys.modules[name]
sys.meta_path.insert(0, Refuse())
import ss4d
assert ss4d.__version__.count(".") == 2
try:
    ss4d.no_such_name
except AttributeError as error:
    assert "no_such_name" in str(error)
else:
    raise AssertionError("an unknown attribute was found")
try:
    import PIL
except ImportError:
    print("refused")
"""


def tracked_files() -> list[Path]:
    """Files git knows, or skip: a source archive has no git."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [path for name in listing.stdout.split("\0") if name and (path := ROOT / name).is_file()]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with just what `setup.sh install` reads."""
    for name in ("setup.sh", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def executable(path: Path, script: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def run_setup(*arguments: str, folder: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(folder / "setup.sh"), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_import_needs_only_torch_and_numpy() -> None:
    result = subprocess.run(
        [sys.executable, "-c", IMPORT_WITHOUT_OPTIONAL_PACKAGES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "refused"


def test_tracked_files_are_small() -> None:
    large = [path.name for path in tracked_files() if path.stat().st_size > MAX_FILE_MB * 2**20]
    assert not large


def test_tracked_files_name_no_path_of_one_machine() -> None:
    pattern = re.compile(rb"(?<![\w.])/(?:work|farm|root|home|Users)/[A-Za-z.]")
    found = {
        path.relative_to(ROOT).as_posix(): match[0].decode()
        for path in tracked_files()
        if path.suffix not in {".safetensors", ".npz", ".png", ".webp", ".mp4", ".gif", ".glb", ".ply"}
        and (match := pattern.search(path.read_bytes()))
        and path != Path(__file__)
    }
    assert not found


def test_requirements_pin_everything_and_name_no_index() -> None:
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    unpinned = [
        line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+(; python_version [<>=]+ \"3\.\d+\")?", line)
    ]
    assert not unpinned
    declared = (ROOT / "pyproject.toml").read_text().split("\ndependencies = [")[1].split("\n]")[0]
    pinned = {re.split("==", line)[0].lower().replace("_", "-") for line in lines}
    assert {re.split("[<>=]", name)[0] for name in re.findall(r'"([^"]+)"', declared)} <= pinned


@pytest.mark.parametrize("arguments", [(), ("unknown",)])
def test_setup_explains_itself(arguments: tuple[str, ...]) -> None:
    result = run_setup(*arguments)
    assert result.returncode == 2
    assert "Usage: ./setup.sh install|data|demo|blender|test" in result.stderr


@pytest.mark.parametrize("version", ["3.9", "3.14", "2.7"])
def test_setup_rejects_an_unsupported_python(checkout: Path, version: str) -> None:
    fake = executable(checkout / "fake-python", f"echo {version}")
    result = run_setup("install", folder=checkout, PYTHON=fake)
    assert result.returncode == 1
    assert f"is Python {version}; SS4D needs Python 3.10 to 3.13" in result.stderr
    assert not (checkout / ".venv").exists()


def test_setup_names_a_python_that_does_not_run(checkout: Path) -> None:
    result = run_setup("install", folder=checkout, PYTHON=str(checkout / "missing"))
    assert result.returncode == 1
    assert "missing does not run" in result.stderr


def test_setup_names_the_package_of_a_missing_venv_module(checkout: Path) -> None:
    fake = executable(checkout / "fake-python", 'case "$2" in *version_info*) echo 3.11 ;; *) exit 1 ;; esac')
    result = run_setup("install", folder=checkout, PYTHON=fake)
    assert result.returncode == 1
    assert "apt-get install python3.11-venv" in result.stderr


def test_setup_installs_torch_first_and_once(checkout: Path) -> None:
    """With a stand-in for the environment's Python that only writes down what is asked of it."""
    log = checkout / "log"
    record = f'if [ "$1" = -c ]; then echo 3.11; else echo "$@" >>"{log}"; fi'
    executable(checkout / ".venv" / "bin" / "python", record)
    assert run_setup("install", folder=checkout).returncode == 0
    torch = re.search(r"^torch==.*$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert torch is not None
    wanted = [torch[0], "-r requirements.txt", "--no-deps --no-build-isolation --editable ."]
    calls = [line for line in log.read_text().splitlines() if "install" in line]
    assert [call.split("--disable-pip-version-check ")[1] for call in calls] == wanted

    log.unlink()
    assert run_setup("install", folder=checkout).returncode == 0
    assert not log.exists()  # nothing to do
    with (checkout / "requirements.txt").open("a") as file:
        file.write("# changed\n")
    assert run_setup("install", folder=checkout).returncode == 0
    assert "-r requirements.txt" in log.read_text()


def test_setup_makes_an_environment_anew_whose_python_is_gone_or_whose_checkout_was_moved(checkout: Path) -> None:
    """The stand-in for Python makes environments of stand-ins, and writes down how it was asked."""
    log = checkout / "log"
    note = f'echo "$@" >>"{log}"'
    inner = f'if [ "$1" = -c ]; then echo 3.11; else {note}; fi'
    make = f'rm -rf .venv; mkdir -p .venv/bin; printf %s "$INNER" >.venv/bin/python; chmod +x .venv/bin/python; {note}'
    script = f'case "$1" in -c) echo 3.11 ;; -m) {make} ;; esac'
    environment = {"PYTHON": executable(checkout / "python", script), "INNER": f"#!/bin/sh\n{inner}\n"}
    (checkout / ".venv/bin").mkdir(parents=True)
    (checkout / ".venv/bin/python").symlink_to("/nowhere/python3")
    assert run_setup("install", folder=checkout, **environment).returncode == 0
    assert "-m venv --clear .venv" in log.read_text().splitlines()

    moved = checkout.rename(checkout.with_name("moved"))
    environment["PYTHON"] = executable(moved / "python", script.replace(str(checkout), str(moved)))
    environment["INNER"] = environment["INNER"].replace(str(checkout), str(moved))
    (moved / "log").unlink()
    assert run_setup("install", folder=moved, **environment).returncode == 0
    assert "-m venv --clear .venv" in (moved / "log").read_text().splitlines()
    (moved / "log").unlink()
    assert run_setup("install", folder=moved, **environment).returncode == 0
    assert not (moved / "log").exists()
