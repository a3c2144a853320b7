"""Evaluating a method by a protocol: predict, compare with the target, keep the result; object by object.

Every object and seed gets a folder of its own (`ss4d.evaluation.results`), written atomically; started again, only
what is missing is made. Several processes share the objects by shard=0/4, 1/4, ...
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from ss4d.evaluation.identity import files_hash
from ss4d.evaluation.methods.create import create_method
from ss4d.evaluation.methods.inputs import write_inputs
from ss4d.evaluation.methods.method import Method
from ss4d.evaluation.networks import Networks, load_networks
from ss4d.evaluation.options import JudgingOptions, RunOptions
from ss4d.evaluation.prediction import Rendered, render
from ss4d.evaluation.protocol import Protocol
from ss4d.evaluation.results import (
    Result,
    check_label,
    failure_path,
    protocol_folder,
    read_result,
    result_folder,
    write_failure,
    write_result,
)
from ss4d.evaluation.scoring import score, score_aligned
from ss4d.evaluation.subjects.open import open_subjects
from ss4d.evaluation.subjects.subject import SubjectSet
from ss4d.evaluation.weights import WeightSource
from ss4d.shard import Shard

CreateMethod = Callable[[RunOptions, Protocol, SubjectSet], Method]


@dataclass(frozen=True)
class Evaluation:
    """A method and all that its results depend on."""

    label: str  # the method's name in results
    kind: str  # "ours", "truth", ...
    method: Method
    protocol: Protocol
    subjects: SubjectSet
    networks: Networks
    methods: Path  # the folder with the results of all methods

    def folder(self, name: str, seed: int) -> Path:
        """Where the result of an object and seed is kept."""
        return result_folder(self.methods, self.label, name, seed)

    @torch.no_grad()
    def make(self, name: str, seed: int) -> None:
        """Run the method on an object, score and write the result.

        Raises:
            ValueError: files of the object that cannot be read, or a prediction that does not fit the protocol.
        """
        subject = self.subjects.load(name)
        prediction = self.method.predict(subject, seed)
        rendered = render(prediction, subject, self.protocol)
        scores = score(subject, rendered, self.protocol, self.networks)
        aligned = score_aligned(subject, prediction, self.protocol, self.networks)
        result = Result(
            protocol=self.protocol.hash(),
            method=self.label,
            identity=self.identity,
            object=name,
            seed=seed,
            sources=self.sources(name),
            frames=subject.frames,
            assumptions=self.protocol.assumptions() | subject.assumptions(),
            category=subject.category,
            metrics=scores.metrics | aligned.metrics,
            weights=self.networks.hashes,
            missing=self.networks.missing,
            report={**prediction.report, **aligned.report},
        )
        views, chosen = figure_views(rendered, self.protocol), self.protocol.figures_of(len(subject.cameras))
        video = None if views is None else np.concatenate(list(views), axis=2)
        write_result(self.folder(name, seed), result, scores.features, pictures(views, chosen, self.protocol), video)

    @property
    def identity(self) -> dict[str, Any]:
        """What the method is, as JSON gives it back."""
        content: dict[str, Any] = json.loads(json.dumps({"method": self.kind, **self.method.identity}))
        return content

    def sources(self, name: str) -> dict[str, str]:
        """Hashes of the files that a result is made of."""
        return {"subject": files_hash(self.subjects.files(name)), "results": files_hash(self.method.files(name))}

    def keeps(self, name: str, seed: int) -> bool:
        """Whether an earlier result is what would be made again; not where weights are given that were missing then.

        Raises:
            ValueError: it is of another checkpoint, of other settings, files or weights, or made again it would lack
                metrics that it has.
        """
        folder = self.folder(name, seed)
        earlier = read_result(folder, self.protocol)
        identity, sources, weights = self.identity, self.sources(name), self.networks.hashes
        different = [key for key in {**earlier.identity, **identity} if earlier.identity.get(key) != identity.get(key)]
        different += [key for key, value in earlier.sources.items() if value != sources[key]]
        different += [key for key, value in weights.items() if earlier.weights.get(key, value) != value]
        if different:
            raise ValueError(
                f"{name}: {folder} was made with other {', '.join(different)}; give this method another label=NAME, "
                "or delete that folder."
            )
        if weights.keys() <= earlier.weights.keys():
            return True
        if lost := earlier.weights.keys() - weights.keys():
            raise ValueError(
                f"{name}: {folder} has metrics by {', '.join(sorted(lost))}, which are not given now: give all weights "
                "at once, so that it can be made again."
            )
        return False


def run(options: RunOptions, create: CreateMethod = create_method) -> list[str]:
    """Make the results that are missing; returns a sentence for each that could not be made.

    Args:
        create: makes the method that the options name.

    Raises:
        ValueError: an option, protocol, data set or checkpoint that cannot be used, or an earlier result of another
            method.
    """
    options.check_used()
    protocol = options.load_protocol()
    subjects = open_subjects(protocol, Path(options.data))
    if options.inputs is not None:
        write_inputs(subjects, protocol, Path(options.inputs))
        return []
    shard = Shard.parse(options.shard)
    check_label(options.name)
    if not options.seeds:
        raise ValueError("seeds=[] leaves nothing to evaluate: give at least one.")
    Path(options.out).mkdir(parents=True, exist_ok=True)  # before anything is computed
    networks = load_networks(protocol, weight_source(options))
    for metric, sentence in networks.missing.items():
        print(f"{metric} is n/a: {sentence}")
    method = create(options, protocol, subjects)
    folder = protocol_folder(Path(options.out), protocol)
    evaluation = Evaluation(options.name, options.method, method, protocol, subjects, networks, folder)
    seeds = options.seeds if method.samples else options.seeds[:1]
    jobs = shard.of([(name, seed) for name in subjects.names() for seed in seeds])
    made = [job for job in jobs if evaluation.folder(*job).exists()]
    kept = [job for job in made if evaluation.keeps(*job)]
    if again := [job for job in made if job not in kept]:
        print(f"{len(again)} results lack metrics whose weights are given now: they are made again.")
    failed = []
    for name, seed in tqdm([job for job in jobs if job not in kept], desc=options.name, unit="result"):
        try:
            if (name, seed) in again:
                with replaced(evaluation.folder(name, seed)):
                    evaluation.make(name, seed)
            elif not evaluation.folder(name, seed).exists():  # else another process has made it meanwhile
                evaluation.make(name, seed)
        except ValueError as error:
            failed.append(f"{name}, seed {seed}: {error}")
            write_failure(evaluation.folder(name, seed), str(error))
        else:
            failure_path(evaluation.folder(name, seed)).unlink(missing_ok=True)
    print(f"{len(jobs) - len(failed)} of {len(jobs)} results of {options.name} in {folder / options.name}")
    return failed


@contextmanager
def replaced(folder: Path) -> Iterator[None]:
    """An earlier result out of the way while it is made again; back where that fails."""
    earlier = folder.with_name(f".{folder.name}-earlier-{secrets.token_hex(4)}")
    folder.rename(earlier)
    try:
        yield
    except BaseException:
        if not folder.exists():  # no other process has made it meanwhile
            earlier.rename(folder)
        raise
    finally:
        shutil.rmtree(earlier, ignore_errors=True)


def weight_source(options: JudgingOptions) -> WeightSource:
    """Where the weights of the metrics' networks are looked for."""
    return WeightSource(Path(options.weights) if options.weights else None, options.download, options.weights_hub)


def figure_views(prediction: Rendered, protocol: Protocol) -> NDArray[np.uint8] | None:
    """The protocol's figure views of a prediction, [V, T, S, S, 3]; None where it has none of them."""
    if prediction.views is None:
        return None
    chosen = protocol.figures_of(len(prediction.views))
    if not chosen:
        return None
    return (255 * prediction.views[chosen]).round().byte().movedim(2, -1).numpy()


def pictures(
    views: NDArray[np.uint8] | None, chosen: Sequence[int], protocol: Protocol
) -> dict[str, NDArray[np.uint8]]:
    """The figure frames of the `chosen` views, [S, S, 3] by file name; frames beyond the clip are its last."""
    if views is None:
        return {}
    numbers = dict(zip(chosen, views, strict=True))
    return {
        f"view{number}_frame{frame}": video[frame]
        for number, video in numbers.items()
        for frame in dict.fromkeys(min(frame, len(video) - 1) for frame in protocol.figure_frames)
    }
