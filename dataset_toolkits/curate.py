"""Stage curate: which clips are accepted for training, and why the others are not. It reads tables only."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from dataset_toolkits.engine.records import write_table
from dataset_toolkits.names import with_hash
from dataset_toolkits.normalize import placement
from ss4d.data.format import ASSET_COLUMNS, CLIP_COLUMNS, Row, read_table, table_path
from ss4d.data.provenance import check_up_to_date


@dataclass(frozen=True)
class CurateOptions:
    """Thresholds; a clip beyond any of them is rejected.

    Attributes:
        static: accept assets without animation, as clips of one frame; limits of duration and motion do not apply.
        min_frames: frames of the posed clip.
        min_seconds: duration of the clip.
        min_motion: mean distance of a vertex from its mean position, as a share of the clip's longest side.
        max_root_motion: longest side of the clip's box over the mean longest side of a frame's box. An object that
            moves further fills only a corner of the cube in each frame.
        min_visible: mean longest side of a frame's box as a share of the cube that the whole clip is scaled into; it
            matters where `max_root_motion` is raised.
        max_degenerate: share of the triangles that have no area.
        clips_per_asset: of the clips that pass, how many to keep of each asset, the first ones; null keeps all.
    """

    static: bool = False
    min_frames: int = 2
    min_seconds: float = 0.1
    min_motion: float = 0.003
    max_root_motion: float = 1.7
    min_visible: float = 0.25
    max_degenerate: float = 0.5
    clips_per_asset: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "static" and value is not None and not value >= 0:
                raise ValueError(f"curate.{field.name} is at least 0, not {getattr(self, field.name)}")


def curate(root: Path, options: CurateOptions) -> None:
    """Write `ROOT/tables/curate.parquet`.

    Raises:
        ValueError: collect or pose is not complete, or collect was run again since pose was.
    """
    assets = {row["name"]: row for row in read_table(root, "collect")}
    posed = read_table(root, "pose")
    check_up_to_date(root, "pose", posed, assets)
    poses: dict[str, list[Row]] = {name: [] for name in assets}
    for row in posed:
        poses.setdefault(row["name"], []).append(row)
    rows = [_row(asset, pose, options) for name, asset in assets.items() for pose in poses[name] or [{"asset": name}]]
    if options.clips_per_asset is not None:
        _keep_first(rows, options.clips_per_asset)
    _tell_apart(rows)
    write_table(root, "curate", rows)
    accepted = sum(row["accepted"] for row in rows)
    print(f"curate: {len(rows)} clips, {accepted} accepted; every reason is in {table_path(root, 'curate')}")


def accepted_clips(root: Path) -> list[Row]:
    """Rows of the accepted clips; the column `pose` is the key of what they were measured in.

    Raises:
        ValueError: curate is not complete, or pose was run again since.
    """
    poses = {row["name"]: row["key"] for row in read_table(root, "pose")}
    clips = [row for row in read_table(root, "curate") if row["accepted"]]
    for clip in clips:
        now = poses.get(clip["asset"])
        if now is None or clip.setdefault("pose", now) != now:  # older tables do not have the column
            raise ValueError(
                f"curate measured {clip['clip_name']} before pose was run again: run "
                f"`python -m dataset_toolkits curate --root {root}` again"
            )
    return clips


def _tell_apart(rows: list[Row]) -> None:
    """Give clips of two assets that would share the name of a file, such as clip c of a/b and b/c of a, a hash."""
    shared = Counter(row["clip_name"].lower() for row in rows if row["clip_name"])
    for row in rows:
        if row["clip_name"] and shared[row["clip_name"].lower()] > 1:
            row["clip_name"] = with_hash(row["clip_name"], f"{row['asset']}/{row['clip']}")


def _keep_first(rows: list[Row], count: int) -> None:
    """Reject all but the first `count` accepted clips of every asset."""
    taken: Counter[str] = Counter()
    for row in rows:
        if row["accepted"]:
            taken[row["asset"]] += 1
            if taken[row["asset"]] > count:
                row |= {"accepted": False, "reasons": f"beyond clips_per_asset {count}"}


def _row(asset: Row, pose: Row, options: CurateOptions) -> Row:
    reasons = list(_asset_reasons(asset, pose) or _clip_reasons(pose, options))
    row = {column: pose.get(column) for column in CLIP_COLUMNS} | {column: asset[column] for column in ASSET_COLUMNS}
    row |= {"asset": asset["name"], "pose": pose.get("key"), "scale": None, "centre": None, "visible": None}
    if _has_size(pose):
        place = placement(pose["low"], pose["high"])
        visible = pose["frame_side"] / _longest_side(pose)
        row |= {"scale": place.scale, "centre": list(place.centre), "visible": visible}
    return row | {"accepted": not reasons, "reasons": "; ".join(reasons)}


def _asset_reasons(asset: Row, pose: Row) -> list[str]:
    """Why there is no clip to measure."""
    if asset["status"] != "done":
        return [f"{asset['status']} at collect: {asset['error']}"]
    if "status" not in pose:
        return ["not posed"]
    if pose["status"] != "done":
        return [f"failed at pose: {pose['error']}"]
    return []


def _clip_reasons(pose: Row, options: CurateOptions) -> Iterator[str]:
    if pose["problem"] is not None:  # nothing was measured
        yield pose["problem"]
        return
    static = pose["clip"] is None
    if static and not options.static:
        yield "no animation"
        return
    if not static:
        yield from _below("frames", pose["frames"], options.min_frames, "min_frames")
        yield from _below("seconds", pose["seconds"], options.min_seconds, "min_seconds")
    yield from _above("degenerate share", pose["degenerate"], options.max_degenerate, "max_degenerate")
    if not pose["finite"]:
        yield "vertices that are not finite"
    elif not pose["triangles"]:
        yield "no triangles"
    elif not _has_size(pose):
        yield "zero size: all vertices in one place"
    else:
        side = _longest_side(pose)
        if not static:
            yield from _below("motion", pose["motion"], options.min_motion, "min_motion")
        yield from _above("root motion", side / pose["frame_side"], options.max_root_motion, "max_root_motion")
        yield from _below("visible size", pose["frame_side"] / side, options.min_visible, "min_visible")


def _below(what: str, value: float | None, threshold: float, option: str) -> Iterator[str]:
    if value is not None and not value >= threshold:
        yield f"{what} {value:.4g} below {option} {threshold:.4g}"


def _above(what: str, value: float | None, threshold: float, option: str) -> Iterator[str]:
    if value is not None and not value <= threshold:
        yield f"{what} {value:.4g} above {option} {threshold:.4g}"


def _has_size(pose: Row) -> bool:
    """Whether the clip can be scaled to the cube."""
    if not (pose.get("finite") and pose.get("low") and pose.get("high") and pose.get("frame_side")):
        return False
    return math.isfinite(1 / side) if (side := _longest_side(pose)) > 0 else False


def _longest_side(pose: Row) -> float:
    return max(high - low for low, high in zip(pose["low"], pose["high"], strict=True))
