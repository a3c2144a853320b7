"""Stage collect: assets from folders, index files and Objaverse, hashed, checked and listed in one table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from dataset_toolkits.assets import SUFFIXES, Asset, Content, find_assets, read_content, read_index
from dataset_toolkits.engine.records import write_table
from dataset_toolkits.engine.stage import StageError
from dataset_toolkits.names import safe_names
from dataset_toolkits.objaverse_source import fetch_objaverse, fetch_objaverse_xl
from ss4d.data.evaluation_objects import EVALUATION_OBJECTS, read_listed
from ss4d.data.format import Row

READERS = 8  # threads: hashing waits for the disk


@dataclass(frozen=True)
class CollectOptions:
    """Where assets come from: one source or several.

    Attributes:
        folder: with an `index.json`, or else searched for GLB, glTF, FBX and USD files.
        indexes: index files; assets of all of them form one set.
        objaverse_uids: text file of Objaverse 1.0 uids, one per line.
        objaverse_xl: text file of Objaverse-XL file identifiers or SHA-256 hashes, one per line.
        only: ids of the assets to keep; empty keeps all.
        val_share: share of the assets in the split "val", for assets that no index gives a split.
        evaluation_folders: folders of evaluation objects; assets with the same content are refused.
        for_evaluation: accept evaluation objects, as the set is for evaluation and not for training.
        download_processes: processes that download from Objaverse.
    """

    folder: str | None = None
    indexes: list[str] = field(default_factory=list)
    objaverse_uids: str | None = None
    objaverse_xl: str | None = None
    only: list[str] = field(default_factory=list)
    val_share: float = 0.05
    evaluation_folders: list[str] = field(default_factory=list)
    for_evaluation: bool = False
    download_processes: int = 8

    def __post_init__(self) -> None:
        if not 0 <= self.val_share <= 1:
            raise ValueError(f"collect.val_share is a share from 0 to 1, not {self.val_share}")
        if self.download_processes < 1:
            raise ValueError(f"collect.download_processes is at least 1, not {self.download_processes}")


@dataclass(frozen=True)
class EvaluationObjects:
    """What must stay out of training sets: the name of the object or its set, by uid and by content hash."""

    uids: Mapping[str, str]
    hashes: Mapping[str, str]


def collect(root: Path, options: CollectOptions) -> int:
    """Write `ROOT/tables/collect.parquet`; returns the number of assets that failed.

    Raises:
        StageError: no source, or one that cannot be read.
    """
    assets = _select(_sources(root, options), options.only)
    contents = _read_contents(assets)
    evaluation = (
        EvaluationObjects({}, {}) if options.for_evaluation else read_evaluation_objects(options.evaluation_folders)
    )
    rows = _rows(assets, contents, evaluation)
    write_table(root, "collect", rows)
    counts = Counter(row["status"] for row in rows)
    for row in rows:
        if row["status"] != "done":
            print(f"{row['status'].upper()} collect {row['asset_id']}: {row['error']}")
    print(f"collect: {len(rows)} assets, {counts['refused']} refused, {counts['failed']} failed")
    return counts["failed"]


def read_evaluation_objects(folders: Sequence[str], listed: Path = EVALUATION_OBJECTS) -> EvaluationObjects:
    """The listed evaluation objects and the content of those in `folders`."""
    entries = read_listed(listed)
    hashes = {entry.sha256: entry.set_name for entry in entries if entry.sha256 is not None}
    for folder in folders:
        for asset in find_assets(Path(folder), val_share=0):
            assert asset.path is not None
            hashes[read_content(asset.path).sha256] = asset.path.name
    return EvaluationObjects({entry.uid: entry.set_name for entry in entries}, hashes)


def _sources(root: Path, options: CollectOptions) -> list[Asset]:
    assets: list[Asset] = []
    if options.folder is not None:
        assets += find_assets(Path(options.folder), options.val_share)
    for index in options.indexes:
        assets += read_index(Path(index))
    fetchers: dict[str, tuple[str | None, Callable[..., list[Asset]]]] = {
        "objaverse_uids": (options.objaverse_uids, fetch_objaverse),
        "objaverse_xl": (options.objaverse_xl, fetch_objaverse_xl),
    }
    for name, (file, fetch) in fetchers.items():
        if file is not None:
            identifiers = _read_lines(file, name)
            assets += fetch(identifiers, root / "assets", options.download_processes, options.val_share)
    if not assets:
        raise StageError(
            "collect needs a source: collect.folder=DIR, collect.indexes=[FILE,...], collect.objaverse_uids=FILE or "
            "collect.objaverse_xl=FILE"
        )
    repeated = [name for name, count in Counter(asset.asset_id for asset in assets).items() if count > 1]
    if repeated:
        raise StageError(f"two assets have the id {repeated[0]}: give each its own")
    return assets


def _read_lines(file: str, option: str) -> list[str]:
    try:
        lines = [stripped for line in Path(file).read_text().splitlines() if (stripped := line.strip())]
    except (OSError, UnicodeDecodeError) as error:
        raise StageError(f"collect.{option}={file} cannot be read: {error}") from error
    return list(dict.fromkeys(lines))


def _select(assets: list[Asset], only: Sequence[str]) -> list[Asset]:
    unknown = sorted(set(only) - {asset.asset_id for asset in assets})
    if unknown:
        raise StageError(f"collect.only names assets that no source has: {', '.join(unknown)}")
    return [asset for asset in assets if not only or asset.asset_id in only]


def _read_contents(assets: Sequence[Asset]) -> list[Content | str]:
    """The content of every asset, or why it cannot be read."""
    from tqdm import tqdm

    with ThreadPoolExecutor(READERS) as threads:
        reading: Iterable[Content | str] = threads.map(_content_or_error, assets)
        return list(tqdm(reading, total=len(assets), desc="collect", unit="asset"))


def _content_or_error(asset: Asset) -> Content | str:
    if asset.path is None:
        return asset.error or "it could not be fetched"
    if asset.path.suffix.lower() not in SUFFIXES:
        return f"{asset.path.name} is none of {', '.join(SUFFIXES)}"
    try:
        return read_content(asset.path)
    except ValueError as error:
        return str(error)


def _rows(assets: Sequence[Asset], contents: Sequence[Content | str], evaluation: EvaluationObjects) -> list[Row]:
    names = safe_names([asset.asset_id for asset in assets])
    first: dict[str, str] = {}  # the name of the first asset by content
    rows = []
    for name, asset, content in zip(names, assets, contents, strict=True):
        if isinstance(content, str):
            rows.append(_row(name, asset, None, "failed", content))
            continue
        refusal = _refusal(asset, content, evaluation)
        if refusal is None and content.sha256 in first:
            refusal = f"same content as {first[content.sha256]}"
        if refusal is None:
            first[content.sha256] = name
        rows.append(_row(name, asset, content, "done" if refusal is None else "refused", refusal))
    return rows


def _refusal(asset: Asset, content: Content, evaluation: EvaluationObjects) -> str | None:
    assert asset.path is not None
    for uid in (asset.asset_id, asset.asset_id.split("/")[-1], asset.path.stem):
        if uid in evaluation.uids:
            return f"evaluation object {uid} of {evaluation.uids[uid]}"
    if content.sha256 in evaluation.hashes:
        return f"same content as the evaluation object {evaluation.hashes[content.sha256]}"
    return None


def _row(name: str, asset: Asset, content: Content | None, status: str, error: str | None) -> Row:
    return {
        "name": name,
        "asset_id": asset.asset_id,
        "path": None if asset.path is None else str(asset.path.resolve()),
        "sha256": content and content.sha256,
        "bytes": content and content.bytes,
        "split": asset.split,
        "category": asset.category,
        "group": asset.group or asset.asset_id,
        "licence": asset.licence,
        "author": asset.author,
        "source": asset.source,
        "hide_nodes": list(asset.hide_nodes),
        "clips": list(asset.clips),
        "status": status,
        "error": error,
    }
