"""Gaussians, their PLY files and their rasteriser."""

from ss4d.gaussians.gaussians import Gaussians, GaussianSequence
from ss4d.gaussians.rasterize import Rendering, rasterize

__all__ = ["GaussianSequence", "Gaussians", "Rendering", "rasterize"]
