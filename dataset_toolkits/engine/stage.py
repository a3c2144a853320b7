"""What a stage of the toolkit is, and how its work is remembered.

A stage turns items (assets or clips) into artifacts, `ROOT/<stage>/<item><suffix>`, independently of each other.
Beside every artifact `ROOT/records/<stage>/<item>.json` says what it was made from: an item is done when its record
holds the key of today's options and inputs. When all items are done, `ROOT/tables/<stage>.parquet` lists them: that
is what the next stage and training read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from ss4d.files import publish

Row = dict[str, Any]  # one line of a stage's table: plain values, the same columns in every row


class StageError(ValueError):
    """A stage cannot start; the message says what is missing and what to run."""


@dataclass(frozen=True)
class Item:
    """One unit of work.

    `inputs` (JSON values) is all that decides the artifact beside the stage's options: hashes of files, keys of the
    artifacts it reads. `payload` is what `Stage.process` is told besides; it must follow from `inputs`.
    """

    name: str  # unique in the stage, safe as a file name
    inputs: Mapping[str, Any]
    payload: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Record:
    """What became of an item: the rows it adds to the stage's table, or how it failed."""

    name: str
    key: str
    inputs: Mapping[str, Any]
    options: Mapping[str, Any]
    rows: Sequence[Row] = ()
    error: str | None = None  # one sentence; None where the item succeeded
    traceback: str | None = None


class Stage(ABC):
    """One step of the toolkit.

    Args:
        root: folder of the data set.
        options: a dataclass of plain values; all of them decide the artifacts, but for fields made by `speed_option`.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1  # raise it when the same options and inputs give another artifact
    suffix: ClassVar[str | None] = None  # ending of the artifacts; None where the table is all that the stage makes
    time_limit: ClassVar[float] = 600.0  # seconds an item may take where the command line gives no limit

    def __init__(self, root: Path, options: Any):
        self.root, self.options = root, options

    @abstractmethod
    def items(self) -> list[Item]:
        """All items of the stage, in a fixed order; called by the process that drives the stage.

        Raises:
            StageError: an earlier stage is not complete.
        """

    @abstractmethod
    def process(self, item: Item, path: Path | None) -> list[Row]:
        """Make one item in a worker process: write its artifact to `path` (a temporary name; None without
        `suffix`) and return its rows. An exception becomes a failure of this item alone."""

    def close(self) -> None:  # noqa: B027 - most stages hold nothing
        """Release what `process` keeps between items, such as a running Blender; called once in every worker."""

    def finish(self) -> None:  # noqa: B027 - most stages are their table
        """Summarise all items, such as statistics of latents; called by the process that drives the stage when every
        item has its record, just before the table is written."""

    def key(self, item: Item) -> str:
        """Decides whether an artifact is up to date: a hash of version, options and inputs."""
        return digest([self.name, self.version, deciding_options(self.options), dict(item.inputs)])

    def artifact(self, name: str) -> Path:
        """Where the artifact of an item lies."""
        return artifact_path(self.root, self.name, name, self.suffix or "")

    def is_done(self, item: Item) -> bool:
        """Whether the item needs no work: made, or failed, from the same options and inputs."""
        return self.current_record(item) is not None

    def current_record(self, item: Item) -> Record | None:
        """The item's record where it is of today's options and inputs and its artifact is there; else None."""
        record = read_record(self.root, self.name, item.name)
        if record is None or record.key != self.key(item):
            return None
        complete = record.error is not None or self.suffix is None or self.artifact(item.name).exists()
        return record if complete else None

    def run(self, item: Item) -> Record:
        """Make one item here and now, in one step: artifact first, then its record."""
        with temporary_folder(self.root) as folder:
            path = folder / f"artifact{self.suffix}" if self.suffix else None
            rows = self.process(item, path)
            if path is not None:
                self.artifact(item.name).parent.mkdir(parents=True, exist_ok=True)
                publish(path, self.artifact(item.name))
        record = self.record(item, rows=rows)
        write_record(self.root, self.name, record)
        return record

    def fail(self, item: Item, error: str, traceback: str) -> None:
        """Record that an item failed; what an earlier run made of it goes. Names of temporary folders and addresses
        in memory are cut out, so that the same failure leaves the same record."""
        if self.suffix is not None:
            self.artifact(item.name).unlink(missing_ok=True)
        error, traceback = (_without_chance(self.root, text) for text in (error, traceback))
        write_record(self.root, self.name, self.record(item, error=error, traceback=traceback))

    def record(self, item: Item, **outcome: Any) -> Record:
        return Record(item.name, self.key(item), dict(item.inputs), deciding_options(self.options), **outcome)


def speed_option(default: Any) -> Any:
    """A dataclass field that changes how fast a stage runs, not what it makes: a change makes nothing again."""
    return field(default=default, metadata={"speed": True})


def deciding_options(options: Any) -> dict[str, Any]:
    """The options, a dataclass, that decide a stage's artifacts."""
    return {f.name: getattr(options, f.name) for f in fields(options) if not f.metadata.get("speed")}


def artifact_path(root: Path, stage: str, name: str, suffix: str) -> Path:
    """`ROOT/<stage>/<item><suffix>`."""
    return root / stage / f"{name}{suffix}"


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, shortened to 32 hex digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:32]


def read_record(root: Path, stage: str, name: str) -> Record | None:
    """The record of an item; None where there is none or it is damaged (the item is then made again)."""
    try:
        return Record(**json.loads(_record_path(root, stage, name).read_text()))
    except (FileNotFoundError, json.JSONDecodeError, TypeError):
        return None


def write_record(root: Path, stage: str, record: Record) -> None:
    content = json.dumps(asdict(record), indent=1, sort_keys=True) + "\n"
    replace(root, _record_path(root, stage, record.name), content.encode())


def write_table(root: Path, stage: str, rows: Sequence[Row]) -> None:
    """`ROOT/tables/<stage>.parquet` in one step; the same rows give the same bytes."""
    import pyarrow
    import pyarrow.parquet

    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), sink)
    replace(root, table_path(root, stage), sink.getvalue().to_pybytes())


def read_table(root: Path, stage: str) -> list[Row]:
    """The rows of a complete stage.

    Raises:
        StageError: the stage was not run to its end.
    """
    import pyarrow.parquet

    path = table_path(root, stage)
    if not path.exists():
        raise StageError(f"{path} is missing: run `python -m dataset_toolkits {stage} --root {root}` to its end first")
    return pyarrow.parquet.read_table(path).to_pylist()


def table_path(root: Path, stage: str) -> Path:
    return root / "tables" / f"{stage}.parquet"


def replace(root: Path, path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(root) as folder:
        temporary = folder / "file"
        temporary.write_bytes(content)
        os.replace(temporary, path)


@contextmanager
def temporary_folder(root: Path) -> Iterator[Path]:
    """A folder under `ROOT/tmp`, on the data set's own file system, named after this process."""
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
    """Whether a process of this host can still write: in a container, dead ones may stay listed as zombies."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def _without_chance(root: Path, text: str) -> str:
    text = re.sub(re.escape(str(root / "tmp")) + r"/[\w.-]+/", "", text)
    return re.sub(r"\b0x[0-9a-f]{6,}", "0x...", text)


def _record_path(root: Path, stage: str, name: str) -> Path:
    return root / "records" / stage / f"{name}.json"
