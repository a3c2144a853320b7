"""The paper's tables (`configs/eval/tables.yaml`): published rows and ours. What has no results is n/a."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ss4d.config import load_options, read_yaml
from ss4d.evaluation.differences import differences_from
from ss4d.evaluation.options import TablesOptions
from ss4d.evaluation.protocol import PROTOCOLS, SET_METRICS, Protocol, load_protocol
from ss4d.evaluation.results import REPORT, Result, failed_objects, protocol_folder, read_method
from ss4d.evaluation.selection import comparable
from ss4d.evaluation.subjects.subject import file_name
from ss4d.evaluation.summary import Summary, summarise
from ss4d.evaluation.table_formats import Column, Row, Table, counted, write_tables
from ss4d.evaluation.timing import read_timings, timed_on
from ss4d.evaluation.user_study import rate


@dataclass
class TableSpec:
    """A table of `configs/eval/tables.yaml`, of a protocol, of a user study or of timings."""

    id: str  # number in the paper, or a name
    title: str
    columns: list[list[Any]]  # metric, heading, digits
    paper: dict[str, list[Any]] = field(default_factory=dict)  # the published rows
    protocol: str | None = None
    study: bool = False
    timing: bool = False
    unlike: str | None = None  # why the published rows cannot be compared with ours to the digit
    rows: dict[str, str] | None = None  # the method of each row; None: a row for every method with results


def run(options: TablesOptions) -> list[str]:
    """Write `tables.md`, `tables.tex` and one CSV per table."""
    if not Path(options.results).is_dir():
        print(f"note: there is no folder results={options.results}, so no method has results")
    study = Path(options.study) if options.study else None
    tables = build_tables(Path(options.results), study, options.changes, options.against)
    write_tables(tables, Path(options.out))
    return []


def build_tables(
    results: Path, study: Path | None = None, changes: Sequence[str] = (), against: str | None = None
) -> list[Table]:
    """All tables of `configs/eval/tables.yaml`, from the results that are there.

    Args:
        against: a method from which the differences of all others are tabulated too.

    Raises:
        ValueError: a result that is damaged or of another protocol, named.
    """
    specs, tables = read_specs(), []
    protocols = changed_protocols({spec.protocol for spec in specs if spec.protocol is not None}, changes)
    for spec in specs:
        protocol = protocols.get(spec.protocol or "")
        tables.append(build_table(spec, results, study, protocol))
        if protocol is not None and spec.rows is None:
            tables += tables_of_kinds(spec, results, protocol)
            tables += tables_of_categories(spec, results, protocol)
        if protocol is not None and against is not None:
            tables += tables_of_differences(spec, results, protocol, against)
    if against is not None and not any(table.id.endswith(f"_{against}") for table in tables):
        raise ValueError(f"against={against}: there are no results of that method in {results}, or of no other.")
    return tables


def changed_protocols(names: Collection[str], changes: Sequence[str]) -> dict[str, Protocol]:
    """The protocols with changes that were made for one of them: those that the changes fit.

    Raises:
        ValueError: they fit none.
    """
    found: dict[str, Protocol] = {}
    errors = []
    for name in sorted(names):
        try:
            found[name] = load_protocol(name, changes)
        except ValueError as error:
            errors.append(error)
    if not found:
        raise errors[0]
    return found


def read_specs() -> list[TableSpec]:
    """The tables that `configs/eval/tables.yaml` describes.

    Raises:
        ValueError: an option that there is none of, or a published row that does not fit the columns.
    """
    path = PROTOCOLS / "tables.yaml"
    tables = read_yaml(path)["tables"]
    specs = [load_options(TableSpec, spec, origin=f"{path}, table {spec.get('id')}") for spec in tables]
    for spec in specs:
        for name, values in spec.paper.items():
            if len(values) != len(spec.columns):
                raise ValueError(
                    f"{path}, table {spec.id}: the published row {name} has {len(values)} values for "
                    f"{len(spec.columns)} columns: give it null for what the paper does not have"
                )
    return specs


def build_table(spec: TableSpec, results: Path, study: Path | None, protocol: Protocol | None) -> Table:
    """One table: the published rows, then ours."""
    columns = [Column(*column) for column in spec.columns]
    table = Table(spec.id, spec.title, columns)
    source = f"paper{'*' if spec.unlike else ''}"
    table.rows = [Row(name, True, list(values), source) for name, values in spec.paper.items()]
    if spec.unlike and spec.paper:
        table.notes.append(f"* not comparable with this code's rows to the digit: {spec.unlike}")
    if spec.study:
        rated = rate(study) if study is not None else None
        table.notes += [f"{note}." for note in rated.notes] if rated else []
        ours = rated.methods if rated else {}
        table.rows += [Row(name, False, [ratings.get(c.metric) for c in columns]) for name, ratings in ours.items()]
    elif spec.timing:
        for name, report in read_timings(results).items():
            table.rows.append(Row(name, False, [report.get(c.metric) for c in columns], timed_on(report)))
    elif protocol is not None:
        if protocol.split:
            table.title += f" ({protocol.split} split)"
        choices = "; ".join(f"{name}: {choice}" for name, choice in protocol.assumptions().items())
        table.notes.append(f"This code's choices: {choices}.")
        add_rows(table, spec.rows, results, protocol)
        table.notes += other_results(results, protocol)
    if all(row.published for row in table.rows):
        table.rows.append(Row("ours", False, [None] * len(columns)))
    return table


def other_results(results: Path, protocol: Protocol) -> list[str]:
    """Where a protocol has no results: those that were made with other options of it, as a note."""
    others = sorted(folder.name for folder in results.glob(f"{protocol.name}-{'[0-9a-f]' * 8}"))
    if not others or protocol_folder(results, protocol).name in others:
        return []
    return [f"Left out, made with other options: {', '.join(others)}. Give tables the protocol.KEY=VALUE of run."]


def tables_of_kinds(spec: TableSpec, results: Path, protocol: Protocol) -> list[Table]:
    """The same table of each kind of object, where the protocol tells kinds apart."""
    found = []
    for kind, objects in protocol.kinds.items():
        columns = [Column(*column) for column in spec.columns]
        table = Table(f"{spec.id}_{kind}", f"{spec.title}: {kind}", columns)
        add_rows(table, None, results, protocol, objects)
        found.append(table)
    return [table for table in found if table.rows]


def add_rows(
    table: Table,
    methods: Mapping[str, str] | None,
    results: Path,
    protocol: Protocol,
    objects: Collection[str] | None = None,
) -> None:
    """Rows of the methods that a table names by title, or of all but those that only other tables name
    (reconstructions): of all objects or of some."""
    folder = protocol_folder(results, protocol)
    methods = methods or methods_with_results(folder)
    found = {
        method: [r for r in read_method(folder, method, protocol) if objects is None or r.object in objects]
        for method in methods.values()
    }
    selection = comparable(found)
    table.notes += selection.notes
    for title, method in methods.items():
        chosen = selection.results.get(method)
        summary = summarise(folder, chosen, protocol, selection.mixed) if chosen else None
        if summary is None and not found[method] and objects is not None:
            continue
        table.notes += summary.notes if summary else []
        values = [summary.metrics.get(column.metric) if summary else None for column in table.columns]
        failed = failed_objects(folder, method)
        if objects is not None:
            failed &= {file_name(name) for name in objects}
        row = Row(title, False, list(values), origin(summary, len(failed)), is_bound=is_bound(found[method]))
        table.rows.append(row)


def tables_of_categories(spec: TableSpec, results: Path, protocol: Protocol) -> list[Table]:
    """The same table with a row for every category of objects and method, where the data set knows several: distances
    of sets are left out, since a category has few objects."""
    folder = protocol_folder(results, protocol)
    found = {method: read_method(folder, method, protocol) for method in methods_with_results(folder).values()}
    selection = comparable(found)
    columns = [Column(*column) for column in spec.columns if column[0] not in SET_METRICS]
    table = Table(f"{spec.id}_categories", f"{spec.title}: by category", columns)
    chosen = [(method, result) for method, part in selection.results.items() for result in part]
    categories = sorted({result.category for _, result in chosen if result.category is not None})
    for category in categories:
        for method in selection.results:
            part = [result for other, result in chosen if other == method and result.category == category]
            if part:
                summary = summarise(folder, part, protocol, {*selection.mixed, *SET_METRICS})
                values = [summary.metrics.get(column.metric) for column in columns]
                row = Row(f"{category}: {method}", False, list(values), origin(summary), category, is_bound(part))
                table.rows.append(row)
    return [table] if len(categories) > 1 else []


def is_bound(results: Sequence[Result]) -> bool:
    """Whether results are the truth or what it bounds, which no method competes with."""
    return any(result.identity.get("method") in ("truth", "true_voxels") for result in results)


def methods_with_results(folder: Path) -> dict[str, str]:
    """All methods of a protocol but those that only some tables name (reconstructions), by title."""
    names = sorted(path.name for path in folder.iterdir() if any(path.glob(f"*/*/{REPORT}"))) if folder.is_dir() else []
    return {name: name for name in names if not name.startswith((".", "reconstruction"))}


def has_differences(column: Column, protocol: Protocol) -> bool:
    """Whether a column has a value for every object, so that methods can be compared object by object."""
    return column.metric in protocol.results and column.metric not in SET_METRICS


def tables_of_differences(spec: TableSpec, results: Path, protocol: Protocol, against: str) -> list[Table]:
    """The differences of a table's methods from one of them, of all objects and of each kind."""
    folder = protocol_folder(results, protocol)
    methods = (spec.rows or methods_with_results(folder)).values()
    if against not in methods or len(methods) < 2:
        return []
    selection = comparable({method: read_method(folder, method, protocol) for method in methods})
    found = selection.results
    if against not in found:
        return []
    columns = [column for each in spec.columns if has_differences(column := Column(*each), protocol)]
    tables = []
    for kind, objects in {"": None, **protocol.kinds}.items():
        chosen = {m: [r for r in rs if objects is None or r.object in objects] for m, rs in found.items()}
        title = f"{spec.title}{': ' if kind else ''}{kind}, differences from {against}, object by object"
        table = differences_from(against, title, columns, chosen, protocol, selection.mixed)
        table.notes += selection.notes
        table.id = "_".join(filter(None, (spec.id, kind, "minus", against)))
        tables.append(table)
    return tables


def origin(summary: Summary | None, failed: int = 0) -> str:
    """How many objects and seeds a row is made of, and how many objects could not be made."""
    parts = ["this code"]
    if summary is not None:
        parts += [counted(summary.objects, "object")]
    if failed:
        parts += [f"{counted(failed, 'object')} failed"]
    if summary is not None:
        parts += [counted(summary.seeds, "seed")]
    return ", ".join(parts)
