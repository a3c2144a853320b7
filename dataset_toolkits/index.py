"""The list of objects to prepare: `index.json` beside the files it names."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class AssetEntry:
    """One object: its file, where it comes from, and which of its clips to use."""

    object_id: str
    path: Path
    split: str
    category: str
    group: str  # near-duplicates share one
    licence: str
    author: str | None
    source: str
    hide_nodes: tuple[str, ...]  # props that overlap
    clips: tuple[str, ...]  # those that visibly move, the best one first


def read_index(directory: Path) -> list[AssetEntry]:
    """Objects listed in `directory`/index.json.

    Raises:
        FileNotFoundError: there is no index.
        ValueError: the index lacks a field of an object.
    """
    path = directory / "index.json"
    try:
        return [_entry(directory, item) for item in json.loads(path.read_text())["objects"]]
    except KeyError as missing:
        raise ValueError(f"{path} lacks the field {missing}, which every object needs") from missing


def _entry(directory: Path, item: dict) -> AssetEntry:
    best = item["best_clip"]
    listed = [best, *item["clips"]] if best else item["clips"]
    return AssetEntry(
        object_id=item["id"],
        path=directory / item["file"],
        split=item["split"],
        category=item["category"],
        group=item["group"],
        licence=item["licence"],
        author=item["author"],
        source=item["source"],
        hide_nodes=tuple(item["hide_nodes"]),
        clips=tuple(dict.fromkeys(listed)),
    )
