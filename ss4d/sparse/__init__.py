"""Sparse voxel tensors over (video, frame, x, y, z) and their operators."""

from ss4d.segments import Segments
from ss4d.sparse.conv import SubmanifoldConv, submanifold_convolution, unpacked_convolution
from ss4d.sparse.neighbours import neighbour_map
from ss4d.sparse.packing import Unpacking, pack, packing_plan, unpack, unpacking
from ss4d.sparse.tensor import Geometry, SparseTensor, cat_features
from ss4d.sparse.windows import WindowPartition, window_partition

__all__ = [
    "Geometry",
    "Segments",
    "SparseTensor",
    "SubmanifoldConv",
    "Unpacking",
    "WindowPartition",
    "cat_features",
    "neighbour_map",
    "pack",
    "packing_plan",
    "submanifold_convolution",
    "unpack",
    "unpacked_convolution",
    "unpacking",
    "window_partition",
]
