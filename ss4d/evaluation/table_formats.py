"""Tables as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from operator import not_
from pathlib import Path

from ss4d.failures import print_text
from ss4d.metrics.intervals import Interval

NOT_AVAILABLE = "n/a"


@dataclass(frozen=True)
class Column:
    """A metric with its heading and the digits it is printed with."""

    metric: str
    heading: str
    digits: int


@dataclass
class Row:
    """A method's values, one per column."""

    name: str
    published: bool
    values: list[Interval | float | None]
    origin: str = "this code"  # where its values come from
    group: str = ""  # the best of a column is marked among the rows of one group
    is_bound: bool = False  # the truth and what it bounds: never marked as the best


@dataclass
class Table:
    """A table as it is printed."""

    id: str
    title: str
    columns: list[Column]
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # sentences below it


def write_tables(tables: Sequence[Table], out: Path) -> None:
    """Write all tables as Markdown, LaTeX and CSV, and print the Markdown."""
    out.mkdir(parents=True, exist_ok=True)
    shown = [without_empty_columns(table) for table in tables]
    text = "\n".join(markdown(table) for table in shown)
    (out / "tables.md").write_text(text, encoding="utf-8")
    latex_text = "\n".join(latex(table) for table in shown if table.rows)
    (out / "tables.tex").write_text(latex_text, encoding="utf-8")
    for table in tables:
        write_csv(table, out / f"table_{table.id}.csv")
    print_text(text)


def without_empty_columns(table: Table) -> Table:
    """The table without columns that no row has a value for, which a note names; without rows where all are so."""
    empty = [all(row.values[number] is None for row in table.rows) for number in range(len(table.columns))]
    if all(empty):
        return replace(table, columns=[], rows=[], notes=[*table.notes, "No results."])
    missing = [column.heading.rstrip(" ↑↓") for column, is_empty in zip(table.columns, empty, strict=True) if is_empty]
    note = [f"n/a in every row, for lack of weights or data: {', '.join(missing)}."] if missing else []
    rows = [replace(row, values=list(compress(row.values, map(not_, empty)))) for row in table.rows]
    return replace(table, columns=list(compress(table.columns, map(not_, empty))), rows=rows, notes=table.notes + note)


def cell(value: Interval | float | None, digits: int) -> str:
    """A value as text, with its interval where it has one."""
    if value is None:
        return NOT_AVAILABLE
    if isinstance(value, Interval):
        bounds = "" if math.isnan(value.low) else f" [{value.low:.{digits}f}, {value.high:.{digits}f}]"
        p = "" if value.p is None else f", p {value.p:.3f}" if value.p >= 0.001 else ", p < 0.001"
        return f"{value.mean:.{digits}f}{bounds}{p}"
    return f"{value:.{digits}f}"


def markdown(table: Table) -> str:
    """Markdown."""
    heading = ["Method", *(column.heading for column in table.columns), "Source"]
    lines = [f"### {caption(table)}", ""]
    if table.rows:
        lines += [line(heading), line(["---", *["---:"] * len(table.columns), "---"])]
    for row in table.rows:
        cells = [cell(value, column.digits) for value, column in zip(row.values, table.columns, strict=True)]
        lines.append(line([row.name.replace("|", r"\|"), *cells, row.origin.replace("|", r"\|")]))
    notes = [*(f"- {note}" for note in table.notes), ""] if table.notes else []
    return "\n".join([*lines, *([""] if table.rows else []), *notes])


def line(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(cells) + " |"


ESCAPES = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$"}
ESCAPES |= {"[": "{[}", "]": "{]}", "|": r"\textbar{}", '"': r"\textquotedbl{}"}  # `\\ [` would be a length
ESCAPES |= {character: "\\" + character for character in "&%$#_{}"} | {"↑": r"$\uparrow$", "↓": r"$\downarrow$"}


def escaped(text: str) -> str:
    """Text for LaTeX."""
    return "".join(ESCAPES.get(character, character) for character in " ".join(text.split()))


def latex(table: Table) -> str:
    """LaTeX with booktabs; the best of the published and of our rows is bold, the second best underlined."""
    heading = ["Method", *(column.heading for column in table.columns), "Source"]
    lines = [
        *(r"\begin{table}", rf"\caption{{{escaped(caption(table))}}}"),
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}l}}",
        *(r"\toprule", " & ".join(map(escaped, heading)) + r" \\", r"\midrule"),
    ]
    for row in table.rows:
        cells = []
        for number, (value, column) in enumerate(zip(row.values, table.columns, strict=True)):
            rank = {} if row.is_bound else ranks(table, number, row)
            command = rank.get(cell(value, column.digits).split(" ")[0])
            text = escaped(cell(value, column.digits))
            cells.append(f"{command}{{{text}}}" if command else text)
        lines.append(" & ".join([escaped(row.name), *cells, escaped(row.origin)]) + r" \\")
    notes = [escaped(note) + r"\par" for note in table.notes]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", *notes, r"\end{table}", ""])


def ranks(table: Table, number: int, row: Row) -> dict[str, str]:
    """The commands of the best and the second best value of a column, as they are printed, among the rows of the same
    source and group; none where the heading has no arrow, or no other row has a value."""
    column = table.columns[number]
    if not {"↑", "↓"} & set(column.heading):
        return {}
    peers = [r for r in table.rows if (r.published, r.group) == (row.published, row.group) and not r.is_bound]
    values = [value for peer in peers if (value := peer.values[number]) is not None]
    means = {value.mean if isinstance(value, Interval) else value for value in values}
    printed = sorted({float(f"{mean:.{column.digits}f}") for mean in means}, reverse="↑" in column.heading)
    if len(values) < 2:
        return {}
    return {
        f"{mean:.{column.digits}f}": command
        for mean, command in zip(printed, (r"\textbf", r"\underline"), strict=False)
    }


def caption(table: Table) -> str:
    """ "Table 1. ..." for the paper's own, else the title."""
    return f"Table {table.id}. {table.title}" if table.id.isdigit() else table.title


def write_csv(table: Table, path: Path) -> None:
    """One line per value: method, source, metric, mean, low, high, p; empty where there is none."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["method", "source", "metric", "mean", "low", "high", "p"])
        for row in table.rows:
            for value, column in zip(row.values, table.columns, strict=True):
                if isinstance(value, Interval):
                    bounds: list[float | str] = [
                        "" if math.isnan(bound) else bound for bound in (value.low, value.high)
                    ]
                    numbers = [value.mean, *bounds, "" if value.p is None else value.p]
                else:
                    numbers = [NOT_AVAILABLE if value is None else value, "", "", ""]
                writer.writerow([row.name, "paper" if row.published else "ours", column.metric, *numbers])


def counted(number: int, noun: str) -> str:
    """ "1 seed", "3 seeds"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
