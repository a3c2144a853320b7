"""A stage of the toolkit.

A stage turns items (assets or clips) into artifacts, `ROOT/<stage>/<item><suffix>`, independently of each other.
For every artifact `ROOT/records/<stage>/<item>.json` says what it was made from: an item is done when its record
holds the key of the current options and inputs. When all items are done, `ROOT/tables/<stage>.parquet` lists them;
the next stage and training read this table.
"""

from __future__ import annotations

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

from dataset_toolkits.engine.records import (
    Record,
    move_into_place,
    read_record,
    record_path,
    temporary_folder,
    write_record,
)
from ss4d.data.format import Row, artifact_path


class StageError(ValueError):
    """A stage cannot start; the message says what is missing and what to run."""


@dataclass(frozen=True)
class Item:
    """One unit of work.

    Attributes:
        name: unique in the stage, safe as a file name.
        inputs: JSON values, all that decides the artifact beside the stage's options: hashes of files, keys of the
            artifacts that are read.
        payload: what else `Stage.process` needs to know; it must follow from `inputs`.
    """

    name: str
    inputs: Mapping[str, Any]
    payload: Mapping[str, Any] = field(default_factory=dict)


class Stage(ABC):
    """One step of the toolkit.

    Args:
        root: folder of the data set.
        options: a dataclass of plain values. All of them decide the artifacts, except fields made by `speed_option`.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1  # raise it when the same options and inputs give another artifact
    suffix: ClassVar[str | None] = None  # of the artifacts; None if the stage makes only a table
    time_limit: ClassVar[float] = 600.0  # seconds per item, unless the command line gives a limit

    def __init__(self, root: Path, options: Any):
        self.root, self.options = root, options

    @property
    def device(self) -> str:
        """What `process` computes on: "cpu", "cuda" (a GPU, of which every worker has its own) or "cuda:N"."""
        return "cpu"

    @abstractmethod
    def items(self) -> list[Item]:
        """All items of the stage, in a fixed order; called in the process that drives the stage.

        Raises:
            ValueError: an earlier stage is not complete.
        """

    @abstractmethod
    def process(self, item: Item, path: Path | None) -> list[Row]:
        """Make one item in a worker process: write its artifact to `path` (a temporary name; None without `suffix`)
        and return its rows. An exception becomes a failure of this item alone."""

    def close(self) -> None:  # noqa: B027 - most stages hold nothing
        """Release what `process` keeps between items, such as a running Blender; called once in every worker."""

    def finish(self) -> None:  # noqa: B027 - most stages only have a table
        """Summarise all items, e.g. statistics of latents; called in the process that drives the stage once every item
        has its record, just before the table is written."""

    def key(self, item: Item) -> str:
        """Decides whether an artifact is up to date: a hash of version, options and inputs."""
        return digest([self.name, self.version, deciding_options(self.options), dict(item.inputs)])

    def artifact(self, name: str) -> Path:
        """The path of an item's artifact."""
        return artifact_path(self.root, self.name, name, self.suffix or "")

    def current_record(self, item: Item) -> Record | None:
        """The item's record if it has the current options and inputs and its artifact exists, else None: the item must
        then be made. A record of a failure counts; it is not tried again."""
        record = read_record(self.root, self.name, item.name)
        if record is None or record.key != self.key(item):
            return None
        complete = record.error is not None or self.suffix is None or self.artifact(item.name).exists()
        return record if complete else None

    def run(self, item: Item) -> Record:
        """Make one item in this process: the artifact first, then its record, each atomically."""
        with temporary_folder(self.root) as folder:
            path = folder / f"artifact{self.suffix}" if self.suffix else None
            rows = self.process(item, path)
            if path is not None:
                record_path(self.root, self.name, item.name).unlink(missing_ok=True)  # of what is replaced now
                move_into_place(path, self.artifact(item.name))
        record = self.record(item, rows=rows)
        write_record(self.root, self.name, record)
        return record

    def fail(self, item: Item, error: str, traceback: str) -> None:
        """Record that an item failed, and remove what an earlier run made of it. Names of temporary folders and
        addresses in memory are cut out, so that the same failure leaves the same record."""
        if self.suffix is not None:
            self.artifact(item.name).unlink(missing_ok=True)
        error, traceback = (_without_chance(self.root, text) for text in (error, traceback))
        write_record(self.root, self.name, self.record(item, error=error, traceback=traceback))

    def record(self, item: Item, **outcome: Any) -> Record:
        return Record(item.name, self.key(item), dict(item.inputs), deciding_options(self.options), **outcome)


def speed_option(default: Any) -> Any:
    """A dataclass field that changes how fast a stage runs, not what it makes: changing it makes nothing again."""
    return field(default=default, metadata={"speed": True})


def later_option(default: Any) -> Any:
    """A dataclass field that earlier versions did not have: with its default it makes what they made, so nothing is
    made again."""
    return field(default=default, metadata={"later": True})


def deciding_options(options: Any) -> dict[str, Any]:
    """The options, a dataclass, that decide a stage's artifacts."""
    values = {f.name: getattr(options, f.name) for f in fields(options) if not f.metadata.get("speed")}
    usual = {f.name: f.default for f in fields(options) if f.metadata.get("later")}
    return {name: value for name, value in values.items() if name not in usual or value != usual[name]}


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, shortened to 32 hex digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:32]


def _without_chance(root: Path, text: str) -> str:
    text = re.sub(re.escape(str(root / "tmp")) + r"/[\w.-]+/", "", text)
    return re.sub(r"\b0x[0-9a-f]{6,}", "0x...", text)
