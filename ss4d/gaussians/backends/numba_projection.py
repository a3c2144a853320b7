"""`ss4d.gaussians.projection.project` and its derivative, compiled: one pass over the Gaussians each.

In plain PyTorch the projection is a hundred small operations and takes as long as the compositing; worse,
each is a barrier between threads, which on a busy machine costs milliseconds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ss4d.cameras import Camera
from ss4d.compiled import njit
from ss4d.gaussians.gaussians import SH_DEGREE_0
from ss4d.gaussians.projection import ALPHA_MIN, COMPENSATION_MIN, NEAR, jacobian_limits

Array = NDArray[Any]
Scalar = Any  # a float32 inside the kernels
Vector = tuple[Scalar, Scalar, Scalar]
F = np.float32
SPLAT_COLUMNS = 13  # mean 0-1, conic 2-4, opacity 5, cutoff 6, extent 7-8, feature 9-12
GRADIENT_COLUMNS = 10  # mean 0-1, conic 2-4, opacity 5, feature 6-9
# Multiply-adds may be fused and sums reordered into lanes; NaN and infinity keep their meaning.
FAST = {"contract", "reassoc", "nsz", "arcp"}


def pack_camera(camera: Camera, height: int, width: int, kernel_size: float) -> Array:
    """The numbers that the kernels below read: [3, 8] float32.

    Rows are the camera's axes: rotation 0-2, translation 3, focal length 4 and centre 5 in pixels, the
    limits 6-7 of the slope at which the Jacobian is taken; the third row has the kernel size at 4.
    """
    packed, intrinsics = np.zeros((3, 8), np.float32), camera.intrinsics.detach()
    packed[:, :4] = camera.extrinsics[:3].detach().numpy()
    size = np.array([width, height], np.float32)
    packed[:2, 4] = intrinsics.diagonal()[:2].numpy() * size
    packed[:2, 5] = intrinsics[:2, 2].numpy() * size
    packed[:2, 6:] = jacobian_limits(intrinsics).numpy()
    packed[2, 4] = kernel_size
    return packed


@njit(fastmath=FAST)
def dot(u: Vector, v: Vector) -> Scalar:
    return u[0] * v[0] + u[1] * v[1] + u[2] * v[2]


@njit(fastmath=FAST)
def cross(u: Vector, v: Vector) -> Vector:
    return u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]


@njit(fastmath=FAST)
def combine(a: Scalar, u: Vector, b: Scalar, v: Vector) -> Vector:
    """a u + b v."""
    return a * u[0] + b * v[0], a * u[1] + b * v[1], a * u[2] + b * v[2]


@njit(fastmath=FAST)
def times(u: Vector, v: Vector) -> Vector:
    return u[0] * v[0], u[1] * v[1], u[2] * v[2]


@njit(fastmath=FAST, error_model="numpy")
def unit(quaternion: Array) -> tuple[Scalar, Scalar, Scalar, Scalar, Scalar]:
    """The unit quaternion (w, x, y, z) and the inverse of the given one's length."""
    w, x, y, z = quaternion[0], quaternion[1], quaternion[2], quaternion[3]
    inverse = F(1) / np.sqrt(max(w * w + x * x + y * y + z * z, F(1e-20)))
    return w * inverse, x * inverse, y * inverse, z * inverse, inverse


@njit(fastmath=FAST)
def axes_in_camera(camera: Array, w: Scalar, x: Scalar, y: Scalar, z: Scalar) -> tuple[Vector, Vector, Vector]:
    """The three rows of W R(q): what each camera axis sees of the principal axes."""
    r0 = (F(1) - F(2) * (y * y + z * z), F(2) * (x * y - w * z), F(2) * (x * z + w * y))
    r1 = (F(2) * (x * y + w * z), F(1) - F(2) * (x * x + z * z), F(2) * (y * z - w * x))
    r2 = (F(2) * (x * z - w * y), F(2) * (y * z + w * x), F(1) - F(2) * (x * x + y * y))
    b0 = combine(F(1), combine(camera[0, 0], r0, camera[0, 1], r1), camera[0, 2], r2)
    b1 = combine(F(1), combine(camera[1, 0], r0, camera[1, 1], r1), camera[1, 2], r2)
    b2 = combine(F(1), combine(camera[2, 0], r0, camera[2, 1], r1), camera[2, 2], r2)
    return b0, b1, b2


@njit(fastmath=FAST)
def camera_point(camera: Array, p: Array) -> Vector:
    """W p + t."""
    return (
        camera[0, 0] * p[0] + camera[0, 1] * p[1] + camera[0, 2] * p[2] + camera[0, 3],
        camera[1, 0] * p[0] + camera[1, 1] * p[1] + camera[1, 2] * p[2] + camera[1, 3],
        camera[2, 0] * p[0] + camera[2, 1] * p[1] + camera[2, 2] * p[2] + camera[2, 3],
    )


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def project(
    first: int, last: int, camera: Array, xyz: Array, scale: Array, rotation: Array, opacity: Array, sh: Array,
    splats: Array,
) -> None:  # fmt: skip
    """Splats [M, 13] of Gaussians `first` to `last` - 1 of [M, 3], [M, 3], [M, 4], [M, 1], [M, 1, 3]."""
    kernel = camera[2, 4]
    floor = (F(COMPENSATION_MIN) * kernel) ** 2
    for m in range(first, last):
        x, y, z = camera_point(camera, xyz[m])
        visible = z > F(NEAR)
        z = z if visible else F(1)
        qw, qx, qy, qz, _ = unit(rotation[m])
        b0, b1, b2 = axes_in_camera(camera, qw, qx, qy, qz)
        s = (scale[m, 0], scale[m, 1], scale[m, 2])
        slope_x, slope_y = (
            min(max(x / z, camera[0, 6]), camera[0, 7]),
            min(max(y / z, camera[1, 6]), camera[1, 7]),
        )
        u = times(s, combine(camera[0, 4] / z, b0, -slope_x * camera[0, 4] / z, b2))
        v = times(s, combine(camera[1, 4] / z, b1, -slope_y * camera[1, 4] / z, b2))
        xx, xy, yy, normal = dot(u, u), dot(u, v), dot(v, v), cross(u, v)
        before = dot(normal, normal)
        after = before + kernel * (xx + yy) + kernel * kernel
        compensated = opacity[m, 0] * np.sqrt(max(before, floor) / after)
        cutoff = np.log(compensated / F(ALPHA_MIN))
        drawn = visible and cutoff >= F(0)
        splats[m, 0] = camera[0, 4] * (x / z) + camera[0, 5]
        splats[m, 1] = camera[1, 4] * (y / z) + camera[1, 5]
        splats[m, 2], splats[m, 3], splats[m, 4] = (yy + kernel) / after, -xy / after, (xx + kernel) / after
        splats[m, 5], splats[m, 6] = compensated, cutoff
        splats[m, 7] = F(1.01) * np.sqrt(F(2) * cutoff * (xx + kernel)) if drawn else F(-1)
        splats[m, 8] = F(1.01) * np.sqrt(F(2) * cutoff * (yy + kernel)) if drawn else F(-1)
        for c in range(3):
            splats[m, 9 + c] = max(F(0.5) + F(SH_DEGREE_0) * sh[m, 0, c], F(0))
        splats[m, 12] = z


@njit(cache=True, nogil=True, fastmath=FAST, error_model="numpy")
def project_backward(
    first: int, last: int, camera: Array, xyz: Array, scale: Array, rotation: Array, opacity: Array, splats: Array,
    gradient: Array, grad_xyz: Array, grad_scale: Array, grad_rotation: Array, grad_opacity: Array, grad_sh: Array,
) -> None:  # fmt: skip
    """Gradients of xyz, scale, rotation, opacity and sh of Gaussians `first` to `last` - 1, from those of the splats
    [M, 10], into arrays of zeros."""
    kernel = camera[2, 4]
    floor = (F(COMPENSATION_MIN) * kernel) ** 2
    for m in range(first, last):
        if splats[m, 7] < F(0):
            continue
        # The forward pass again.
        x, y, z = camera_point(camera, xyz[m])
        qw, qx, qy, qz, inverse = unit(rotation[m])
        b0, b1, b2 = axes_in_camera(camera, qw, qx, qy, qz)
        s = (scale[m, 0], scale[m, 1], scale[m, 2])
        slope_x, slope_y = (
            min(max(x / z, camera[0, 6]), camera[0, 7]),
            min(max(y / z, camera[1, 6]), camera[1, 7]),
        )
        focal_x, focal_y = camera[0, 4] / z, camera[1, 4] / z
        u_axis, v_axis = (
            combine(focal_x, b0, -slope_x * focal_x, b2),
            combine(focal_y, b1, -slope_y * focal_y, b2),
        )
        u, v = times(s, u_axis), times(s, v_axis)
        normal = cross(u, v)
        before = dot(normal, normal)
        after = before + kernel * (dot(u, u) + dot(v, v)) + kernel * kernel

        # Conic and compensation, to the rows u, v of the map to the screen. With n = u x v,
        # d(n . n) = 2 du . (v x n) + 2 dv . (n x u).
        g_a, g_b, g_c = gradient[m, 2], gradient[m, 3], gradient[m, 4]
        g_opacity = gradient[m, 5] * splats[m, 5]  # dL/d ln(compensated opacity)
        g_after = -(g_a * splats[m, 2] + g_b * splats[m, 3] + g_c * splats[m, 4] + F(0.5) * g_opacity) / after
        g_before = g_after + (F(0.5) * g_opacity / before if before > floor else F(0))
        g_xx, g_xy, g_yy = g_c / after + kernel * g_after, -g_b / after, g_a / after + kernel * g_after
        g_u = combine(F(1), combine(F(2) * g_xx, u, g_xy, v), F(2) * g_before, cross(v, normal))
        g_v = combine(F(1), combine(F(2) * g_yy, v, g_xy, u), F(2) * g_before, cross(normal, u))

        # Position: through the mean, the slopes of the Jacobian (unless held at their limit) and the depth.
        h_u, h_v = times(s, g_u), times(s, g_v)  # by the unscaled rows
        g_slope_x, g_slope_y = camera[0, 4] * gradient[m, 0], camera[1, 4] * gradient[m, 1]
        if camera[0, 6] < x / z < camera[0, 7]:
            g_slope_x -= focal_x * dot(b2, h_u)
        if camera[1, 6] < y / z < camera[1, 7]:
            g_slope_y -= focal_y * dot(b2, h_v)
        g_x, g_y = g_slope_x / z, g_slope_y / z
        g_z = gradient[m, 9] - (g_slope_x * x / z + g_slope_y * y / z + dot(u, g_u) + dot(v, g_v)) / z
        for c in range(3):
            grad_xyz[m, c] = camera[0, c] * g_x + camera[1, c] * g_y + camera[2, c] * g_z
            grad_scale[m, c] = u_axis[c] * g_u[c] + v_axis[c] * g_v[c]
            grad_sh[m, 0, c] = F(SH_DEGREE_0) * gradient[m, 6 + c] if splats[m, 9 + c] > F(0) else F(0)
        grad_opacity[m, 0] = g_opacity / opacity[m, 0]

        # Rotation: h_0, h_1, h_2 by the rows of W R, then d by those of R, then the unit quaternion.
        h0 = combine(focal_x, h_u, F(0), h_v)
        h1 = combine(focal_y, h_v, F(0), h_u)
        h2 = combine(-slope_x * focal_x, h_u, -slope_y * focal_y, h_v)
        d0 = combine(F(1), combine(camera[0, 0], h0, camera[1, 0], h1), camera[2, 0], h2)
        d1 = combine(F(1), combine(camera[0, 1], h0, camera[1, 1], h1), camera[2, 1], h2)
        d2 = combine(F(1), combine(camera[0, 2], h0, camera[1, 2], h1), camera[2, 2], h2)
        g_qw = qx * (d2[1] - d1[2]) + qy * (d0[2] - d2[0]) + qz * (d1[0] - d0[1])
        g_qx = qy * (d0[1] + d1[0]) + qz * (d0[2] + d2[0]) + qw * (d2[1] - d1[2]) - F(2) * qx * (d1[1] + d2[2])
        g_qy = qx * (d0[1] + d1[0]) + qz * (d1[2] + d2[1]) + qw * (d0[2] - d2[0]) - F(2) * qy * (d0[0] + d2[2])
        g_qz = qx * (d0[2] + d2[0]) + qy * (d1[2] + d2[1]) + qw * (d1[0] - d0[1]) - F(2) * qz * (d0[0] + d1[1])
        along = qw * g_qw + qx * g_qx + qy * g_qy + qz * g_qz  # normalisation leaves only what is across
        grad_rotation[m, 0] = F(2) * inverse * (g_qw - along * qw)
        grad_rotation[m, 1] = F(2) * inverse * (g_qx - along * qx)
        grad_rotation[m, 2] = F(2) * inverse * (g_qy - along * qy)
        grad_rotation[m, 3] = F(2) * inverse * (g_qz - along * qz)
