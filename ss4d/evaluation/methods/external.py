"""Results of other methods, read from folders (layout: `ss4d.evaluation.methods.external_files`)."""

from __future__ import annotations

import math
from pathlib import Path

from ss4d.evaluation.methods.azimuth import Turn, find_azimuth, turn
from ss4d.evaluation.methods.external_files import files_of, read_gaussians, read_views
from ss4d.evaluation.methods.meshes import MeshFolder
from ss4d.evaluation.methods.method import Method
from ss4d.evaluation.placement import move_gaussians
from ss4d.evaluation.prediction import Prediction, Voxels, gaussian_voxels
from ss4d.evaluation.protocol import Protocol
from ss4d.evaluation.subjects.subject import Subject, SubjectSet
from ss4d.gaussians import GaussianSequence
from ss4d.gaussians.ply import Up
from ss4d.view_frame import Similarity

UPS: dict[str, Up] = {"y_down": "-y", "y_up": "+y", "z_up": "+z"}  # of files of Gaussians, by axes=


class ViewFolder(Method):
    """Rendered views."""

    def __init__(self, folder: Path, protocol: Protocol):
        super().__init__()
        self.folder, self.protocol = folder, protocol

    def files(self, name: str) -> list[Path]:
        return files_of(self.folder, name, "views")

    def predict(self, subject: Subject, seed: int) -> Prediction:
        return Prediction(views=read_views(self.folder, subject, self.protocol))


class GaussianFolder(Method):
    """A PLY file per frame, rendered here; voxels that hold an opaque Gaussian are its structure.

    Args:
        up: which way is up in the files, as ply.py names it; None: as they say, else -y.
        degrees: by which all results are turned, counter-clockwise seen from above; None finds a turn for each object.
    """

    def __init__(self, folder: Path, up: Up | None, degrees: float | None, protocol: Protocol):
        super().__init__()
        self.folder, self.protocol, self.up, self.degrees = folder, protocol, up, degrees
        self.identity = {
            "up": up or "as the files say",
            "turned_degrees": "each object" if degrees is None else degrees,
        }

    def files(self, name: str) -> list[Path]:
        return files_of(self.folder, name, "gaussians")

    def predict(self, subject: Subject, seed: int) -> Prediction:
        gaussians = read_gaussians(self.folder, subject, self.protocol, self.up)
        found = Turn(self.degrees, math.nan) if self.degrees is not None else None
        if found is None:
            found = find_azimuth([subject.name], lambda name: (gaussians, subject))
        gaussians = turn(gaussians, found.degrees) if found.degrees else gaussians
        report = {"turned_degrees": found.degrees}
        resolution = self.protocol.voxel_resolution
        if resolution is None:
            return Prediction(gaussians, report=report)

        def moved_voxels(placement: Similarity) -> Voxels:
            return gaussian_voxels(move_gaussians(gaussians, placement), resolution)

        return Prediction(gaussians, gaussian_voxels(gaussians, resolution), moved_voxels=moved_voxels, report=report)


def gaussian_folder(
    folder: Path, axes: str | None, azimuth: str, protocol: Protocol, subjects: SubjectSet
) -> GaussianFolder:
    """Results turned as `azimuth` says: by so many degrees, by one turn that is found for the "method", or by one for
    each "object".

    Raises:
        ValueError: other axes, another azimuth, or no result to be turned.
    """
    up = None if axes is None else UPS[check_axes(axes, tuple(UPS))]
    if azimuth == "object":
        return GaussianFolder(folder, up, None, protocol)
    if azimuth == "method":

        def load(name: str) -> tuple[GaussianSequence, Subject]:
            subject = subjects.load(name)
            return read_gaussians(folder, subject, protocol, up), subject

        found = find_azimuth(subjects.names(), load)
        print(f"results are turned by {found.degrees:g} degrees, where they match their inputs at {found.psnr:.2f} dB")
        return GaussianFolder(folder, up, found.degrees, protocol)
    return GaussianFolder(folder, up, degrees_of(azimuth, "a number of degrees, method or object"), protocol)


def mesh_folder(folder: Path, axes: str | None, azimuth: str, protocol: Protocol) -> MeshFolder:
    """Results turned by so many degrees: meshes are not rendered, so no turn is found for them.

    Raises:
        ValueError: other axes, or another azimuth.
    """
    axes = check_axes(axes or "y_up", ("y_up", "z_up"))
    return MeshFolder(folder, axes, degrees_of(azimuth, "a number of degrees for meshes"), protocol)


def check_axes(axes: str, allowed: tuple[str, ...]) -> str:
    """The axes; ValueError for others than those allowed."""
    if axes not in allowed:
        raise ValueError(f"axes must be {' or '.join(allowed)}, but it is {axes}.")
    return axes


def degrees_of(azimuth: str, allowed: str) -> float:
    """The number of an option.

    Raises:
        ValueError: it is none.
    """
    try:
        degrees = float(azimuth)
    except ValueError:
        degrees = math.nan
    if not math.isfinite(degrees):
        raise ValueError(f"azimuth must be {allowed}, but it is {azimuth}.")
    return degrees
