"""Assets of Objaverse 1.0 and Objaverse-XL, downloaded with the `objaverse` package (0.1.7) to `ROOT/assets`.

One object that cannot be downloaded makes a whole batch of the package fail; then objects are downloaded one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataset_toolkits.assets import Asset, choose_split
from dataset_toolkits.engine.stage import StageError


@dataclass
class Fetched:
    """Files by identifier, and why others are missing."""

    paths: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


def fetch_objaverse(uids: Sequence[str], folder: Path, processes: int, val_share: float) -> list[Asset]:
    """Objects of Objaverse 1.0 by uid; the asset's id is its uid."""
    objaverse = _import_objaverse()
    # The package has no argument for this; it reads both names at every call.
    objaverse.BASE_PATH = str(folder)
    objaverse._VERSIONED_PATH = str(folder / "hf-objaverse-v1")
    known = set(objaverse.load_uids())
    found = [uid for uid in uids if uid in known]
    annotations = objaverse.load_annotations(found)
    fetched = _fetch(found, lambda part: objaverse.load_objects(part, min(processes, len(part))))

    def asset(uid: str) -> Asset:
        if uid not in known:
            return Asset(uid, None, choose_split(uid, val_share), error="Objaverse has no object of this uid")
        about = annotations.get(uid, {})
        return Asset(
            asset_id=uid,
            path=_path(fetched, uid),
            split=choose_split(uid, val_share),
            category=next((category["name"] for category in about.get("categories", [])), None),
            licence=about.get("license"),
            author=about.get("user", {}).get("username"),
            source=about.get("viewerUrl") or f"https://sketchfab.com/3d-models/{uid}",
            error=fetched.errors.get(uid),
        )

    return [asset(uid) for uid in uids]


def fetch_objaverse_xl(identifiers: Sequence[str], folder: Path, processes: int, val_share: float) -> list[Asset]:
    """Objects of Objaverse-XL by file identifier or SHA-256; the asset's id is its file identifier."""
    _import_objaverse()
    import objaverse.xl

    annotations = objaverse.xl.get_annotations(download_dir=str(folder))
    listed = annotations["fileIdentifier"].isin(identifiers) | annotations["sha256"].isin(identifiers)
    objects = annotations[listed].drop_duplicates("fileIdentifier")

    def download(part: Sequence[str]) -> dict[str, str]:
        return objaverse.xl.download_objects(
            objects=objects[objects["fileIdentifier"].isin(part)],
            download_dir=str(folder),
            processes=min(processes, len(part)),
            save_repo_format="files",
        )

    rows = objects.to_dict("records")
    fetched = _fetch([row["fileIdentifier"] for row in rows], download)
    for row in rows:  # the package says nothing about objects of a repository that was there already
        fetched.paths.setdefault(row["fileIdentifier"], _place_in_repository(folder, row))
    found = {value for row in rows for value in (row["fileIdentifier"], row["sha256"])}
    assets = [_xl_asset(row, fetched, val_share) for row in rows]
    missing = [identifier for identifier in identifiers if identifier not in found]
    error = "Objaverse-XL has no object of this identifier"
    return assets + [Asset(name, None, choose_split(name, val_share), error=error) for name in missing]


def _xl_asset(row: dict[str, Any], fetched: Fetched, val_share: float) -> Asset:
    identifier = row["fileIdentifier"]
    path = _path(fetched, identifier)
    return Asset(
        asset_id=identifier,
        path=path,
        split=choose_split(identifier, val_share),
        licence=row["license"],
        author=identifier.split("/")[3] if row["source"] == "github" else None,
        source=f"{row['source']} {identifier}",
        error=fetched.errors.get(identifier),
    )


def _fetch(identifiers: Sequence[str], load: Callable[[list[str]], dict[str, str]]) -> Fetched:
    if not identifiers:
        return Fetched()
    try:
        return Fetched(dict(load(list(identifiers))))
    except Exception as error:  # whatever the network and the package come up with
        print(f"objaverse: {type(error).__name__}: {error}; fetching the objects one by one")
    fetched = Fetched()
    for identifier in identifiers:
        try:
            fetched.paths.update(load([identifier]))
        except Exception as error:
            fetched.errors[identifier] = f"it could not be fetched: {type(error).__name__}: {error}"
    return fetched


def _path(fetched: Fetched, identifier: str) -> Path | None:
    path = fetched.paths.get(identifier)
    return Path(path) if path and identifier not in fetched.errors else None


def _place_in_repository(folder: Path, row: dict[str, Any]) -> str:
    """Where the package puts a file "https://github.com/ORGANISATION/REPOSITORY/blob/COMMIT/PATH"; empty for others."""
    if row["source"] != "github":
        return ""
    organisation, repository, _, _, *path = row["fileIdentifier"].split("/")[3:]
    return str(folder.joinpath("github", "repos", organisation, repository, *path))


def _import_objaverse() -> Any:
    try:
        import objaverse
    except ImportError as error:
        raise StageError("Objaverse needs its package: pip install objaverse==0.1.7") from error
    return objaverse
