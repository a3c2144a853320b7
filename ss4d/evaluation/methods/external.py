"""Results of other methods, read from folders (layout: `ss4d.evaluation.methods.external_files`)."""

from __future__ import annotations

from pathlib import Path

from ss4d.evaluation.methods.azimuth import align_azimuth
from ss4d.evaluation.methods.external_files import files_of, read_gaussians, read_views
from ss4d.evaluation.methods.method import Method
from ss4d.evaluation.prediction import Prediction, gaussian_voxels
from ss4d.evaluation.protocol import Protocol
from ss4d.evaluation.subjects.subject import Subject
from ss4d.gaussians.ply import Up


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
    """A PLY file per frame, rendered here; voxels that hold an opaque Gaussian are its structure."""

    def __init__(self, folder: Path, axes: str, align: bool, protocol: Protocol):
        super().__init__()
        if axes not in ("y_up", "z_up"):
            raise ValueError(f"axes must be y_up or z_up, but it is {axes}.")
        self.folder, self.protocol, self.align = folder, protocol, align
        self.up: Up = "-y" if axes == "y_up" else "+z"  # as ply.py names it
        self.identity = {"axes": axes, "aligned": align}

    def files(self, name: str) -> list[Path]:
        return files_of(self.folder, name, "gaussians")

    def predict(self, subject: Subject, seed: int) -> Prediction:
        gaussians = read_gaussians(self.folder, subject, self.protocol, self.up)
        report: dict[str, float] = {}
        if self.align:
            aligned = align_azimuth(gaussians, subject)
            gaussians, report = aligned.gaussians, {"turned_degrees": aligned.degrees, "input_psnr": aligned.psnr}
        resolution = self.protocol.voxel_resolution
        return Prediction(gaussians, gaussian_voxels(gaussians, resolution) if resolution else None, report=report)
