"""Gaussians, their PLY files and their rasteriser."""

from ss4d.gaussians.gaussians import Gaussians, GaussianSequence, Rendering
from ss4d.gaussians.ply import read_ply, write_ply
from ss4d.gaussians.rasterize import rasterize

__all__ = ["GaussianSequence", "Gaussians", "Rendering", "rasterize", "read_ply", "write_ply"]
