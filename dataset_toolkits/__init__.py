"""Data preparation: animated glTF objects in, voxels, features and rendered views of every frame out."""
