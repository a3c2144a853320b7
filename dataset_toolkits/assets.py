"""Assets on disk, and what is known about them."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset_toolkits.engine.stage import StageError
from dataset_toolkits.gltf import references
from ss4d.files import content_hash

SUFFIXES = (".glb", ".gltf", ".fbx", ".usd", ".usda", ".usdc", ".usdz")


@dataclass(frozen=True)
class Asset:
    """An asset to collect; `path` is None if it could not be downloaded, and `error` says why."""

    asset_id: str
    path: Path | None
    split: str
    category: str | None = None
    group: str | None = None  # shared by near-duplicates
    licence: str | None = None
    author: str | None = None
    source: str | None = None
    hide_nodes: Sequence[str] = ()
    clips: Sequence[str] = ()  # the best first; empty: all
    error: str | None = None


@dataclass(frozen=True)
class Content:
    """The content of all files of an asset."""

    sha256: str
    bytes: int


def find_assets(folder: Path, val_share: float) -> list[Asset]:
    """The assets of `folder`: those that its `index.json` lists, else every file with one of `SUFFIXES` below it.

    Raises:
        StageError: there is no such folder, or nothing in it.
    """
    if not folder.is_dir():
        raise StageError(f"collect.folder={folder} is not a folder")
    index = folder / "index.json"
    if index.exists():
        return read_index(index)
    paths = sorted(path for path in _files(folder) if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise StageError(f"{folder} holds no {', '.join(SUFFIXES)} file and no index.json")
    for path in paths:
        try:
            str(path).encode()
        except UnicodeEncodeError as error:
            raise StageError(f"{str(path)!a} has a name that is no UTF-8 text: rename it") from error
    objects = [path.relative_to(folder).with_suffix("").as_posix() for path in paths]
    formats = Counter(objects)  # two of one object side by side: their ids keep the endings, they share split and group
    return [
        Asset(
            asset_id=name if formats[name] == 1 else path.relative_to(folder).as_posix(),
            path=path,
            split=choose_split(name, val_share),
            group=None if formats[name] == 1 else name,
            source=f"file {path.name}",
        )
        for name, path in zip(objects, paths, strict=True)
    ]


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder and the folders that links in it lead to; what is reached twice is found once, and not
    by a link if that can be."""
    seen: set[Path] = set()
    left = [folder]
    while left:
        for parent, folders, names in os.walk(left.pop(0)):
            if (place := Path(parent).resolve()) in seen:
                folders.clear()
                continue
            seen.add(place)
            left += sorted(link for name in folders if (link := Path(parent, name)).is_symlink())
            yield from (Path(parent, name) for name in names)


def choose_split(identifier: str, val_share: float) -> str:
    """ "train" or "val", by a hash of the identifier: it does not change when the set grows."""
    fraction = int(hashlib.sha256(identifier.encode()).hexdigest()[:8], 16) / 2**32
    return "val" if fraction < val_share else "train"


def read_content(path: Path) -> Content:
    """Hash a file, and those that a glTF file refers to. What FBX and USD files refer to is not known without Blender.

    Raises:
        ValueError: one of them is missing, empty or cannot be read.
    """
    try:
        if not path.stat().st_size:
            raise ValueError(f"{path} is empty")
        parts = [path, *_references(path)]
        return Content(content_hash(parts), sum(part.stat().st_size for part in parts))
    except OSError as error:
        raise ValueError(f"{error.filename} cannot be read: {error.strerror}") from error


def read_index(index: Path) -> list[Asset]:
    """The assets that an index file lists (docs/data.md), paths relative to it.

    Raises:
        StageError: it cannot be read, or an entry lacks its id, file or split.
    """
    try:
        entries = json.loads(index.read_text())["objects"]
        return [_indexed(entry, index.parent) for entry in entries]
    except OSError as error:
        raise StageError(f"the index {index} cannot be read: {error.strerror}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StageError(f"{index} is not JSON: {error}") from error
    except (KeyError, TypeError) as error:
        raise StageError(f"{index} needs a list objects whose entries have id, file and split: {error!r}") from error
    except ValueError as error:
        raise StageError(f"{index}: {error}") from error


def _indexed(entry: Mapping[str, Any], folder: Path) -> Asset:
    """One entry of an index in `folder`.

    Raises:
        KeyError: it lacks its id, file or split.
        ValueError: a value is no text, or no list of texts.
    """
    texts = {name: entry[name] for name in ("id", "file", "split")}
    texts |= {name: entry.get(name) for name in ("category", "group", "licence", "author", "source", "best_clip")}
    lists = {name: entry.get(name, []) for name in ("hide_nodes", "clips")}
    for name, value in texts.items():
        optional = name not in ("id", "file", "split")
        if not ((isinstance(value, str) and value) or (optional and value in (None, ""))):
            raise ValueError(f"{name} of an object must be text, but it is {value!r}")
    for name, values in lists.items():
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise ValueError(f"{name} of {texts['id']} must be a list of names, but it is {values!r}")
    return Asset(
        asset_id=texts["id"],
        path=folder / texts["file"],
        split=texts["split"],
        category=texts["category"],
        group=texts["group"],
        licence=texts["licence"],
        author=texts["author"],
        source=texts["source"],
        hide_nodes=lists["hide_nodes"],
        clips=_best_first(lists["clips"], texts["best_clip"]),
    )


def _best_first(clips: Sequence[str], best: str | None) -> list[str]:
    return sorted(clips, key=lambda clip: clip != best)


def _references(path: Path) -> list[Path]:
    """What a glTF file refers to. A damaged .glb is taken as it is: pose says what is wrong with it."""
    if path.suffix.lower() not in (".gltf", ".glb"):
        return []
    try:
        return references(path)
    except ValueError:
        if path.suffix.lower() == ".gltf":
            raise
        return []
