"""Compositors behind `ss4d.gaussians.rasterize`, one file each."""
