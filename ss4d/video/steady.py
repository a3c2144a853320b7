"""Masks made steady over time: one object is followed, and a median along its motion removes what flickers."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

SOLID = 128  # alpha from which a pixel counts as object
LOST = 0.1  # a component smaller than this share of the followed one is not taken for it
RADIUS = 2  # neighbours on either side that the median is taken over
FLOW_SIDE = 160  # pixels of the longer side that motion is estimated at
FLOW_LEVELS, FLOW_STEPS = 4, 4
FLOW_SIGMA = 2.5  # pixels; of the window that moves as one
FOUND = 0.7  # share of a window's variance that may be left where its motion was found
NOISE = 4e-4  # variance of a window that says nothing about its motion; pictures in [0, 1]


def steady_masks(masks: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Follow the largest object and take the median over five frames along the motion.

    Args:
        masks: uint8 [T, H, W], estimated frame by frame.
        frames: uint8 [T, H, W, 3], which the motion is estimated from.

    Returns:
        uint8 [T, H, W].
    """
    followed = follow_object(masks)
    return followed if len(masks) < 3 else _median_along_motion(followed, frames)


def follow_object(masks: np.ndarray) -> np.ndarray:
    """Keep one connected component: the largest of all frames, and in the others what overlaps it most.

    Args:
        masks: uint8 [T, H, W].

    Returns:
        uint8 [T, H, W]; empty where the object is not seen.
    """
    labelled = [ndimage.label(mask >= SOLID, np.ones((3, 3))) for mask in masks]
    sizes = [np.bincount(labels.ravel(), minlength=2) for labels, _ in labelled]
    start = max(range(len(masks)), key=lambda t: sizes[t][1:].max())
    kept = np.zeros_like(masks)
    for order in (range(start, len(masks)), range(start, -1, -1)):
        previous: np.ndarray | None = None
        for t in order:
            component = _component(labelled[t][0], sizes[t], previous)
            if component is not None:
                kept[t] = _with_soft_edge(masks[t], component, labelled[t][0])
                previous = component
    return kept


def _component(labels: np.ndarray, sizes: np.ndarray, previous: np.ndarray | None) -> np.ndarray | None:
    """bool [H, W]: the component that overlaps `previous` most, the largest one where none does or none was before."""
    sizes = sizes.copy()
    sizes[0] = 0
    if not sizes.any():
        return None
    if previous is not None:
        overlap = np.bincount(labels[previous], minlength=len(sizes))
        overlap[0] = 0
        if overlap.any():
            return labels == overlap.argmax()
        if sizes.max() < LOST * previous.sum():
            return None
    return labels == sizes.argmax()


def _with_soft_edge(mask: np.ndarray, component: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The mask within reach of one component, without the others."""
    reach = max(2, round(0.02 * np.sqrt(component.sum())))
    near = ndimage.distance_transform_edt(~component) <= reach
    return np.where(near & (component | (labels == 0)), mask, 0)


def _median_along_motion(masks: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """The median of each mask and its neighbours, two on either side where there are so many, moved to it.

    Where a neighbour's motion was not found, as in frames a second apart, the mask itself stands in for it.
    """
    count = len(masks)
    grey = [_small_grey(frame) for frame in frames]
    steady = np.empty_like(masks)
    for t in range(count):
        window = sorted(range(max(0, t - RADIUS), min(count, t + RADIUS + 1)), key=lambda other: abs(other - t))
        others = window[1 : len(window) - (len(window) + 1) % 2]  # nearest first; an even number beside its own
        moved = [_neighbour(masks[t], masks[other], grey[t], grey[other]) for other in others]
        steady[t] = np.median([masks[t], *moved], axis=0)
    return steady


def _small_grey(frame: np.ndarray) -> np.ndarray:
    """Luminance [h, w] in [0, 1] at the size that motion is estimated at."""
    grey = frame.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32) / 255
    scale = min(1.0, FLOW_SIDE / max(grey.shape))
    return _resize(grey, tuple(max(8, round(side * scale)) for side in grey.shape))


def _neighbour(mask: np.ndarray, other: np.ndarray, here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """The mask [H, W] of another frame, moved to this one; where the pictures [h, w] do not meet, this frame's own."""
    flow = _flow(here, there)
    rows, columns = np.indices(here.shape, dtype=np.float32)
    seen = ndimage.map_coordinates(there, [rows + flow[0], columns + flow[1]], order=1, mode="nearest")
    mean, left = (ndimage.gaussian_filter(p, FLOW_SIGMA) for p in (here, np.square(seen - here)))
    variance = ndimage.gaussian_filter(np.square(here - mean), FLOW_SIGMA)
    found = _resize((left < FOUND * variance + NOISE).astype(np.float32), mask.shape)
    return np.where(found > 0.5, _moved(other, flow), mask)


def _moved(mask: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """mask [H, W] of another frame, seen where it is in this one; flow [2, h, w] in pixels of its own size."""
    height, width = mask.shape
    ratios = np.array([height, width], np.float32) / flow.shape[1:]
    full = np.stack([_resize(part, mask.shape) * ratio for part, ratio in zip(flow, ratios, strict=True)])
    rows, columns = np.indices(mask.shape, dtype=np.float32)
    return ndimage.map_coordinates(mask, [rows + full[0], columns + full[1]], order=1, mode="nearest")


def _flow(here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Where the pixels of one picture [h, w] are in another: flow [2, h, w] with there(x + flow) = here(x).

    Lucas and Kanade's method, from coarse to fine; windows are Gaussian.
    """
    flow = np.zeros((2, 1, 1), np.float32)
    for level in reversed(range(FLOW_LEVELS)):
        shape = tuple(max(8, side >> level) for side in here.shape)
        a, b = _resize(here, shape), _resize(there, shape)
        growth = np.array(shape, np.float32) / flow.shape[1:]
        flow = np.stack([_resize(part, shape) * g for part, g in zip(flow, growth, strict=True)])
        rows, columns = np.indices(shape, dtype=np.float32)
        for _ in range(FLOW_STEPS):
            moved = ndimage.map_coordinates(b, [rows + flow[0], columns + flow[1]], order=1, mode="nearest")
            dy, dx = np.gradient((moved + a) / 2)
            dt = moved - a
            yy, xx, xy, yt, xt = (
                ndimage.gaussian_filter(p, FLOW_SIGMA) for p in (dy * dy, dx * dx, dx * dy, dy * dt, dx * dt)
            )
            yy, xx = yy + 1e-4, xx + 1e-4  # flat windows stay where the coarser level has put them
            determinant = yy * xx - xy * xy
            step = np.stack([xx * yt - xy * xt, yy * xt - xy * yt]) / determinant
            flow = flow - np.clip(step, -2, 2)
    return flow


def _resize(picture: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """[h, w] at another shape, smoothed where it becomes smaller."""
    factors = [new / old for new, old in zip(shape, picture.shape, strict=True)]
    sigma = [0.4 / factor if factor < 1 else 0.0 for factor in factors]
    rows = (np.arange(shape[0]) + 0.5) / factors[0] - 0.5
    columns = (np.arange(shape[1]) + 0.5) / factors[1] - 0.5
    smooth = ndimage.gaussian_filter(picture, sigma) if any(sigma) else picture
    grid = np.meshgrid(rows, columns, indexing="ij")
    return ndimage.map_coordinates(smooth, grid, order=1, mode="nearest")
