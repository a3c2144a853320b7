"""The interface of the `objaverse` package (0.1.7) as its source has it, with a few objects and no network."""

from __future__ import annotations

import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

ANNOTATIONS = {
    "aaa": {
        "license": "by",
        "user": {"username": "ann"},
        "categories": [{"name": "animals-pets"}, {"name": "nature"}],
        "viewerUrl": "https://sketchfab.com/3d-models/aaa",
    },
    "bbb": {"license": "by-nc", "user": {}, "categories": []},
    "unreachable": {"license": "by"},
}
GITHUB = "https://github.com/maker/models/blob/c0ffee/rigs/walk%20cycle.glb"
XL_ROWS = [
    {"fileIdentifier": GITHUB, "source": "github", "license": "MIT License", "sha256": "1" * 64},
    {"fileIdentifier": "https://sketchfab.com/3d-models/ccc", "source": "sketchfab", "license": "", "sha256": "2" * 64},
    {"fileIdentifier": "https://other.org/unreachable", "source": "smithsonian", "license": "", "sha256": "3" * 64},
    {"fileIdentifier": "https://other.org/not-wanted", "source": "smithsonian", "license": "", "sha256": "4" * 64},
]


def install(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Make `import objaverse` find the stub; returns what is asked of it, call by call."""
    calls: list[list[str]] = []
    objaverse: Any = types.ModuleType("objaverse")
    objaverse.BASE_PATH = objaverse._VERSIONED_PATH = "/nowhere"

    def load_objects(uids: list[str], download_processes: int = 1) -> dict[str, str]:
        calls.append(uids)
        if "unreachable" in uids:
            raise OSError("HTTP Error 404: Not Found")
        return {uid: _write(Path(objaverse._VERSIONED_PATH, "glbs", "000-000", f"{uid}.glb")) for uid in uids}

    objaverse.load_uids = lambda: list(ANNOTATIONS)
    objaverse.load_annotations = lambda uids: {uid: ANNOTATIONS[uid] for uid in uids}
    objaverse.load_objects = load_objects
    objaverse.xl = types.ModuleType("objaverse.xl")
    objaverse.xl.get_annotations = _annotations
    objaverse.xl.download_objects = lambda **arguments: _download(calls, **arguments)
    monkeypatch.setitem(sys.modules, "objaverse", objaverse)
    monkeypatch.setitem(sys.modules, "objaverse.xl", objaverse.xl)
    return calls


def _annotations(download_dir: str = "~/.objaverse", refresh: bool = False) -> Any:
    import pandas

    return pandas.DataFrame(XL_ROWS).assign(fileType="glb", metadata="{}")


def _download(
    calls: list[list[str]], objects: Any, download_dir: str, processes: int, save_repo_format: str
) -> dict[str, str]:
    assert save_repo_format == "files"
    wanted: Sequence[str] = objects["fileIdentifier"].tolist()
    calls.append(list(wanted))
    if any("unreachable" in identifier for identifier in wanted):
        raise OSError("HTTP Error 404: Not Found")
    found = {}
    for identifier in wanted:
        if identifier == GITHUB:  # of a repository that is there already, the package says nothing
            _write(Path(download_dir, "github", "repos", "maker", "models", "rigs", "walk%20cycle.glb"))
        else:
            found[identifier] = _write(Path(download_dir, "hf-objaverse-v1", f"{identifier.split('/')[-1]}.glb"))
    return found


def _write(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(f"content of {path.name}".encode())
    return str(path)
