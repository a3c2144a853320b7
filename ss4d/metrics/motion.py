"""Chamfer distances of moving surfaces as ActionBench has them (Sabathier et al., "ActionMesh", 2026).

With d(a, B) the distance of a point from the nearest of B, and CD(A, B) = mean_a d(a, B) + mean_b d(b, A):

    CD-3D   mean over frames t of CD(S_t P_t, Q_t), S_t a similarity fitted to each frame: shape alone
    CD-4D   the same with S_0, fitted to the first frame, for all: shape and motion of the whole
    CD-M    points matched in the first frame, i -> j(i) = nearest, and followed: the mean over i and t of
            |S_0 p_i(t) - q_j(i)(t)|, plus the same from Q to P: whether each part goes where it should

P are points of the prediction and Q of the true surface, whose motion is known. S are found by iterated closest points,
in which each set's nearest in the other counts; ActionBench finds them by gradient descent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ss4d.view_frame import Similarity

Points = NDArray[np.float64]  # [N, 3]
ITERATIONS = 200
TOLERANCE = 1e-9


@dataclass(frozen=True)
class MotionScores:
    """In units of the world, the object being about 1 long."""

    cd_3d: float
    cd_4d: float
    cd_m: float


def motion_scores(tracks: Points, target: Points, frames: Sequence[Points] | None = None) -> MotionScores:
    """All three distances.

    Args:
        tracks: points of the prediction that are followed, [T, P, 3].
        target: of the true surface, [T, Q, 3].
        frames: all points of each frame of the prediction, [N_t, 3]; by default the tracks.

    Raises:
        ValueError: other numbers of frames, or a frame without points.
    """
    every = list(tracks) if frames is None else frames
    if not len(tracks) == len(target) == len(every):
        raise ValueError(f"The prediction has {len(every)} frames, but the target {len(target)}.")
    if not all(len(points) for points in (*every, *target)):
        raise ValueError("A frame has no point.")
    first = fit_similarity(every[0], target[0])
    each = [first, *(fit_similarity(p, q) for p, q in zip(every[1:], target[1:], strict=True))]
    pairs = list(zip(every, target, each, strict=True))
    return MotionScores(
        cd_3d=float(np.mean([chamfer(placed(p), q) for p, q, placed in pairs])),
        cd_4d=float(np.mean([chamfer(first(p), q) for p, q, _ in pairs])),
        cd_m=motion_chamfer(first(tracks.reshape(-1, 3)).reshape(tracks.shape), target),
    )


def chamfer(points: Points, target: Points) -> float:
    """Mean distance to the nearest of the other set, one way plus the other."""
    return float(cKDTree(target).query(points)[0].mean() + cKDTree(points).query(target)[0].mean())


def motion_chamfer(tracks: Points, target: Points) -> float:
    """Of tracks [T, P, 3] and [T, Q, 3], matched in the first frame."""
    there, back = cKDTree(target[0]).query(tracks[0])[1], cKDTree(tracks[0]).query(target[0])[1]
    forth = np.linalg.norm(tracks - target[:, there], axis=-1).mean()
    return float(forth + np.linalg.norm(target - tracks[:, back], axis=-1).mean())


def fit_similarity(points: Points, target: Points) -> Similarity:
    """The similarity that brings points nearest to the target, from where they are: a local optimum."""
    found, before = Similarity(1.0, np.eye(3), np.zeros(3)), np.inf
    tree = cKDTree(target)
    for _ in range(ITERATIONS):
        moved = found(points)
        distance, there = tree.query(moved)
        distance_back, back = cKDTree(moved).query(target)
        error = float((distance**2).sum() + (distance_back**2).sum())  # no step makes it larger
        if error >= (1 - TOLERANCE) * before:
            break
        before = error
        found = best_similarity(np.concatenate([points, points[back]]), np.concatenate([target[there], target]))
    return found


def best_similarity(points: Points, target: Points) -> Similarity:
    """Of matched points, by least squares (Umeyama 1991)."""
    centre, target_centre = points.mean(0), target.mean(0)
    p, q = points - centre, target - target_centre
    u, s, vt = np.linalg.svd(q.T @ p)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt)) or 1.0])
    rotation = (u * sign) @ vt
    spread = float((p**2).sum())
    scale = float((s * sign).sum() / spread) if spread > 0 else 1.0
    return Similarity(scale, rotation, target_centre - scale * rotation @ centre)


def sample_surface(vertices: Points, triangles: NDArray[np.integer], count: int, seed: int = 0) -> Points:
    """Points that move with a surface, evenly by the area of its first frame.

    Args:
        vertices: [T, V, 3].
        triangles: [F, 3].

    Returns:
        [T, count, 3].
    """
    generator = np.random.default_rng(seed)
    corners = vertices[0, triangles]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    chosen = generator.choice(len(triangles), count, p=area / area.sum())
    a, b = np.sqrt(generator.random(count)), generator.random(count)
    weights = np.stack([1 - a, a * (1 - b), a * b], axis=1)
    return np.einsum("tncd,nc->tnd", vertices[:, triangles[chosen]].astype(np.float64), weights)


def follow(frames: Sequence[Points]) -> Points:
    """Tracks [T, P, 3] of points that nothing follows (voxels, Gaussians of single frames): each goes on to the nearest
    of the next frame. A part that moves further than the parts lie apart is lost, and CD-M is the worse for it."""
    tracks = [frames[0]]
    for points in frames[1:]:
        tracks.append(points[cKDTree(points).query(tracks[-1])[1]])
    return np.stack(tracks)
