"""Meshes of other methods, a file a frame: judged by their surface, which is all that they are read for.

    RESULTS/<object>/meshes/<frame>.glb           or .obj, .ply, .off, .stl

Where all frames have the same triangles, points of the surface are followed with them, as CD-M asks; else each point
goes on to the nearest of the next frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from ss4d.data.overlap import surface_voxels
from ss4d.evaluation.methods.external_files import files_of, frame_files, named, open_object
from ss4d.evaluation.methods.method import Method
from ss4d.evaluation.prediction import Prediction, SurfacePoints, Voxels
from ss4d.evaluation.protocol import Protocol
from ss4d.evaluation.subjects.subject import Subject
from ss4d.metrics.motion import sample_surface
from ss4d.view_frame import Similarity

SUFFIXES = (".glb", ".obj", ".ply", ".off", ".stl")
POINTS = 10_000  # of a surface, as ActionBench
FROM_Y_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])  # glTF: front +z; ours: z up, front -y


@dataclass(frozen=True)
class Mesh:
    """One frame, in the cube [-0.5, 0.5]^3 with z up."""

    vertices: NDArray[np.float64]  # [V, 3]
    triangles: NDArray[np.int64]  # [F, 3]


class MeshFolder(Method):
    """Meshes of another method.

    Args:
        axes: "y_up" (glTF) or "z_up", of the files.
        degrees: by which all results are turned, counter-clockwise seen from above.
    """

    def __init__(self, folder: Path, axes: str, degrees: float, protocol: Protocol):
        super().__init__()
        self.folder, self.protocol = folder, protocol
        turned = Rotation.from_euler("z", degrees, degrees=True).as_matrix()
        self.rotation = turned @ FROM_Y_UP if axes == "y_up" else turned
        self.identity: dict[str, Any] = {"axes": axes, "turned_degrees": degrees}

    def files(self, name: str) -> list[Path]:
        return files_of(self.folder, name, "meshes")

    def predict(self, subject: Subject, seed: int) -> Prediction:
        folder = open_object(self.folder, subject, self.protocol) / "meshes"
        files = frame_files(folder, SUFFIXES, subject)
        meshes = [named(subject, partial(read_mesh, file, self.rotation)) for file in files]
        resolution = self.protocol.voxel_resolution
        surface = surface_points(meshes)
        if resolution is None:
            return Prediction(surface=surface)

        def moved_voxels(placement: Similarity) -> Voxels:
            return mesh_voxels([Mesh(placement(mesh.vertices), mesh.triangles) for mesh in meshes], resolution)

        return Prediction(voxels=mesh_voxels(meshes, resolution), surface=surface, moved_voxels=moved_voxels)


def read_mesh(file: Path, rotation: NDArray[np.float64]) -> Mesh:
    """All triangles of a file, where its nodes put them.

    Raises:
        ValueError: a file that is no mesh, or not finite.
    """
    try:
        import trimesh
    except ImportError as error:
        raise ValueError("reading meshes needs trimesh: pip install -e '.[eval]'") from error
    try:
        mesh: Any = trimesh.load_mesh(file, process=False)
    except Exception as error:  # each of its readers raises others
        raise ValueError(f"{file} cannot be read as a mesh ({' '.join(str(error).split())[:200]})") from error
    if not len(getattr(mesh, "faces", ())):
        raise ValueError(f"{file} has no triangles")
    vertices = np.asarray(mesh.vertices, np.float64) @ rotation.T
    if not np.isfinite(vertices).all():
        raise ValueError(f"{file} has values that are not finite")
    return Mesh(vertices, np.asarray(mesh.faces, np.int64))


def surface_points(meshes: list[Mesh]) -> SurfacePoints:
    """Points of each frame's surface, the same ones in all frames where the triangles are the same."""
    first = meshes[0]
    followed = all(
        mesh.vertices.shape == first.vertices.shape and np.array_equal(mesh.triangles, first.triangles)
        for mesh in meshes
    )
    if followed:
        points = sample_surface(np.stack([mesh.vertices for mesh in meshes]), first.triangles, POINTS)
    else:
        points = np.stack([sample_surface(mesh.vertices[None], mesh.triangles, POINTS)[0] for mesh in meshes])
    return SurfacePoints(list(torch.from_numpy(points)), followed)


def mesh_voxels(meshes: list[Mesh], resolution: int) -> Voxels:
    """Voxels that the surface touches, found as those of data sets are."""
    found = []
    for frame, mesh in enumerate(meshes):
        touched = torch.from_numpy(surface_voxels(mesh.vertices[mesh.triangles], resolution).astype(np.int64))
        found.append(torch.nn.functional.pad(touched, (1, 0), value=frame))
    return Voxels(torch.cat(found), resolution)
