"""The features stage: what the rendered views say about every voxel."""
