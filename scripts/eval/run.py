"""Judge a method by a protocol: `python -m scripts.eval.run protocol=ss4d_assets method=ours data=data/tiny`.

Every object and seed gets a folder of its own (`ss4d.evaluation.results`) that appears whole or not at all; started
again, the command makes only what is missing. Several processes share the work by shard=0/4, 1/4, ...
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from scripts.eval.methods import Method, create_method
from scripts.eval.options import Command, Options, parse
from ss4d.evaluation.networks import Networks, load_networks
from ss4d.evaluation.prediction import Prediction
from ss4d.evaluation.protocol import Protocol
from ss4d.evaluation.results import Result, protocol_folder, read_result, result_folder, write_result
from ss4d.evaluation.scoring import score
from ss4d.evaluation.subject import SubjectSet, open_subjects
from ss4d.evaluation.weights import WeightSource


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 where all objects have results, else 1."""
    return exit_status(lambda: evaluate(parse(sys.argv[1:] if arguments is None else arguments)))


def exit_status(work: Callable[[], list[str]]) -> int:
    """0 where `work` returns no failures, else 1; these and a ValueError are printed, a sentence each."""
    try:
        failed = work()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for sentence in failed:
        print(f"failed: {sentence}", file=sys.stderr)
    return 1 if failed else 0


def evaluate(command: Command) -> list[str]:
    """Make the results that are missing; returns a sentence for each that could not be made."""
    options, protocol = command.options, command.protocol
    subjects = open_subjects(protocol, Path(options.data))
    networks = load_networks(protocol, weight_source(options))
    for metric, sentence in networks.missing.items():
        print(f"{metric} is n/a: {sentence}")
    method = create_method(options, protocol, subjects)
    methods = protocol_folder(Path(options.out), protocol)
    seeds = options.seeds if method.samples else options.seeds[:1]
    jobs = own_part([(name, seed) for name in subjects.names() for seed in seeds], options.shard)
    failed = []
    for name, seed in tqdm(jobs, desc=options.name, unit="result"):
        folder = result_folder(methods, options.name, name, seed)
        if folder.exists():
            check_same_method(read_result(folder, protocol), method, folder)
            continue
        try:
            make_result(folder, options.name, name, seed, method, subjects, protocol, networks)
        except ValueError as error:
            failed.append(f"{name}, seed {seed}: {error}")
    print(f"{len(jobs) - len(failed)} of {len(jobs)} results of {options.name} in {methods / options.name}")
    return failed


@torch.no_grad()
def make_result(
    folder: Path,
    label: str,
    name: str,
    seed: int,
    method: Method,
    subjects: SubjectSet,
    protocol: Protocol,
    networks: Networks,
) -> None:
    """Run a method on one object, score and write it."""
    subject = subjects.load(name)
    prediction = method.predict(subject, seed)
    scores = score(subject, prediction, protocol, networks)
    result = Result(
        protocol=protocol.hash(),
        method=label,
        identity=method.identity,
        object=name,
        seed=seed,
        metrics=scores.metrics,
        weights=networks.hashes,
        missing=networks.missing,
        report=prediction.report,
    )
    views = figure_views(prediction, protocol)
    video = None if views is None else np.concatenate(list(views), axis=2)
    write_result(folder, result, scores.features, pictures(views, protocol), video)


def figure_views(prediction: Prediction, protocol: Protocol) -> NDArray[np.uint8] | None:
    """The figure's views of a prediction, [V, T, S, S, 3]; None where it has none of them."""
    if prediction.views is None:
        return None
    chosen = [view for view in protocol.figure_views if view < len(prediction.views)]
    if not chosen:
        return None
    return (255 * prediction.views[chosen]).round().byte().movedim(2, -1).numpy()


def pictures(views: NDArray[np.uint8] | None, protocol: Protocol) -> dict[str, NDArray[np.uint8]]:
    """The figure's frames of those views, by file name."""
    if views is None:
        return {}
    numbers = dict(zip(protocol.figure_views, views, strict=False))
    return {
        f"view{number}_frame{frame}": video[frame]
        for number, video in numbers.items()
        for frame in protocol.figure_frames
        if frame < len(video)
    }


def check_same_method(result: Result, method: Method, folder: Path) -> None:
    """ValueError where an earlier result is of another checkpoint or other settings."""
    identity = json.loads(json.dumps(method.identity))
    if result.identity != identity:
        different = [key for key in {**result.identity, **identity} if result.identity.get(key) != identity.get(key)]
        raise ValueError(
            f"{result.object}: {folder} was made by a method of this name with other {', '.join(different)}; "
            "give this one another label=NAME."
        )


def own_part(jobs: list[tuple[str, int]], shard: str) -> list[tuple[str, int]]:
    """Every n-th job from the i-th on, for shard "i/n"."""
    index, _, count = shard.partition("/")
    if not (index.isdigit() and count.isdigit() and int(index) < int(count)):
        raise ValueError(f"shard must be i/n with 0 <= i < n, for instance 0/4, but it is {shard}.")
    return jobs[int(index) :: int(count)]


def weight_source(options: Options) -> WeightSource:
    """Where networks' weights are looked for."""
    return WeightSource(Path(options.weights) if options.weights else None, options.download, options.weights_hub)


if __name__ == "__main__":
    sys.exit(main())
