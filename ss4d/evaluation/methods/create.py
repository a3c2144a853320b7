"""The methods by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ss4d.evaluation.methods.baselines import AlphaCopy, AverageOccupancy, NearestClip, TrueVoxels, Truth
from ss4d.evaluation.methods.external import ViewFolder, gaussian_folder, mesh_folder
from ss4d.evaluation.methods.method import Method
from ss4d.evaluation.methods.ours import PipelineMethod, Reconstruction
from ss4d.evaluation.options import RunOptions
from ss4d.evaluation.protocol import Protocol
from ss4d.evaluation.subjects.subject import SubjectSet

METHODS: dict[str, Callable[[RunOptions, Protocol, SubjectSet], Method]] = {
    "ours": lambda options, protocol, subjects: PipelineMethod(options, protocol),
    "reconstruction": lambda options, protocol, subjects: Reconstruction(options, protocol, subjects),
    "nearest_clip": lambda options, protocol, subjects: NearestClip(protocol, subjects),
    "alpha_copy": lambda options, protocol, subjects: AlphaCopy(protocol),
    "average_occupancy": lambda options, protocol, subjects: AverageOccupancy(protocol, subjects),
    "true_voxels": lambda options, protocol, subjects: TrueVoxels(protocol, subjects),
    "truth": lambda options, protocol, subjects: Truth(protocol),
    "views": lambda options, protocol, subjects: ViewFolder(results_folder(options), protocol),
    "gaussians": lambda options, protocol, subjects: gaussian_folder(
        results_folder(options), options.axes, options.azimuth, protocol, subjects
    ),
    "meshes": lambda options, protocol, subjects: mesh_folder(
        results_folder(options), options.axes, options.azimuth, protocol
    ),
}


def create_method(options: RunOptions, protocol: Protocol, subjects: SubjectSet) -> Method:
    """The method that `options.method` names.

    Raises:
        ValueError: there is none of that name, or it lacks something that it needs.
    """
    if options.method not in METHODS:
        raise ValueError(f"There is no method {options.method!r}; there are {', '.join(METHODS)}.")
    return METHODS[options.method](options, protocol, subjects)


def results_folder(options: RunOptions) -> Path:
    """`options.results`, which must be a folder."""
    if options.results is None or not Path(options.results).is_dir():
        raise ValueError(
            f"method={options.method} reads a folder of results, but results={options.results} is not a folder."
        )
    return Path(options.results)
