"""The sources of a data set as Markdown: what each pack contributes, under which licence, and a hash to check it by."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ss4d.data.format import Row, read_table

LEAD = """\
{objects} objects of {packs} packs. SHA-256 is that of the sorted SHA-256 sums of a row's objects, each on a line of its
own. An object's sum is that of its file; of a glTF file that refers to others, of `cat FILE BUFFERS IMAGES` in the
order in which it names them. `sha256sum FILES | cut -d' ' -f1 | sort | sha256sum` gives a row of single files again.
"""
MISSING = "not given"


@dataclass(frozen=True)
class Source:
    """The objects that come from one pack, of one author, under one licence."""

    pack: str  # the first part of the assets' ids
    licence: str | None
    author: str | None
    objects: int
    origins: list[str]  # repositories and web addresses
    sha256: str


def sources(rows: Iterable[Row]) -> list[Source]:
    """Group the assets, rows of collect, that are in the set."""
    groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row["status"] == "done":
            groups[row["asset_id"].split("/")[0], row["licence"] or "", row["author"] or ""].append(row)
    return [
        Source(pack, licence or None, author or None, len(group), _origins(group), hash_of_hashes(group))
        for (pack, licence, author), group in sorted(groups.items())
    ]


def hash_of_hashes(rows: Iterable[Row]) -> str:
    """SHA-256 of the sorted hex digests of objects, each followed by a line feed."""
    lines = sorted(f"{row['sha256']}\n" for row in rows)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def markdown(root: Path) -> str:
    """A table of the sources of the data set in `root`.

    Raises:
        ValueError: collect was not run.
    """
    rows = [row for row in read_table(root, "collect") if row["status"] == "done"]
    found = sources(rows)
    lines = [
        LEAD.format(objects=f"{len(rows):,}", packs=len({source.pack for source in found})),
        "| pack | licence | author | objects | from | SHA-256 |",
        "|---|---|---|---:|---|---|",
    ]
    for source in found:
        licence, author, origins = (
            text or MISSING for text in (source.licence, source.author, "; ".join(source.origins))
        )
        lines.append(_line(source.pack, licence, author, f"{source.objects:,}", origins, f"`{source.sha256}`"))
    lines.append(_line("all", "", "", f"{len(rows):,}", "", f"`{hash_of_hashes(rows)}`"))
    return "\n".join(lines) + "\n"


def _origins(rows: Sequence[Row]) -> list[str]:
    """Repositories and pages that the files come from, without their paths in there."""
    return sorted({_origin(row["source"]) for row in rows if row["source"]})


def _origin(source: str) -> str:
    """ "github owner/name" of "github owner/name PATH" or "github https://github.com/owner/name/..."; a web address; or
    the kind of source."""
    if match := re.match(r"github (?:https://github\.com/)?([^/\s]+/[^/\s]+)", source):
        return f"github {match[1]}"
    return source.split()[0]


def _line(*cells: str) -> str:
    escaped = (" ".join(cell.replace("|", r"\|").split()) for cell in cells)
    return f"| {' | '.join(escaped)} |"
