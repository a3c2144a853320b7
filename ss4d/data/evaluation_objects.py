"""Objects that papers are evaluated on, and that no model may be trained on (`evaluation_objects.txt` beside this)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

EVALUATION_OBJECTS = Path(__file__).with_suffix(".txt")


@dataclass(frozen=True)
class ListedObject:
    """An object of an evaluation set."""

    uid: str  # of Objaverse 1.0
    set_name: str
    sha256: str | None  # of its file, where it is known


def read_listed(path: Path = EVALUATION_OBJECTS) -> list[ListedObject]:
    """The objects of a list: a line is a uid, a set and where it is known a hash; `#` begins a comment."""
    lines = (line.split("#")[0].split() for line in path.read_text(encoding="utf-8").splitlines())
    return [ListedObject(uid, name, rest[0] if rest else None) for uid, name, *rest in filter(None, lines)]


@cache
def _sets() -> dict[str, str]:
    return {listed.uid: listed.set_name for listed in read_listed()}


def evaluation_set(asset_id: str) -> str | None:
    """The evaluation set that an object is of; None for all others. Ids may be `pack/uid` and end in that of a file."""
    name = asset_id.split("/")[-1]
    return _sets().get(name) or _sets().get(name.rpartition(".")[0])


def refuse_evaluation_objects(asset_ids: Iterable[str], origin: str) -> None:
    """ValueError where one of the objects is of an evaluation set."""
    found = {name: listed for name in asset_ids if (listed := evaluation_set(name)) is not None}
    if found:
        first, listed = next(iter(found.items()))
        raise ValueError(
            f"{origin} has evaluation objects, such as {first} of {listed} ({len(found)} in all): a model trained on "
            "them cannot be compared, so leave them out with data.objects=[...]"
        )
