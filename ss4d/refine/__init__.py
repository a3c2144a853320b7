"""Alignment of a generated result with its input (paper §6 names pixel-space losses as the way to keep detail).

Three steps, each of which can be used alone: the camera of the input (`camera`), the structure against the input's
silhouettes (`structure`), the Gaussians against its pixels (`appearance`). `Refiner` takes a clip through all of them.
"""

from ss4d.refine.appearance import AppearanceSettings, refine_gaussians
from ss4d.refine.camera import CameraFit, fit_camera
from ss4d.refine.refiner import Refinement, Refiner, RefineSettings
from ss4d.refine.structure import StructureSettings, align_structure, carve

__all__ = [
    "AppearanceSettings",
    "CameraFit",
    "RefineSettings",
    "Refinement",
    "Refiner",
    "StructureSettings",
    "align_structure",
    "carve",
    "fit_camera",
    "refine_gaussians",
]
