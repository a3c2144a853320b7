"""Differences between methods or the variants of an ablation, paired by object, so that how hard an object is cancels
out; with 95% intervals and the p-values of a test (`ss4d.metrics.intervals`)."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from ss4d.evaluation.protocol import Protocol
from ss4d.evaluation.results import Result
from ss4d.evaluation.table_formats import Column, Row, Table, counted
from ss4d.metrics.intervals import Interval, paired_difference

Means = dict[str, dict[str, float]]  # by metric and object, over seeds


def difference_table(
    title: str,
    columns: Sequence[Column],
    judged: Mapping[str, Mapping[str, Sequence[Result]]],
    protocols: Mapping[str, Protocol] | None = None,
    mixed: Collection[str] = (),
) -> Table:
    """Each variant minus the first, with 95% intervals over objects; where inputs differ too, also each input minus
    the first, and how that difference varies between variants.

    Args:
        judged: results by setting of the protocol and variant, in the order of the ablation; variants may lack.
        protocols: of every setting, by which clips that are too short for a metric are left out of it.
        mixed: metrics without a value, since not all results have them from the same weights.
    """
    protocols = protocols or {}
    means = {
        name: {label: object_means(found, protocols.get(name), mixed) for label, found in variants.items()}
        for name, variants in judged.items()
    }
    (first_setting, base), *others = means.items()
    rows = []
    for setting, variants in means.items():
        suffix = f", {setting}" if setting else ""
        rows += [(f"{name}{suffix}", change) for name, change in from_first(variants)]
    for setting, variants in others:
        changes = {label: minus(variants[label], base[label]) for label in base if label in variants}
        suffix = f" - {first_setting}"
        rows += [(f"{label}: {setting}{suffix}", change) for label, change in changes.items()]
        rows += [(f"that, {name}", change) for name, change in from_first(changes)]
    return Table("differences", title, list(columns), [to_row(name, change, columns) for name, change in rows])


def differences_from(
    base: str,
    title: str,
    columns: Sequence[Column],
    results: Mapping[str, Sequence[Result]],
    protocol: Protocol | None = None,
    mixed: Collection[str] = (),
) -> Table:
    """Every method minus the method `base`, on the objects that both have; arguments as for `difference_table`."""
    means = {method: object_means(found, protocol, mixed) for method, found in results.items()}
    changes = {f"{method} - {base}": minus(found, means[base]) for method, found in means.items() if method != base}
    return Table(
        "differences", title, list(columns), [to_row(name, change, columns) for name, change in changes.items()]
    )


def object_means(results: Sequence[Result], protocol: Protocol | None = None, mixed: Collection[str] = ()) -> Means:
    """Means over seeds; a metric that one result lacks is left out, but for clips that are too short for it."""
    found: dict[str, dict[str, list[float]]] = {}
    for result in results:
        for metric, value in result.metrics.items():
            if metric.removeprefix("aligned_") in mixed or (protocol and not result.is_long_enough(metric, protocol)):
                continue
            seeds = found.setdefault(metric, {}).setdefault(result.object, [])
            seeds.append(math.nan if value is None else value)
    means = {
        metric: {name: sum(seeds) / len(seeds) for name, seeds in objects.items()} for metric, objects in found.items()
    }
    return {metric: objects for metric, objects in means.items() if all(map(math.isfinite, objects.values()))}


def minus(these: Means, those: Means) -> Means:
    """Differences of the objects and metrics that both have."""
    return {
        metric: {
            name: these[metric][name] - those[metric][name] for name in these[metric].keys() & those[metric].keys()
        }
        for metric in these.keys() & those.keys()
    }


def from_first(variants: Mapping[str, Means]) -> list[tuple[str, Means]]:
    """ "b - a" and "c - a" of the variants a, b, c; nothing without any."""
    if not variants:
        return []
    (first, base), *others = variants.items()
    return [(f"{label} - {first}", minus(means, base)) for label, means in others]


def to_row(name: str, change: Means, columns: Sequence[Column]) -> Row:
    values = [interval(change.get(column.metric, {})) for column in columns]
    objects = max((value.count for value in values if value is not None), default=0)
    return Row(name, False, list(values), f"this code, {counted(objects, 'object')}", is_bound=True)  # none is the best


def interval(values: Mapping[str, float]) -> Interval | None:
    """Of the mean; None without objects."""
    return paired_difference(values) if values else None
