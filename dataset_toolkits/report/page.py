"""The report: one HTML page about a data set, with all pictures inside.

It reads tables, records and archives (docs/data.md) and says which stages have not run. Equal data sets give equal
bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sized
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dataset_toolkits.engine.records import write_file
from dataset_toolkits.engine.stage import StageError
from dataset_toolkits.report.facts import DataSet, read_data_set
from dataset_toolkits.report.plots import Histogram, histogram, short


@dataclass(frozen=True)
class ReportOptions:
    """Options of the contact sheet.

    Attributes:
        clips: drawn at random from the accepted clips that are rendered.
        frames: frames of each clip, evenly over time.
        seed: of the draw.
    """

    clips: int = 12
    frames: int = 6
    seed: int = 0

    def __post_init__(self) -> None:
        if self.clips < 0:
            raise ValueError(f"report.clips is at least 0, not {self.clips}")
        if self.frames < 1:
            raise ValueError(f"report.frames is at least 1, not {self.frames}")


def write_report(root: Path, options: ReportOptions) -> Path:
    """Write `ROOT/report/index.html` in one step and return its path.

    Raises:
        StageError: `root` is no folder.
    """
    from dataset_toolkits.report.pictures import contact_sheet

    if not root.is_dir():
        raise StageError(f"{root} is not a folder: give --root the folder of a data set")
    data = read_data_set(root)
    page = _render(
        data=data,
        charts=_charts(data),
        sheet=contact_sheet(data, options.clips, options.frames, options.seed),
    )
    path = root / "report" / "index.html"
    write_file(root, path, page.encode())
    return path


def _charts(data: DataSet) -> list[Histogram]:
    """Histograms of the measurements of clips, with accepted and rejected ones apart once curate has run."""
    if data.clips:
        rejected = [row for row in data.clips if not row["accepted"]]
        groups = {"accepted": data.accepted, "rejected": rejected}
    else:
        groups = {"measured": data.stages["pose"].done_rows}
    charts = [
        histogram("Motion", "mean displacement over the clip's size", _column(groups, "motion")),
        histogram("Frames per clip", "frames", _column(groups, "frames")),
        histogram("Triangles", "triangles, logarithmic", _column(groups, "triangles"), logarithmic=True),
    ]
    for size in data.resolutions("voxelize"):
        values = [row[f"voxels_{size}"] for row in data.stages["voxelize"].done_rows]
        charts.append(histogram(f"Voxels at {size}³", "voxels per frame, mean of each clip", {"clips": values}))
    for size in data.resolutions("features"):
        shares = [100 * row[f"dropped_{size}"] for row in data.stages["features"].done_rows]
        charts.append(histogram(f"Dropped at {size}³", "% of a clip's voxels that no camera sees", {"clips": shares}))
    return [chart for chart in charts if chart.bars]


def _column(groups: dict[str, list[dict[str, Any]]], name: str) -> dict[str, list[float]]:
    return {group: [row[name] for row in rows if row[name] is not None] for group, rows in groups.items()}


def _render(**context: Any) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "short": short,
        "thousands": _thousands,
        "plural": _plural,
        "as_json": partial(json.dumps, ensure_ascii=False),
        "credit": credit,
        "licence_url": licence_url,
    }
    return environment.get_template("template.html").render(**context)


@dataclass(frozen=True)
class Credit:
    """An author or a source: its words, and the page that they link to, if any."""

    words: str
    url: str | None


def credit(text: str) -> Credit:
    """Split "words (https://...)" or a bare address; other text, and other kinds of address, stay words."""
    match = re.fullmatch(r"(?:(?P<words>.+) )?(?P<open>\()?(?P<url>https?://[^\s()]+)(?(open)\))", text)
    return Credit(match["words"] or match["url"], match["url"]) if match else Credit(text, None)


def licence_url(name: str | None) -> str | None:
    """The deed of a Creative Commons licence, which credits must link to; None for other licences."""
    match = re.fullmatch(r"CC-(?P<terms>BY(?:-NC)?(?:-ND|-SA)?)-(?P<version>\d\.\d)", name or "")
    if match:
        return f"https://creativecommons.org/licenses/{match['terms'].lower()}/{match['version']}/"
    return "https://creativecommons.org/publicdomain/zero/1.0/" if name == "CC0-1.0" else None


def _thousands(value: float) -> str:
    return f"{value:,.0f}"


def _plural(items: int | Sized, noun: str) -> str:
    """A count with its noun: "1 clip", "2 clips"."""
    count = items if isinstance(items, int) else len(items)
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
