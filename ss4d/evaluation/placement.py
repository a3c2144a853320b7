"""Gaussians and voxels moved by a similarity, and where a result in the frame of its view stands in the clip's cube."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from ss4d.cameras import Camera, crop_intrinsics
from ss4d.cube import grid_centres, in_cube, voxel_centres
from ss4d.evaluation.subjects.subject import Subject
from ss4d.gaussians import Gaussians, GaussianSequence
from ss4d.gaussians.ply import multiply_quaternions
from ss4d.video import clip_crop_box
from ss4d.view_frame import Similarity, ViewFrame, view_similarity


def compose(outer: Similarity | None, inner: Similarity | None) -> Similarity | None:
    """`inner` first, then `outer`; None moves nothing."""
    if outer is None or inner is None:
        return outer or inner
    return Similarity.from_matrix(outer.matrix() @ inner.matrix())


def move_gaussians(gaussians: GaussianSequence, similarity: Similarity | None) -> GaussianSequence:
    """All frames moved; None moves nothing."""
    if similarity is None:
        return gaussians
    return GaussianSequence([_move(frame, similarity) for frame in gaussians])


def _move(gaussians: Gaussians, similarity: Similarity) -> Gaussians:
    x, y, z, w = Rotation.from_matrix(similarity.rotation).as_quat()
    rotation = multiply_quaternions(np.array([w, x, y, z]), gaussians.rotation.double().cpu().numpy())
    xyz = similarity(gaussians.xyz.double().cpu().numpy())
    return replace(
        gaussians,
        xyz=torch.from_numpy(xyz).to(gaussians.xyz),
        scale=gaussians.scale * similarity.scale,
        rotation=torch.from_numpy(rotation).to(gaussians.rotation),
    )


def move_voxels(coords: Tensor, resolution: int, similarity: Similarity, cells: int) -> Tensor:
    """Voxels int [N, 4] = (frame, x, y, z), moved, on a grid with `cells` along a side: int64 [M, 4]; what leaves the
    cube is left out.

    A cell is occupied where the centre of a moved voxel lies in it, or its own centre in a moved voxel: so nothing gets
    holes, whether it shrinks or grows, and a similarity that moves nothing changes nothing.
    """
    coords = coords.long()
    centres = similarity(voxel_centres(coords[:, 1:].double(), resolution).cpu().numpy())
    forward = torch.cat([coords[:, :1], _cells(centres, cells)], dim=1)
    found = [forward[in_cube(forward[:, 1:], cells)]]
    back = _cells(similarity.inverse()(grid_centres(cells).double().numpy().reshape(-1, 3)), resolution)
    inside = in_cube(back, resolution)
    numbers = torch.stack(torch.unravel_index(inside.nonzero()[:, 0], (cells,) * 3), dim=1)
    x, y, z = back[inside].unbind(1)
    for frame in coords[:, 0].unique().tolist():
        grid = torch.zeros([resolution] * 3, dtype=torch.bool)
        grid[tuple(coords[coords[:, 0] == frame, 1:].unbind(1))] = True
        found.append(torch.nn.functional.pad(numbers[grid[x, y, z]], (1, 0), value=frame))
    return torch.cat(found).unique(dim=0)


def _cells(points: np.ndarray, cells: int) -> Tensor:
    """The cells that points [N, 3] lie in, int64; rounding does not carry a point over a border it lies on."""
    return torch.from_numpy(np.floor((points + 0.5) * cells + 1e-9)).long()


def cropped_camera(subject: Subject) -> Camera:
    """The camera that took the subject's input, of the part that the pipeline crops it to."""
    box = clip_crop_box(subject.video[..., 3].numpy())
    height, width = subject.video.shape[1:3]
    part = (box[0] / width, box[1] / height, box[2] / width, box[3] / height)
    return Camera(subject.input_camera.extrinsics, crop_intrinsics(subject.input_camera.intrinsics, part))


def out_of_view(frame: ViewFrame, subject: Subject) -> Similarity:
    """From the frame of the subject's view into the cube of its clip.

    How far the object is from the camera is not known, so it is placed where the cube's centre is.
    """
    camera = cropped_camera(subject)
    extrinsics, intrinsics = camera.extrinsics.double().numpy(), camera.intrinsics.double().numpy()
    distance = float(np.linalg.norm(extrinsics[:3, 3]))  # from the camera to the origin, the cube's centre
    return view_similarity(frame, extrinsics, intrinsics, distance).inverse()
