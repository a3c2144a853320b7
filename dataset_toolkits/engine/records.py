"""What stages leave in a data set beside artifacts: a record per item, a table per stage. All are written atomically.

A file is written in a folder of its own under `ROOT/tmp`, on the data set's file system, and then renamed.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ss4d.data.format import Row, table_path
from ss4d.files import publish


@dataclass(frozen=True)
class Record:
    """What became of an item: the rows it adds to the stage's table, or how it failed."""

    name: str
    key: str
    inputs: Mapping[str, Any]
    options: Mapping[str, Any]
    rows: Sequence[Row] = ()
    error: str | None = None  # one sentence; None if the item succeeded
    traceback: str | None = None


def read_record(root: Path, stage: str, name: str) -> Record | None:
    """The record of an item; None if there is none or it is damaged (the item is then made again)."""
    try:
        return Record(**json.loads(record_path(root, stage, name).read_text()))
    except (FileNotFoundError, json.JSONDecodeError, TypeError):
        return None


def write_record(root: Path, stage: str, record: Record) -> None:
    content = json.dumps(asdict(record), indent=1, sort_keys=True) + "\n"
    write_file(root, record_path(root, stage, record.name), content.encode())


def record_path(root: Path, stage: str, name: str) -> Path:
    return root / "records" / stage / f"{name}.json"


def write_table(root: Path, stage: str, rows: Sequence[Row]) -> None:
    """Write `ROOT/tables/<stage>.parquet`; the same rows give the same bytes."""
    import pyarrow
    import pyarrow.parquet

    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), sink)
    write_file(root, table_path(root, stage), sink.getvalue().to_pybytes())


def write_file(root: Path, path: Path, content: bytes) -> None:
    """Write a file of the data set atomically."""
    with temporary_folder(root) as folder:
        (folder / "file").write_bytes(content)
        move_into_place(folder / "file", path)


def move_into_place(temporary: Path, path: Path) -> None:
    """Give a finished file its name, in a folder that may not exist yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    publish(temporary, path)


@contextmanager
def temporary_folder(root: Path) -> Iterator[Path]:
    """A folder under `ROOT/tmp`, named after this host and process, removed at the end."""
    parent = root / "tmp"
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{socket.gethostname()}-{os.getpid()}-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep_temporary(root: Path) -> None:
    """Remove what killed processes of this host left under `ROOT/tmp`."""
    for folder in (root / "tmp").glob("*-*-*"):
        host, pid, _ = folder.name.rsplit("-", 2)
        if host == socket.gethostname() and not _is_running(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_running(pid: int) -> bool:
    """Whether a process of this host can still write; in a container dead ones may stay listed as zombies."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"
