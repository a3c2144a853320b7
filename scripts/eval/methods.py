"""The methods that `scripts.eval.run` can judge, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from typing import Protocol as Interface

from scripts.eval.baselines import AlphaCopy, AverageOccupancy, NearestClip, TrueVoxels, Truth
from scripts.eval.options import Options
from scripts.eval.outside import GaussianFolder, ViewFolder
from scripts.eval.pipeline_method import PipelineMethod, Reconstruction
from ss4d.evaluation.prediction import Prediction
from ss4d.evaluation.protocol import Protocol
from ss4d.evaluation.subject import Subject, SubjectSet


class Method(Interface):
    """Anything that makes a 4D object of a video."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Tells results apart that are not of the same method."""
        ...

    @property
    def samples(self) -> bool:
        """Whether the seed matters."""
        ...

    def predict(self, subject: Subject, seed: int) -> Prediction:
        """What the method makes of `subject.video`.

        Raises:
            ValueError: it can make nothing of it.
        """
        ...


METHODS: dict[str, Callable[[Options, Protocol, SubjectSet], Method]] = {
    "ours": lambda options, protocol, subjects: PipelineMethod(options, protocol),
    "reconstruction": lambda options, protocol, subjects: Reconstruction(options, protocol, subjects),
    "nearest_clip": lambda options, protocol, subjects: NearestClip(protocol, subjects),
    "alpha_copy": lambda options, protocol, subjects: AlphaCopy(protocol),
    "average_occupancy": lambda options, protocol, subjects: AverageOccupancy(protocol, subjects),
    "true_voxels": lambda options, protocol, subjects: TrueVoxels(protocol, subjects),
    "truth": lambda options, protocol, subjects: Truth(protocol),
    "views": lambda options, protocol, subjects: ViewFolder(results_folder(options), protocol),
    "gaussians": lambda options, protocol, subjects: GaussianFolder(results_folder(options), options, protocol),
}


def create_method(options: Options, protocol: Protocol, subjects: SubjectSet) -> Method:
    """The method that `options.method` names.

    Raises:
        ValueError: there is none of that name, or it lacks what it needs.
    """
    if options.method not in METHODS:
        raise ValueError(f"There is no method {options.method!r}; there are {', '.join(METHODS)}.")
    return METHODS[options.method](options, protocol, subjects)


def results_folder(options: Options) -> Path:
    """`options.results`, which must be a folder."""
    if options.results is None or not Path(options.results).is_dir():
        raise ValueError(f"method={options.method} reads a folder of results, but results={options.results} is none.")
    return Path(options.results)
