"""The kernels of the CPU compositor: 16 x 16 pixel tiles, compiled with numba, forward and backward.

Each tile walks its Gaussians front to back and, for each, the rows of its bounding box; the sixteen pixels
of a row are one vector operation. The backward pass walks the same list in the same order: with d_i the
derivative of the loss along Gaussian i's features and R_i the part of the loss' linearisation that lies
behind it, dL/dalpha_i = T_i d_i - R_i / (1 - alpha_i). Every sum has a fixed order, so results do not
depend on the number of threads. A splat's columns are those of `numba_projection`.

The inner loops store what is new in either case, never what was there: of "a if condition else what was there" LLVM
makes a masked store, which AMD's processors are slow at.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ss4d.compiled import njit
from ss4d.gaussians.backends.numba_projection import FAST, GRADIENT_COLUMNS
from ss4d.gaussians.projection import ALPHA_MAX, TRANSMITTANCE_MIN

Array = NDArray[Any]
Scalar = Any  # a numba scalar: float32 or an integer
TILE = 16  # pixels; one row is one AVX-512 register of float32
CHECK = 8  # a tile looks every so many Gaussians whether all of its pixels are finished
# Row state, sixteen lanes each. First the transmittance of pixels that are not finished, 0 of those that are; then:
FORWARD_ROWS = 6  # ... transmittance of all, red, green, blue, depth
BACKWARD_ROWS = 6  # ... remaining loss, and the four derivatives of the loss by the features
ZERO, ONE, HALF = np.float32(0), np.float32(1), np.float32(0.5)
MAX, STOP = np.float32(ALPHA_MAX), np.float32(TRANSMITTANCE_MIN)


@njit(inline="always", fastmath=FAST)
def exp_negative(x: Scalar) -> Scalar:
    """exp(-x) for 0 <= x < 80 in float32, relative error 2e-7, written so that LLVM can vectorise it."""
    n = np.int32(x * np.float32(1.4426950408889634) + HALF)  # exp(-x) = 2^-n exp(n ln 2 - x)
    r = np.float32(n) * np.float32(0.693359375) - x - np.float32(n) * np.float32(2.12194440e-4)
    p = np.float32(1.0 / 720.0)
    p = p * r + np.float32(1.0 / 120.0)
    p = p * r + np.float32(1.0 / 24.0)
    p = p * r + np.float32(1.0 / 6.0)
    p = p * r + HALF
    p = p * r + ONE
    p = p * r + ONE
    return p * np.int32((np.int32(127) - n) << np.int32(23)).view(np.float32)


@njit(inline="always")
def tile_range(centre: Scalar, extent: Scalar, tiles: int) -> tuple[Scalar, Scalar]:
    """First and one past the last tile that an interval touches; none where extent < 0 or a value is NaN."""
    if not (extent >= ZERO and abs(centre) < np.float32(1e9)):
        return 0, 0
    first = np.int64(min(max((centre - extent) / TILE, ZERO), np.float32(tiles)))
    last = np.int64(min(max((centre + extent) / TILE + 1, ZERO), np.float32(tiles)))
    return first, max(first, last)


def bin_tiles(splats: Array, order: Array, tiles_y: int, tiles_x: int) -> tuple[Array, Array, Array, Array]:
    """List, for each tile, the splats that may touch it, front to back.

    Returns tile_start [tiles + 1], splat_start [M + 1], and for each entry of a tile's list the splat and the
    slot of its gradient; a splat's slots are consecutive, in the order of its tiles.
    """
    ranges = np.empty((len(splats), 4), np.int32)
    tile_start = np.zeros(tiles_y * tiles_x + 1, np.int64)
    count_tiles(splats, tiles_y, tiles_x, ranges, tile_start)
    tile_start.cumsum(out=tile_start)
    splat_start = np.zeros(len(splats) + 1, np.int64)
    np.cumsum((ranges[:, 1] - ranges[:, 0]) * (ranges[:, 3] - ranges[:, 2]), out=splat_start[1:])
    entry_splat, entry_slot = np.empty(tile_start[-1], np.int32), np.empty(tile_start[-1], np.int64)
    fill_tiles(order, ranges, tiles_x, splat_start, tile_start[:-1].copy(), entry_splat, entry_slot)
    return tile_start, splat_start, entry_splat, entry_slot


@njit(cache=True, nogil=True)
def count_tiles(splats: Array, tiles_y: int, tiles_x: int, ranges: Array, tile_start: Array) -> None:
    """Tiles of every splat, ranges [M, 4] of their columns and rows; in tile_start [1 + t] the splats of tile t."""
    for m in range(splats.shape[0]):
        x0, x1 = tile_range(splats[m, 0], splats[m, 7], tiles_x)
        y0, y1 = tile_range(splats[m, 1], splats[m, 8], tiles_y)
        ranges[m, 0], ranges[m, 1], ranges[m, 2], ranges[m, 3] = x0, x1, y0, y1
        for y in range(y0, y1):
            for x in range(x0, x1):
                tile_start[y * tiles_x + x + 1] += 1


@njit(cache=True, nogil=True)
def fill_tiles(
    order: Array, ranges: Array, tiles_x: int, splat_start: Array, cursor: Array, entry_splat: Array, entry_slot: Array
) -> None:
    """Write every splat, in `order`, to the lists of its tiles, whose ends `cursor` [tiles] says."""
    for k in range(order.shape[0]):
        m = order[k]
        slot = splat_start[m]
        for y in range(ranges[m, 2], ranges[m, 3]):
            for x in range(ranges[m, 0], ranges[m, 1]):
                t = y * tiles_x + x
                entry_splat[cursor[t]] = m
                entry_slot[cursor[t]] = slot
                cursor[t] += 1
                slot += 1


@njit(inline="always")
def row_range(centre: Scalar, extent: Scalar, top: int) -> tuple[Scalar, Scalar]:
    """First and one past the last row of a tile, from its top, whose pixel centres an interval touches."""
    first = np.int64(np.ceil(max(centre - extent - HALF - top, ZERO)))
    last = np.int64(min(max(centre + extent + HALF - top, ZERO), np.float32(TILE)))
    return first, last


@njit(inline="always")
def open_lanes(state: Array, rows: int, top: int, left: int, height: int, width: int) -> None:
    """Clear the tile and give its pixels inside the image a transmittance of one."""
    for i in range(TILE * rows * TILE):
        state[i] = ZERO
    for y in range(min(TILE, height - top)):
        for i in range(min(TILE, width - left)):
            state[y * rows * TILE + i] = ONE


@njit(inline="always", fastmath=FAST)
def all_finished(state: Array, rows: int) -> bool:
    """Whether no pixel of a tile goes on."""
    total = ZERO
    for y in range(TILE):
        for lane in range(TILE):
            total += state[np.uint64(y * rows * TILE + lane)]
    return total == ZERO


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def forward_tile(splats: Array, entries: Array, top: int, left: int, image: Array, state: Array) -> None:
    """Composite one tile into image [5, H, W]: four features without background, and transmittance."""
    height, width = image.shape[1:]
    open_lanes(state, FORWARD_ROWS, top, left, height, width)
    for y in range(TILE):
        for lane in range(TILE):
            state[(y * FORWARD_ROWS + 1) * TILE + lane] = ONE
    for k in range(entries.shape[0]):
        if k % CHECK == 0 and all_finished(state, FORWARD_ROWS):
            break
        m = entries[k]
        a, b, c, opacity, cutoff = splats[m, 2], splats[m, 3], splats[m, 4], splats[m, 5], splats[m, 6]
        red, green, blue, depth = splats[m, 9], splats[m, 10], splats[m, 11], splats[m, 12]
        first, last = row_range(splats[m, 1], splats[m, 8], top)
        dx0 = np.float32(left) + HALF - splats[m, 0]
        for y in range(first, last):
            dy = np.float32(top + y) + HALF - splats[m, 1]
            base = np.uint64(y * (FORWARD_ROWS * TILE))
            for lane in range(TILE):
                i = base + np.uint64(lane)  # unsigned, or numba checks for negative indices
                dx = dx0 + np.float32(lane)
                passed = state[i]
                sigma = HALF * (a * dx * dx + c * dy * dy) + b * dx * dy
                alpha = min(MAX, opacity * exp_negative(min(max(sigma, ZERO), np.float32(8))))
                alpha = alpha if sigma <= cutoff else ZERO
                left_over = passed * (ONE - alpha)
                goes_on = left_over >= STOP
                alpha = alpha if goes_on else ZERO
                weight = passed * alpha
                state[i] = left_over if goes_on else ZERO
                state[i + np.uint64(TILE)] *= ONE - alpha
                state[i + np.uint64(2 * TILE)] += weight * red
                state[i + np.uint64(3 * TILE)] += weight * green
                state[i + np.uint64(4 * TILE)] += weight * blue
                state[i + np.uint64(5 * TILE)] += weight * depth
    for y in range(min(TILE, height - top)):
        for x in range(min(TILE, width - left)):
            image[4, top + y, left + x] = state[(y * FORWARD_ROWS + 1) * TILE + x]
            for f in range(4):
                image[f, top + y, left + x] = state[(y * FORWARD_ROWS + 2 + f) * TILE + x]


@njit(cache=True, nogil=True)
def forward(
    first: int, last: int, splats: Array, tile_order: Array, tile_start: Array, entry_splat: Array, image: Array
) -> None:
    """Composite tiles `first` to `last` - 1 of `tile_order` into image [5, H, W]."""
    tiles_x = (image.shape[2] + TILE - 1) // TILE
    state = np.empty(TILE * FORWARD_ROWS * TILE, np.float32)
    for turn in range(first, last):
        t = tile_order[turn]
        entries = entry_splat[tile_start[t] : tile_start[t + 1]]
        forward_tile(splats, entries, t // tiles_x * TILE, t % tiles_x * TILE, image, state)


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def backward_tile(
    splats: Array, entries: Array, slots: Array, top: int, left: int,
    image: Array, grad_image: Array, state: Array, gradient: Array,
) -> None:  # fmt: skip
    """Write gradient[slot] of each entry of one tile, given the image [5, H, W] and its gradient."""
    height, width = image.shape[1:]
    open_lanes(state, BACKWARD_ROWS, top, left, height, width)
    for y in range(min(TILE, height - top)):
        for x in range(min(TILE, width - left)):
            remaining = ZERO
            for f in range(5):
                remaining += image[f, top + y, left + x] * grad_image[f, top + y, left + x]
            state[(y * BACKWARD_ROWS + 1) * TILE + x] = remaining
            for f in range(4):
                state[(y * BACKWARD_ROWS + 2 + f) * TILE + x] = grad_image[f, top + y, left + x]
    for k in range(entries.shape[0]):
        if k % CHECK == 0 and all_finished(state, BACKWARD_ROWS):
            for rest in range(k, entries.shape[0]):
                gradient[slots[rest]] = ZERO
            break
        m = entries[k]
        a, b, c, opacity, cutoff = splats[m, 2], splats[m, 3], splats[m, 4], splats[m, 5], splats[m, 6]
        red, green, blue, depth = splats[m, 9], splats[m, 10], splats[m, 11], splats[m, 12]
        first, last = row_range(splats[m, 1], splats[m, 8], top)
        dx0 = np.float32(left) + HALF - splats[m, 0]
        # Sums over pixels of dL/dsigma times 1, dx, dy, dx^2, dx dy, dy^2, and of weight times dL/dfeature.
        u0, ux, uy, uxx, uxy, uyy = ZERO, ZERO, ZERO, ZERO, ZERO, ZERO
        g0, g1, g2, g3 = ZERO, ZERO, ZERO, ZERO
        for y in range(first, last):
            dy = np.float32(top + y) + HALF - splats[m, 1]
            base = np.uint64(y * (BACKWARD_ROWS * TILE))
            v0, vx, vxx = ZERO, ZERO, ZERO
            for lane in range(TILE):
                i = base + np.uint64(lane)
                dx = dx0 + np.float32(lane)
                passed = state[i]
                sigma = HALF * (a * dx * dx + c * dy * dy) + b * dx * dy
                full = opacity * exp_negative(min(max(sigma, ZERO), np.float32(8)))
                alpha = min(MAX, full)
                alpha = alpha if sigma <= cutoff else ZERO
                left_over = passed * (ONE - alpha)
                goes_on = left_over >= STOP
                alpha = alpha if goes_on else ZERO
                weight = passed * alpha
                state[i] = left_over if goes_on else ZERO
                derivative = (
                    red * state[i + np.uint64(2 * TILE)] + green * state[i + np.uint64(3 * TILE)]
                    + blue * state[i + np.uint64(4 * TILE)] + depth * state[i + np.uint64(5 * TILE)]
                )  # fmt: skip
                behind = state[i + np.uint64(TILE)] - weight * derivative
                state[i + np.uint64(TILE)] = behind
                grad_alpha = passed * derivative - behind / (ONE - alpha)
                u = -alpha * grad_alpha if full < MAX else ZERO
                v0 += u
                vx += u * dx
                vxx += u * dx * dx
                g0 += weight * state[i + np.uint64(2 * TILE)]
                g1 += weight * state[i + np.uint64(3 * TILE)]
                g2 += weight * state[i + np.uint64(4 * TILE)]
                g3 += weight * state[i + np.uint64(5 * TILE)]
            u0 += v0
            ux += vx
            uxx += vxx
            uy += v0 * dy
            uxy += vx * dy
            uyy += v0 * dy * dy
        s = slots[k]
        gradient[s, 0] = -(a * ux + b * uy)
        gradient[s, 1] = -(b * ux + c * uy)
        gradient[s, 2] = HALF * uxx
        gradient[s, 3] = uxy
        gradient[s, 4] = HALF * uyy
        gradient[s, 5] = -u0 / opacity
        gradient[s, 6], gradient[s, 7], gradient[s, 8], gradient[s, 9] = g0, g1, g2, g3


@njit(cache=True, nogil=True)
def backward(
    first: int, last: int, splats: Array, tile_order: Array, tile_start: Array, entry_splat: Array,
    entry_slot: Array, image: Array, grad_image: Array, partial: Array,
) -> None:  # fmt: skip
    """Gradient [slots, 10] of the splats in tiles `first` to `last` - 1: mean, conic, opacity, feature."""
    tiles_x = (image.shape[2] + TILE - 1) // TILE
    state = np.empty(TILE * BACKWARD_ROWS * TILE, np.float32)
    for turn in range(first, last):
        t = tile_order[turn]
        part = slice(tile_start[t], tile_start[t + 1])
        backward_tile(
            splats, entry_splat[part], entry_slot[part], t // tiles_x * TILE, t % tiles_x * TILE,
            image, grad_image, state, partial,
        )  # fmt: skip


@njit(cache=True, nogil=True)
def sum_slots(first: int, last: int, splat_start: Array, partial: Array, gradient: Array) -> None:
    """gradient [M, 10] of splats `first` to `last` - 1: the sum over their slots, in order."""
    for m in range(first, last):
        for s in range(splat_start[m], splat_start[m + 1]):
            for g in range(GRADIENT_COLUMNS):
                gradient[m, g] += partial[s, g]
