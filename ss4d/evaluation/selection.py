"""Which results a table compares: of the same objects, all seeds and the same weights of networks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ss4d.evaluation.results import Result
from ss4d.evaluation.subjects.subject import CUBE


@dataclass
class Selection:
    """The results of each method that are compared, and what was left out, in sentences."""

    results: dict[str, list[Result]]
    notes: list[str] = field(default_factory=list)
    mixed: set[str] = field(default_factory=set)  # metrics that not all results have from the same weights: n/a


def comparable(found: Mapping[str, Sequence[Result]]) -> Selection:
    """Of each method the results of the objects that all methods have with all of their seeds.

    Raises:
        ValueError: results of one method from different checkpoints or settings.
    """
    selection = Selection({method: list(results) for method, results in found.items() if results})
    complete: dict[str, set[str]] = {}
    for method, results in selection.results.items():
        if any(result.identity != results[0].identity for result in results):
            raise ValueError(
                f"{method} has results of different checkpoints or settings: delete them and run it again."
            )
        complete[method] = complete_objects(method, results, selection.notes)
    every = set().union(*complete.values())
    common = every.intersection(*complete.values()) if complete else set()
    common -= judged_in_several_cubes(selection, common)
    for method, objects in complete.items():
        if lacking := sorted(every - objects - incomplete(selection.results[method], objects)):
            selection.notes.append(f"{method} has no result for {names(lacking)}: left out for all methods.")
        selection.results[method] = [result for result in selection.results[method] if result.object in common]
    note_mixed_weights(selection)
    return selection


def complete_objects(method: str, results: Sequence[Result], notes: list[str]) -> set[str]:
    """The objects with as many seeds as any has."""
    seeds: dict[str, set[int]] = defaultdict(set)
    for result in results:
        seeds[result.object].add(result.seed)
    every = set().union(*seeds.values())
    complete = {name for name, found in seeds.items() if found == every}
    if left := sorted(seeds.keys() - complete):
        lacking = ", ".join(str(seed) for seed in sorted(every - seeds[left[0]]))
        notes.append(f"{method} lacks seed {lacking} of {names(left)}: left out for all methods.")
    return complete


def judged_in_several_cubes(selection: Selection, objects: set[str]) -> set[str]:
    """The objects that one method was judged on in the clip's cube and another in that of the input."""
    cubes: dict[str, set[str | None]] = defaultdict(set)
    for results in selection.results.values():
        for result in results:
            cubes[result.object].add(result.assumptions.get(CUBE))
    mixed = {name for name in objects if len(cubes[name]) > 1}
    if mixed:
        selection.notes.append(
            f"{names(sorted(mixed))} stood in different cubes (voxelize.frame of the data sets): left out for all "
            "methods."
        )
    return mixed


def incomplete(results: Sequence[Result], complete: set[str]) -> set[str]:
    """The objects that have some results, but not of all seeds."""
    return {result.object for result in results} - complete


def note_mixed_weights(selection: Selection) -> None:
    """Find the metrics whose networks had different weights in different results."""
    hashes: dict[str, dict[str, str]] = defaultdict(dict)  # by metric, weights and the first method with them
    for method, results in selection.results.items():
        for result in results:
            for metric, sha256 in result.weights.items():
                hashes[metric].setdefault(sha256, method)
    for metric, methods in hashes.items():
        if len(methods) > 1:
            selection.mixed.add(metric)
            told = " and ".join(f"{sha256[:8]} ({method})" for sha256, method in methods.items())
            selection.notes.append(f"{metric} was computed with different weights, {told}: n/a.")


def names(objects: Sequence[str], most: int = 4) -> str:
    """ "1 object (a)", "9 objects (a, b, c, d, ...)"."""
    listed = ", ".join([*objects[:most], *(["..."] if len(objects) > most else [])])
    return f"{len(objects)} object{'' if len(objects) == 1 else 's'} ({listed})"
