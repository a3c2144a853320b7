"""A made-up data set with names that try to break a page."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dataset_toolkits.engine.records import Record, write_record, write_table
from ss4d.data.format import Row, artifact_path
from ss4d.data.views import View, ViewArchiveWriter, ViewIndex

SCRIPT = "pack/<script>alert(1)</script>"


def asset(name: str, asset_id: str, **changes: object) -> Row:
    row: Row = {"name": name, "asset_id": asset_id, "split": "train", "category": "animal", "licence": "CC0-1.0"}
    return (
        row | {"author": None, "source": None, "path": f"/assets/{name}.glb", "status": "done", "error": None} | changes
    )


def clip(asset_row: Row, name: str | None, frames: int | None, motion: float | None, reasons: str = "") -> Row:
    columns = ("asset_id", "split", "category", "licence", "author", "source", "path")
    row = {"asset": asset_row["name"], "clip": name, "clip_name": name and f"{asset_row['name']}__{name}"}
    row |= {
        "frames": frames,
        "motion": motion,
        "triangles": frames and 1000,
        "accepted": not reasons,
        "reasons": reasons,
    }
    return row | {column: asset_row[column] for column in columns}


FOX = asset(
    "pack__F_chse",
    "pack/Füchse 狐",
    licence="CC-BY-4.0",
    author="Zoë (https://example.org/zoë)",
    source="https://example.org/fox?a=1&b=2",
)
EVIL = asset("pack__script", SCRIPT, split="val", author='"><img src=x onerror=alert(2)>', source="javascript:alert(3)")
STILL = asset("pack__Still", "pack/Still", category="plant")
BROKEN = [asset(f"broken__{n}", f"broken/{n}") for n in "AB"]
REFUSED = asset("eval__Robot", "eval/Robot", status="refused", error="evaluation object Robot of consistent4d")
CLIPS = [
    clip(FOX, "Run", 4, 0.2),
    clip(FOX, "Idle", 4, 0.001, "motion 0.001 below min_motion 0.003"),
    clip(FOX, "Blink", 1, 0.002, "frames 1 below min_frames 2; motion 0.002 below min_motion 0.003"),
    clip(EVIL, "Walk", 8, 0.1),
    clip(STILL, None, None, None, "no animation"),
    *(clip(row, None, None, None, "failed at pose: ...") for row in BROKEN),
    clip(REFUSED, None, None, None, "refused at collect: ..."),
]
VOXELS = {"pack__F_chse__Run": (100.0, 80.0), "pack__script__Walk": (400.0, 310.0)}  # surface, seen


def done(name: str, **columns: object) -> Row:
    return {"name": name, "key": "k", "status": "done", "error": None, "clip_name": name, **columns}


def view(azimuth: float, elevation: float) -> View:
    return View(np.eye(4).tolist(), np.eye(3).tolist(), azimuth, elevation, 40.0, 2.0)


def colour(kind: int, number: int, frame: int) -> tuple[int, int, int, int]:
    return (20 * frame, 100 * kind, 60 * number, 255)


def write_archive(root: Path, clip_name: str, frames: int) -> None:
    """Pictures of one colour, which tells camera and frame. View 1 is the one behind the object."""
    views, cond = [view(0, 10), view(170, 12), view(180, -80)], [view(0, 10)]
    index = ViewIndex(frames, 24, 32, 1.0, [0.0, 0.0, 0.0], [1.0, 3.0], views, cond)
    path = artifact_path(root, "render", clip_name)
    path.parent.mkdir(exist_ok=True)
    with ViewArchiveWriter(path, index) as archive:
        for frame in range(frames):
            for number in range(len(views)):
                rgba = np.full((24, 24, 4), colour(0, number, frame), np.uint8)
                archive.add_view(number, frame, rgba, np.full((24, 24), np.inf))
            archive.add_cond(0, frame, np.full((32, 32, 4), colour(1, 0, frame), np.uint8))


def write_data_set(root: Path) -> Path:
    """A small data set in the layout of docs/data.md, all stages but encode complete; returns its folder."""
    root.mkdir()
    write_table(root, "collect", [FOX, EVIL, STILL, *BROKEN, REFUSED])
    pose = [{"name": c["asset"], "key": "k", "status": "done", "error": None} | c for c in CLIPS[:5]]
    for row, vertex in zip(BROKEN, (12, 345), strict=True):
        error = f"{row['path']}: vertex {vertex} is not finite"
        failed = {"name": row["name"], "key": "k", "status": "failed", "error": error}
        pose.append(dict.fromkeys(pose[0]) | failed)
        write_record(root, "pose", Record(row["name"], "k", {}, {}, error=error, traceback=f"Traceback <of> {vertex}"))
    write_table(root, "pose", pose)
    write_table(root, "curate", CLIPS)
    write_table(root, "render", [done(name, frames=4, bytes=10) for name in VOXELS])
    write_table(root, "voxelize", [done(name, voxels_64=before) for name, (before, _) in VOXELS.items()])
    features = [
        done(name, voxels_64=before, seen_64=after, dropped_64=1 - after / before)
        for name, (before, after) in VOXELS.items()
    ]
    write_table(root, "features", features)
    for row in CLIPS[0], CLIPS[3]:
        write_archive(root, row["clip_name"], row["frames"])
    (root / "config.yaml").write_text("render:\n  size: 24\n  engine: <CYCLES>\n", encoding="utf-8")
    return root
