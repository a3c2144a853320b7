"""What the tables and records of a data set say, gathered for the report."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dataset_toolkits.engine.records import read_record
from ss4d.data.format import STAGES, Row, at_resolution, config_path, read_table, resolutions, table_path

WHOLE_STAGES = ("collect", "curate")  # not made item by item: every row counts


@dataclass(frozen=True)
class Failure:
    """An item that a stage could not make."""

    stage: str
    name: str
    error: str
    traceback: str | None  # None if the stage keeps no records, or the record was replaced since


@dataclass(frozen=True)
class StageRows:
    """What a stage has made: the rows of its table or, until it is complete, of its records."""

    name: str
    state: str  # "complete", "unfinished" or "not run"
    rows: list[Row]

    @cached_property
    def status(self) -> Counter[str]:
        """Number of items with each status."""
        items = {row["name"] if self.name not in WHOLE_STAGES else i: _status(row) for i, row in enumerate(self.rows)}
        return Counter(items.values())

    @cached_property
    def done_rows(self) -> list[Row]:
        return [row for row in self.rows if _status(row) == "done"]

    @property
    def note(self) -> str:
        """What the counts alone do not say."""
        if self.name == "curate":
            accepted = sum(row["accepted"] for row in self.rows)
            return f"{accepted:,} accepted, {len(self.rows) - accepted:,} rejected"
        if self.state == "unfinished":
            return "so far"
        return f"{self.status['refused']:,} refused" if self.status["refused"] else ""


@dataclass(frozen=True)
class Rejection:
    """An asset or clip that does not become training data, and why."""

    stage: str
    name: str
    reasons: list[str]
    kinds: list[str]  # the reasons without what differs between items


@dataclass(frozen=True)
class ReasonCount:
    stage: str
    kind: str
    count: int
    example: str


@dataclass(frozen=True)
class DroppedVoxels:
    """How many voxels no view sees at one resolution (paper, Table 6), over all frames of all clips."""

    resolution: int
    clips: int
    frames: int
    before: float  # mean number of voxels per frame
    after: float
    dropped: float  # share of the voxels, 0 to 1


@dataclass(frozen=True)
class DataSet:
    """All that the report says in words and numbers."""

    root: Path
    stages: dict[str, StageRows]
    failures: list[Failure]
    config: dict[str, dict[str, Any]]  # options of each section of ROOT/config.yaml

    @cached_property
    def assets(self) -> list[Row]:
        """Assets in the data set: rows of collect."""
        return self.stages["collect"].done_rows

    @cached_property
    def clips(self) -> list[Row]:
        """All clips that curate judged: animations, and static objects where it accepts these."""
        return [row for row in self.stages["curate"].rows if row["clip"] is not None or row["accepted"]]

    @cached_property
    def accepted(self) -> list[Row]:
        return [row for row in self.clips if row["accepted"]]

    @cached_property
    def num_frames(self) -> int:
        """Frames of the accepted clips together."""
        return sum(row["frames"] for row in self.accepted)

    def counts(self, column: str) -> list[tuple[str, int, int]]:
        """(value, assets, accepted clips) for each value of a column of the assets, the most frequent first."""
        assets, clips = (Counter(_label(row[column]) for row in rows) for rows in (self.assets, self.accepted))
        return sorted(((value, assets[value], clips[value]) for value in assets | clips), key=lambda c: (-c[1], c[0]))

    @cached_property
    def categories(self) -> Counter[tuple[str, str, str]]:
        """Numbers for each ("assets" or "clips", category, split)."""
        return Counter(
            (what, _label(row["category"]), _label(row["split"]))
            for what, rows in (("assets", self.assets), ("clips", self.accepted))
            for row in rows
        )

    def resolutions(self, stage: str) -> list[int]:
        """Voxels along a side that a stage was run with, the finest first."""
        rows = self.stages[stage].done_rows
        return resolutions(rows[0] if rows else (), "voxels")

    def visibility(self) -> list[DroppedVoxels]:
        frames = {row["clip_name"]: row["frames"] for row in self.accepted}
        rows = [row for row in self.stages["features"].done_rows if row["clip_name"] in frames]
        total = sum(frames[row["clip_name"]] for row in rows)
        found = []
        for size in self.resolutions("features") if total else ():
            before, after = (
                sum(row[at_resolution(name, size)] * frames[row["clip_name"]] for row in rows) / total
                for name in ("voxels", "seen")
            )
            dropped = 1 - after / before if before else 0.0
            found.append(DroppedVoxels(size, len(rows), total, before, after, dropped))
        return found

    @cached_property
    def rejections(self) -> list[Rejection]:
        """Assets that collect refused or failed to read, assets that could not be posed, clips that curate rejected."""
        collect, pose, curate = (self.stages[stage].rows for stage in ("collect", "pose", "curate"))
        lost = [("collect", row, row["asset_id"], [row["error"]]) for row in collect if row["status"] != "done"]
        lost += [("pose", row, row["name"], [row["error"]]) for row in pose if row["status"] != "done"]
        lost_assets = {row["name"] for _, row, _, _ in lost}  # curate names them once more
        lost += [
            ("curate", row, row["clip_name"] or row["asset_id"], row["reasons"].split("; "))
            for row in curate
            if not row["accepted"] and row["asset"] not in lost_assets
        ]
        return [_rejection(*item) for item in lost]

    def reasons(self) -> list[ReasonCount]:
        """Kinds of reasons, the most frequent first; a clip with two reasons counts under both."""
        counts: Counter[tuple[str, str]] = Counter()
        examples: dict[tuple[str, str], str] = {}
        for rejection in self.rejections:
            for kind, reason in zip(rejection.kinds, rejection.reasons, strict=True):
                counts[rejection.stage, kind] += 1
                examples.setdefault((rejection.stage, kind), reason)
        return [ReasonCount(*key, count, examples[key]) for key, count in counts.most_common()]


def read_data_set(root: Path) -> DataSet:
    stages = {stage: _read_stage(root, stage) for stage in STAGES}
    failures = [
        Failure(stage.name, row["name"], row["error"] or "no error was recorded", _traceback(root, stage.name, row))
        for stage in stages.values()
        for row in stage.rows
        if _status(row) == "failed"
    ]
    return DataSet(root, stages, failures, _read_config(config_path(root)))


# Numbers and lists of numbers, but not the digits of "Armature2".
_NUMBER = r"(?:[-+]?(?:\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?|nan|inf))"
_VARIABLE = re.compile(
    r"(?<!\w)(['\"]).+?\1(?!\w)"  # quoted text
    r"|(?<!\S)/\S*[^\s:;,.]"  # absolute paths
    rf"|(?<![\w.]){_NUMBER}(?:,\s*{_NUMBER})*(?![A-Za-z_])"
)


def reason_kind(reason: str, names: Sequence[str | None] = ()) -> str:
    """A sentence without what differs between items: `names`, quoted text, paths and numbers become "…"."""
    for name in sorted(filter(None, names), key=len, reverse=True):
        reason = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "…", reason)
    return _VARIABLE.sub("…", reason)


def _rejection(stage: str, row: Row, name: str, reasons: list[str]) -> Rejection:
    names = [row.get(column) for column in ("asset_id", "path", "name", "asset", "clip_name")]
    return Rejection(stage, name, reasons, [reason_kind(reason, names) for reason in reasons])


def _read_stage(root: Path, stage: str) -> StageRows:
    if table_path(root, stage).exists():
        return StageRows(stage, "complete", read_table(root, stage))
    names = sorted(path.stem for path in (root / "records" / stage).glob("*.json"))
    records = [record for record in (read_record(root, stage, name) for name in names) if record is not None]
    rows: list[Row] = []
    for record in records:
        head = {"name": record.name, "key": record.key, "status": "failed" if record.error else "done"}
        rows += [{**head, "error": record.error, **row} for row in record.rows or [{}]]
    return StageRows(stage, "unfinished" if rows else "not run", rows)


def _traceback(root: Path, stage: str, row: Row) -> str | None:
    record = read_record(root, stage, row["name"])
    return record.traceback if record is not None and record.key == row.get("key") else None


def _read_config(path: Path) -> dict[str, dict[str, Any]]:
    from omegaconf import OmegaConf

    if not path.exists():
        return {}
    content = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(content, dict)
    general = {str(key): value for key, value in content.items() if not isinstance(value, dict)}
    sections = {str(key): value for key, value in content.items() if isinstance(value, dict) and value}
    return {"general": general, **sections} if general else sections


def _status(row: Row) -> str:
    return row.get("status") or "done"


def _label(value: str | None) -> str:
    return value or "not given"
