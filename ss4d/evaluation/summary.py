"""Metrics of a method over a whole set of objects."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ss4d.evaluation.protocol import SET_METRICS, Protocol
from ss4d.evaluation.results import Result, read_features
from ss4d.metrics.fvd import frechet_video_distance
from ss4d.metrics.intervals import Interval, mean_interval


@dataclass(frozen=True)
class Summary:
    """One method under one protocol."""

    method: str
    objects: int
    seeds: int
    metrics: dict[str, Interval | None]  # None: n/a
    notes: Sequence[str] = ()  # what stands behind a distance of sets


def summarise(methods: Path, results: Sequence[Result], protocol: Protocol, mixed: Collection[str] = ()) -> Summary:
    """Means with intervals of every metric, and what the reports of results add ("length", "encode_speed",
    "seconds_<stage>").

    A metric that one result lacks is n/a for all: a mean over the others would be of another set. Metrics of videos are
    over the clips with enough frames for them.

    Args:
        mixed: metrics that are n/a because not all results have them from the same weights.

    Raises:
        ValueError: no results.
    """
    if not results:
        raise ValueError("There are no results to summarise.")
    metrics: dict[str, Interval | None] = {
        name: _interval(_by_object(results, name, protocol)) for name in protocol.results if name not in SET_METRICS
    }
    metrics |= {name: None for name in protocol.results if name.removeprefix("aligned_") in mixed}
    metrics["length"] = _interval(_reported(results, "length"))
    metrics["encode_speed"] = _speed(results)
    metrics |= {f"seconds_{stage}": _interval(_seconds(results, stage)) for stage in _stages(results)}
    notes = []
    for name in SET_METRICS:
        if name in protocol.metrics and name not in mixed:
            distance = _fvd(methods, results, protocol, name.removeprefix("fvd").lstrip("_"))
            metrics[name] = distance.interval if distance else None
            notes += [f"{name} of {results[0].method}: {distance}."] if distance and distance.points else []
    seeds = len({result.seed for result in results})
    return Summary(results[0].method, len({result.object for result in results}), seeds, metrics, notes)


def _by_object(results: Sequence[Result], metric: str, protocol: Protocol) -> dict[str, list[float | None]]:
    values: dict[str, list[float | None]] = {}
    for result in results:
        if result.is_long_enough(metric, protocol):
            values.setdefault(result.object, []).append(result.metrics.get(metric))
    return values


def _reported(results: Sequence[Result], key: str) -> dict[str, list[float | None]]:
    return {result.object: [result.report.get(key)] for result in results}


def _speed(results: Sequence[Result]) -> Interval | None:
    """Objects encoded per second: their number over the seconds of all."""
    seconds = [value for values in _seconds(results, "encode").values() for value in values]
    if not seconds or not all(seconds):
        return None
    return Interval(len(seconds) / sum(filter(None, seconds)), math.nan, math.nan, len(seconds))


def _stages(results: Sequence[Result]) -> list[str]:
    """Stages that any of the results was timed in."""
    return list(dict.fromkeys(stage for result in results for stage in result.report.get("seconds", {})))


def _seconds(results: Sequence[Result], stage: str) -> dict[str, list[float | None]]:
    """Of a stage, by object."""
    values: dict[str, list[float | None]] = {}
    for result in results:
        values.setdefault(result.object, []).append(result.report.get("seconds", {}).get(stage))
    return values


def _interval(values: dict[str, list[float | None]]) -> Interval | None:
    present = {
        name: [float(value) for value in seeds if value is not None and not math.isnan(value)]
        for name, seeds in values.items()
    }
    if any(len(present[name]) < len(seeds) for name, seeds in values.items()):
        return None
    return mean_interval(present) if present else None


@dataclass(frozen=True)
class _SetDistance:
    """A Frechet distance with the points that each Gaussian is laid over (0: there is none), and their dimensions."""

    interval: Interval | None
    points: int
    dimensions: int

    def __str__(self) -> str:
        few = ", to be compared with those of equally many alone" if self.points < self.dimensions else ""
        return f"{self.points} points of {self.dimensions} features each{few}"


def _fvd(methods: Path, results: Sequence[Result], protocol: Protocol, axis: str) -> _SetDistance | None:
    """FVD of each seed's whole set; the mean over seeds, and the range from the lowest to the highest. For pairs of
    clips, one distance per object.

    Args:
        axis: that the videos lie along: "" (time), "views" or "diagonal".
    """
    names = [f"{kind}_{axis}" if axis else kind for kind in ("prediction", "target")]
    stored = {
        (result.object, result.seed): read_features(methods, result)
        for result in results
        if axis == "views" or result.is_long_enough("fvd", protocol)
    }
    if not stored or not all(names[0] in features for features in stored.values()):
        return None
    features = {key: (values[names[0]], values[names[1]]) for key, values in stored.items()}
    first = next(iter(features.values()))[0]
    if protocol.fvd_variant != "clips":
        distances: dict[str, list[float | None]] = {}
        for (name, _), pair in features.items():
            distances.setdefault(name, []).append(frechet_video_distance(*pair, protocol.fvd_variant))
        points = first.shape[1] if protocol.fvd_variant == "steps_of_time" else 0
        return _SetDistance(_interval(distances), points, first.shape[2])
    values, points = [], 0
    for seed in sorted({seed for _, seed in features}):
        pairs = [pair for (_, other), pair in features.items() if other == seed]
        prediction, target = (torch.cat([pair[side] for pair in pairs]) for side in (0, 1))
        points = len(prediction)
        if points < 2:
            return None
        values.append(frechet_video_distance(prediction, target))
    low, high = (min(values), max(values)) if len(values) > 1 else (math.nan, math.nan)
    interval = Interval(sum(values) / len(values), low, high, len({name for name, _ in features}))
    return _SetDistance(interval, points, first.shape[2])
