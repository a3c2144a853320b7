"""Data preparation: from 3D assets, animated or static, to rendered views, voxels and features of every frame."""
