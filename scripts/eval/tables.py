"""The paper's tables, ours beside: `python -m scripts.eval.tables --results outputs/eval --out outputs/tables`.

Writes `tables.md`, `tables.tex` and one CSV a table. Published rows are marked; what has no results is n/a.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.eval.options import PROTOCOLS, load_protocol
from scripts.eval.timing import read_timings
from scripts.eval.user_study import read_ratings
from ss4d.evaluation.protocol import Protocol
from ss4d.evaluation.results import protocol_folder, read_method
from ss4d.evaluation.summary import Summary, summarise
from ss4d.metrics.bootstrap import Interval

NOT_AVAILABLE = "n/a"


@dataclass(frozen=True)
class Column:
    """A metric with its heading and the digits it is printed with."""

    metric: str
    heading: str
    digits: int


@dataclass
class Row:
    """A method's figures, one a column."""

    name: str
    published: bool
    figures: list[Interval | float | None]
    origin: str = "this code"  # where its figures come from


@dataclass
class Table:
    """A table as it is printed."""

    id: str
    title: str
    columns: list[Column]
    rows: list[Row] = field(default_factory=list)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("outputs/eval"), help="what scripts.eval.run wrote")
    parser.add_argument("--out", type=Path, default=Path("outputs/tables"))
    parser.add_argument("--study", type=Path, help="folder with the answers of a user study")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="changes of the protocols")
    options = parser.parse_args(arguments)
    try:
        tables = build_tables(options.results, options.study, options.set)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    write_tables(tables, options.out)
    return 0


def write_tables(tables: Sequence[Table], out: Path) -> None:
    """Write all tables as Markdown, LaTeX and CSV, and print the Markdown."""
    out.mkdir(parents=True, exist_ok=True)
    text = "\n".join(markdown(table) for table in tables)
    (out / "tables.md").write_text(text)
    (out / "tables.tex").write_text("\n".join(latex(table) for table in tables))
    for table in tables:
        write_csv(table, out / f"table_{table.id}.csv")
    print(text)


def build_tables(results: Path, study: Path | None = None, changes: Sequence[str] = ()) -> list[Table]:
    """All tables of `configs/eval/tables.yaml`, from the results that are there.

    Raises:
        ValueError: a result that is damaged or of another protocol, named.
    """
    from omegaconf import OmegaConf

    content: Any = OmegaConf.to_container(OmegaConf.load(PROTOCOLS / "tables.yaml"))
    return [build_table(spec, results, study, changes) for spec in content["tables"]]


def build_table(spec: dict[str, Any], results: Path, study: Path | None, changes: Sequence[str]) -> Table:
    """One table: the published rows, then ours."""
    columns = [Column(*column) for column in spec["columns"]]
    table = Table(str(spec["id"]), spec["title"], columns)
    table.rows = [Row(name, True, list(figures), "paper") for name, figures in spec["paper"].items()]
    if spec.get("study"):
        ours = read_ratings(study) if study is not None else {}
        table.rows += [Row(name, False, [figures.get(c.metric) for c in columns]) for name, figures in ours.items()]
    elif spec.get("timing"):
        table.rows += [Row(name, False, [seconds]) for name, seconds in read_timings(results).items()]
    else:
        protocol = load_protocol(spec["protocol"], changes)
        if protocol.split:
            table.title += f" ({protocol.split} split)"
        summaries = method_summaries(results, protocol)
        table.rows += named_rows(spec.get("rows"), summaries, columns)
    if all(row.published for row in table.rows):
        table.rows.append(Row("ours", False, [None] * len(columns)))
    return table


def method_summaries(results: Path, protocol: Protocol) -> dict[str, Summary]:
    """Summaries of all methods with results under a protocol."""
    methods = protocol_folder(results, protocol)
    names = sorted(path.name for path in methods.iterdir() if path.is_dir()) if methods.is_dir() else []
    found = {method: read_method(methods, method, protocol) for method in names}
    return {method: summarise(methods, list(results), protocol) for method, results in found.items() if results}


def named_rows(wanted: dict[str, str] | None, summaries: dict[str, Summary], columns: list[Column]) -> list[Row]:
    """Rows of the methods a table names, or of all but those that only other tables name (reconstructions)."""
    if wanted is None:
        wanted = {name: name for name in summaries if not name.startswith("reconstruction")}
    rows = []
    for title, method in wanted.items():
        summary = summaries.get(method)
        figures = [summary.figures.get(column.metric) if summary else None for column in columns]
        rows.append(Row(title, False, list(figures), origin(summary)))
    return rows


def cell(figure: Interval | float | None, digits: int) -> str:
    """A figure as text, with its interval where it has one."""
    if figure is None:
        return NOT_AVAILABLE
    if isinstance(figure, Interval):
        return f"{figure.mean:.{digits}f} [{figure.low:.{digits}f}, {figure.high:.{digits}f}]"
    return f"{figure:.{digits}f}"


def origin(summary: Summary | None) -> str:
    """How many objects and seeds figures are of."""
    if summary is None:
        return "this code"
    return f"this code, {counted(summary.objects, 'object')}, {counted(summary.seeds, 'seed')}"


def counted(number: int, noun: str) -> str:
    """ "1 seed", "3 seeds"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def markdown(table: Table) -> str:
    """Markdown."""
    heading = ["Method", *(column.heading for column in table.columns), "Source"]
    lines = [f"### {caption(table)}", "", line(heading), line(["---", *["---:"] * len(table.columns), "---"])]
    for row in table.rows:
        cells = [cell(figure, column.digits) for figure, column in zip(row.figures, table.columns, strict=True)]
        lines.append(line([row.name, *cells, row.origin]))
    return "\n".join([*lines, ""])


def line(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


def latex(table: Table) -> str:
    """LaTeX with booktabs."""
    arrows = {"↑": r"$\uparrow$", "↓": r"$\downarrow$", "_": r"\_"}

    def escaped(text: str) -> str:
        for character, command in arrows.items():
            text = text.replace(character, command)
        return text

    heading = ["Method", *(column.heading for column in table.columns), "Source"]
    lines = [
        *(r"\begin{table}", rf"\caption{{{escaped(caption(table))}}}"),
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}l}}",
        *(r"\toprule", " & ".join(map(escaped, heading)) + r" \\", r"\midrule"),
    ]
    for row in table.rows:
        cells = [cell(figure, column.digits) for figure, column in zip(row.figures, table.columns, strict=True)]
        lines.append(" & ".join(map(escaped, [row.name, *cells, row.origin])) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def caption(table: Table) -> str:
    """ "Table 1. ..." for the paper's own, else the title."""
    return f"Table {table.id}. {table.title}" if table.id.isdigit() else table.title


def write_csv(table: Table, path: Path) -> None:
    """One line a figure: method, source, metric, mean, low, high; empty where there is none."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["method", "source", "metric", "mean", "low", "high"])
        for row in table.rows:
            for figure, column in zip(row.figures, table.columns, strict=True):
                if isinstance(figure, Interval):
                    values: list[float | str] = [figure.mean, figure.low, figure.high]
                else:
                    values = [NOT_AVAILABLE if figure is None else figure, "", ""]
                writer.writerow([row.name, "paper" if row.published else "ours", column.metric, *values])


if __name__ == "__main__":
    sys.exit(main())
