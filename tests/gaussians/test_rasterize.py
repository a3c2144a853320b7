"""The rasteriser: known answers, numba against torch, and the CUDA backends where there are any."""

from __future__ import annotations

import dataclasses
import math
import sys
import types
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ss4d.backend import IMPLEMENTATIONS, Implementation
from ss4d.cameras import Camera
from ss4d.gaussians import Gaussians, Rendering, rasterize
from ss4d.gaussians.backends.torch_reference import composite_tile
from ss4d.gaussians.projection import project

FIELDS = ("xyz", "scale", "rotation", "opacity", "sh")
FOCAL = 1.3737387  # 40 degrees
INTRINSICS = torch.tensor([[FOCAL, 0, 0.5], [0, FOCAL, 0.5], [0, 0, 1]])
OFF_CENTRE = torch.tensor([[1.1, 0, 0.3], [0, 1.6, 0.65], [0, 0, 1]])
FRONT = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 2], [0, 0, 0, 1]])  # at (0, -2, 0), looking along +y
CAMERA = Camera(FRONT, INTRINSICS)
BACKGROUND = torch.tensor([0.2, 0.5, 0.9])
BACKENDS = ["numba", "torch"]


def make(xyz: list, scale: list, opacity: list, rgb: list, rotation: list | None = None) -> Gaussians:
    rotation = rotation or [[1.0, 0.0, 0.0, 0.0]] * len(xyz)
    sh = (torch.tensor(rgb) - 0.5) / 0.28209479177387814
    return Gaussians(
        torch.tensor(xyz),
        torch.tensor(scale),
        torch.tensor(rotation),
        torch.tensor(opacity)[:, None],
        sh[:, None],
    )


def random_scene(count: int, scale: float, seed: int = 0) -> Gaussians:
    """Of all kinds: needles and giants, opaque and invisible, behind the camera and outside the image."""
    g = torch.Generator().manual_seed(seed)
    xyz = 0.3 * torch.randn(count, 3, generator=g)
    xyz[::17, 1] -= 2.0  # around the camera, half of them behind it
    xyz[::19] *= 10
    sizes = scale * torch.exp(torch.randn(count, 3, generator=g))
    sizes[::23] *= 20
    sizes[::29] *= 0.01
    rotation = torch.nn.functional.normalize(torch.randn(count, 4, generator=g), dim=1)
    opacity = torch.sigmoid(3 * torch.randn(count, 1, generator=g))
    opacity[::31] = 1.0
    opacity[::37] = 1e-4
    return Gaussians(xyz, sizes, rotation, opacity, 1.5 * torch.randn(count, 1, 3, generator=g))


def render_with_gradients(
    gaussians: Gaussians,
    height: int,
    width: int,
    backend: str,
    intrinsics: Tensor = INTRINSICS,
    device: str = "cpu",
) -> tuple[Rendering, dict[str, Tensor]]:
    """A rendering and the gradients of a random linear function of it."""
    leaves = {name: getattr(gaussians, name).detach().clone().to(device).requires_grad_() for name in FIELDS}
    background = BACKGROUND.clone().to(device).requires_grad_()
    rendering = rasterize(Gaussians(**leaves), Camera(FRONT, intrinsics), (height, width), background, backend)
    g = torch.Generator().manual_seed(9)
    weights = [torch.randn(image.shape, generator=g).to(device) for image in images(rendering)]
    sum((image * weight).sum() for image, weight in zip(images(rendering), weights, strict=True)).backward()  # type: ignore[union-attr]
    gradients = {name: leaf.grad.cpu() for name, leaf in leaves.items() if leaf.grad is not None}
    assert background.grad is not None
    return Rendering(*(i.detach().cpu() for i in images(rendering))), {
        **gradients,
        "background": background.grad.cpu(),
    }


def images(rendering: Rendering) -> tuple[Tensor, ...]:
    """Colour, alpha and depth."""
    return rendering.colour, rendering.alpha, rendering.depth


def assert_close_but_for_thresholds(actual: Tensor, expected: Tensor, tolerance: float, flip: float) -> None:
    """Within `tolerance`, but for one value in a thousand (or two pixels) that rounding moved across a threshold."""
    assert actual.shape == expected.shape
    error = (actual - expected).abs()
    assert int((error > tolerance).sum()) <= max(6, error.numel() // 1000), f"largest error {error.max():.2e}"
    assert float(error.max()) <= flip


# Known answers.


@pytest.mark.parametrize("kernel_size", [0.1, 0.5])
@pytest.mark.parametrize("backend", BACKENDS)
def test_isotropic_gaussian_has_the_closed_form(backend: str, kernel_size: float) -> None:
    size, scale, opacity, rgb = 33, 0.05, 0.8, [0.9, 0.4, 0.1]
    g = dataclasses.replace(make([[0.0, 0.0, 0.0]], [[scale] * 3], [opacity], [rgb]), kernel_size=kernel_size)
    image = rasterize(g, CAMERA, size, BACKGROUND, backend)
    variance = (FOCAL * size * scale / 2) ** 2  # pixels^2, at depth 2
    peak = opacity * variance / (variance + kernel_size)  # sqrt of a determinant of two equal axes
    for dx, dy in ((0, 0), (1, 0), (-2, 3)):
        alpha = peak * math.exp(-0.5 * (dx * dx + dy * dy) / (variance + kernel_size))
        assert image.alpha[0, 16 + dy, 16 + dx].item() == pytest.approx(alpha, rel=1e-5)
        assert image.depth[0, 16 + dy, 16 + dx].item() == pytest.approx(2 * alpha, rel=1e-5)
        expected = alpha * torch.tensor(rgb) + (1 - alpha) * BACKGROUND
        torch.testing.assert_close(image.colour[:, 16 + dy, 16 + dx], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_second_moments_are_the_projected_covariance(backend: str) -> None:
    # A needle along world x, turned by 30 degrees about the line of sight (y), seen well inside the image.
    half = math.radians(30) / 2
    g = make([[0.0, 0.0, 0.0]], [[0.12, 0.03, 0.03]], [1.0], [[1.0] * 3], [[math.cos(half), 0, math.sin(half), 0]])
    size = 121
    alpha = rasterize(g, CAMERA, size, BACKGROUND, backend).alpha[0].double()
    x = torch.arange(size, dtype=torch.float64) + 0.5 - size / 2
    weight = torch.where(alpha > 0, alpha, 0) / alpha.sum()
    xx, xy, yy = (weight * x**2).sum(), (weight * x * x[:, None]).sum(), (weight * x[:, None] ** 2).sum()
    # Rotating (1, 0, 0) by +30 degrees about y gives (cos, 0, -sin): down in the world, so +y in the image.
    direction = math.degrees(0.5 * math.atan2(2 * xy, xx - yy))
    assert direction == pytest.approx(30, abs=0.1)
    pixels = FOCAL * size / 2
    assert float(xx + yy) == pytest.approx((0.12**2 + 0.03**2) * pixels**2 + 0.2, rel=0.05)  # the tails are cut off


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("swap", [False, True])
def test_the_nearer_gaussian_is_in_front(backend: str, swap: bool) -> None:
    near, far = ([0.0, -0.2, 0.0], 0.6, [1.0, 0.0, 0.0]), ([0.0, 0.2, 0.0], 0.9, [0.0, 1.0, 0.0])
    order = [far, near] if swap else [near, far]
    g = make([o[0] for o in order], [[0.2] * 3] * 2, [o[1] for o in order], [o[2] for o in order])
    image = rasterize(g, CAMERA, 65, BACKGROUND, backend)

    def alpha(opacity: float, depth: float) -> float:
        variance = (FOCAL * 65 * 0.2 / depth) ** 2
        return opacity * variance / (variance + 0.1)

    first, second = alpha(0.6, 1.8), alpha(0.9, 2.2)
    expected = [first, (1 - first) * second, 0.0] + (1 - first) * (1 - second) * BACKGROUND.numpy()
    torch.testing.assert_close(image.colour[:, 32, 32], torch.tensor(expected).float(), atol=1e-5, rtol=1e-5)
    depth = first * 1.8 + (1 - first) * second * 2.2
    assert image.depth[0, 32, 32].item() == pytest.approx(depth, rel=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_depths_keep_their_order(backend: str) -> None:
    g = make([[0.0, 0.0, 0.0]] * 2, [[0.2] * 3] * 2, [0.9] * 2, [[1.0, 0, 0], [0, 1.0, 0]])
    red, green, _ = rasterize(g, CAMERA, 9, torch.zeros(3), backend).colour[:, 4, 4]
    assert red > 5 * green > 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_thresholds(backend: str) -> None:
    def alpha(opacities: list[float], y: float = 0.0) -> float:
        count = len(opacities)
        g = make([[0.0, y, 0.0]] * count, [[0.5] * 3] * count, opacities, [[1.0] * 3] * count)
        return rasterize(g, CAMERA, 5, BACKGROUND, backend).alpha[0, 2, 2].item()

    assert alpha([1.1]) == pytest.approx(0.999, abs=1e-6)  # never fully opaque
    assert alpha([1.1, 1.1]) == pytest.approx(0.999, abs=1e-6)  # the second would leave less than 1e-4
    assert alpha([1.1, 0.5]) == pytest.approx(1 - 0.001 * 0.5, abs=1e-4)
    assert alpha([0.9 / 255]) == 0  # too faint
    assert alpha([1.1 / 255]) > 1 / 255
    assert alpha([0.5], y=-1.995) == 0 and alpha([0.5], y=-3.0) == 0  # nearer than 0.01, and behind


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_gaussians_leave_the_background(backend: str) -> None:
    g = make([[0.0] * 3], [[0.1] * 3], [0.5], [[1.0] * 3])
    leaves = {name: getattr(g, name)[:0].requires_grad_() for name in FIELDS}
    image = rasterize(Gaussians(**leaves), CAMERA, (20, 30), BACKGROUND, backend)
    torch.testing.assert_close(image.colour, BACKGROUND[:, None, None].expand(3, 20, 30), atol=0, rtol=0)
    assert image.alpha.shape == image.depth.shape == (1, 20, 30)
    assert not image.alpha.any() and not image.depth.any()
    image.colour.sum().backward()
    assert all(leaf.grad is not None and leaf.grad.shape == leaf.shape for leaf in leaves.values())


def test_tiles_never_change_the_result() -> None:
    g = random_scene(300, 0.05, seed=3)
    image = rasterize(g, Camera(FRONT, OFF_CENTRE), (40, 56), BACKGROUND, "torch")
    splats = project(g, Camera(FRONT, OFF_CENTRE), 40, 56)
    order = torch.argsort(splats.feature[3], stable=True)
    whole = composite_tile(splats, order[(splats.extent[0] >= 0)[order]], 0, 40, 0, 56)
    torch.testing.assert_close(image.depth[0], whole[3], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(image.alpha[0], 1 - whole[4], atol=1e-6, rtol=0)


# The two CPU backends, and derivatives.


@pytest.mark.parametrize(
    ("count", "scale", "height", "width", "intrinsics"),
    [
        (400, 0.03, 48, 64, INTRINSICS),
        (400, 0.05, 33, 50, OFF_CENTRE),
        (1500, 0.008, 70, 17, INTRINSICS),
        (40, 0.3, 16, 16, OFF_CENTRE),
        (1, 0.1, 1, 1, INTRINSICS),
    ],
)
def test_numba_equals_torch(count: int, scale: float, height: int, width: int, intrinsics: Tensor) -> None:
    g = random_scene(count, scale)
    rendering, gradients = render_with_gradients(g, height, width, "numba", intrinsics)
    reference, expected_gradients = render_with_gradients(g, height, width, "torch", intrinsics)
    for name in ("colour", "alpha", "depth"):
        bound = float(reference.depth.max()) if name == "depth" else float(g.rgb.max())
        assert_close_but_for_thresholds(getattr(rendering, name), getattr(reference, name), 1e-5, flip=bound / 200)
    assert gradients.keys() == expected_gradients.keys() == {*FIELDS, "background"}
    for name, expected in expected_gradients.items():
        largest = float(expected.abs().max())
        assert_close_but_for_thresholds(gradients[name], expected, 1e-4 * largest, flip=0.01 * largest + 1e-12)


def test_torch_derivatives_are_right() -> None:
    g = random_scene(4, 0.1, seed=5)
    g.xyz[0] = torch.tensor([0.1, 0.0, 0.1])  # the first would be near the camera
    leaves = [getattr(g, name).double().requires_grad_() for name in FIELDS]
    background = BACKGROUND.double().requires_grad_()

    def function(*inputs: Tensor) -> tuple[Tensor, ...]:
        return images(rasterize(Gaussians(*inputs[:-1]), CAMERA, (5, 4), inputs[-1], "torch"))

    assert torch.autograd.gradcheck(function, (*leaves, background), eps=1e-7, atol=1e-5)


def test_values_that_are_not_numbers_hurt_only_themselves() -> None:
    g = random_scene(50, 0.05)
    image = rasterize(g, CAMERA, 32, BACKGROUND)
    broken = make([[float("nan"), 0.0, 0.0], [0.0, float("nan"), 0.0]], [[0.1] * 3] * 2, [0.5] * 2, [[1.0] * 3] * 2)
    both = Gaussians(*(torch.cat([getattr(g, name), getattr(broken, name)]) for name in FIELDS))
    torch.testing.assert_close(images(rasterize(both, CAMERA, 32, BACKGROUND)), images(image), atol=0, rtol=0)


# The door.


def test_bad_input_is_one_clear_sentence() -> None:
    g = make([[0.0] * 3], [[0.1] * 3], [0.5], [[1.0] * 3])
    good: dict[str, Any] = {"camera": CAMERA, "size": 8, "background": BACKGROUND, "backend": None}
    cases: dict[str, dict[str, Any]] = {
        "background must have shape": {"background": torch.zeros(1)},
        "at least one pixel": {"size": (8, 0)},
        "backend.rasterizer = 'cuda'": {"backend": "cuda"},
    }
    for message, change in cases.items():
        with pytest.raises(ValueError, match=message):
            rasterize(g, **{**good, **change})
    with pytest.raises(ValueError, match=r"Camera.extrinsics must have shape"):
        Camera(FRONT[:3], INTRINSICS)
    with pytest.raises(ValueError, match="kernel_size must be positive"):
        dataclasses.replace(g, kernel_size=0.0)
    with pytest.raises(ValueError, match="No rasterizer runs on device 'meta'"):
        rasterize(g.to("meta"), **good)
    double = Gaussians(*(getattr(g, name).double() for name in FIELDS))
    with pytest.raises(ValueError, match="'numba' takes float32 Gaussians, but these are float64"):
        rasterize(double, **good)
    with pytest.raises(ValueError, match="'torch' takes float32 Gaussians, but these are float16 and float32"):
        rasterize(dataclasses.replace(g, opacity=g.opacity.half()), **{**good, "backend": "torch"})


@pytest.mark.parametrize("backend", BACKENDS)
def test_sizes_of_numpy_and_cameras_with_gradients_are_taken(backend: str) -> None:
    g = random_scene(20, 0.1)
    camera = Camera(FRONT.clone().requires_grad_(), INTRINSICS.clone().requires_grad_())
    image = rasterize(g, camera, np.int64(12), BACKGROUND, backend)  # type: ignore[arg-type]
    torch.testing.assert_close(image.colour, rasterize(g, CAMERA, 12, BACKGROUND, backend).colour)


def test_autocast_ends_before_the_rasteriser() -> None:
    g = random_scene(60, 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        image = rasterize(g, CAMERA, 24, BACKGROUND, "torch")
    torch.testing.assert_close(image.colour, rasterize(g, CAMERA, 24, BACKGROUND, "torch").colour)


@pytest.mark.parametrize("kernel_size", [1.0, 0.1, 1e-4, 1e-6])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_gaussian_without_size_is_not_seen_whatever_the_filter(backend: str, kernel_size: float) -> None:
    g = dataclasses.replace(make([[0.0] * 3], [[0.0] * 3], [0.9], [[1.0] * 3]), kernel_size=kernel_size)
    assert rasterize(g, CAMERA, 9, BACKGROUND, backend).alpha.max() == 0


# CUDA.


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("backend", "package"), [("gsplat", "gsplat"), ("inria", "diff_gaussian_rasterization")])
def test_cuda_backends_equal_torch(backend: str, package: str) -> None:
    pytest.importorskip(package)
    g = random_scene(2000, 0.02)
    near = (g.xyz[:, 1] + 2 < 0.3) | (g.opacity[:, 0] > 0.98)  # where near plane and alpha bound may differ
    g = Gaussians(*(getattr(g, name)[~near] for name in FIELDS))
    rendering, gradients = render_with_gradients(g, 96, 112, backend, device="cuda")
    reference, expected_gradients = render_with_gradients(g, 96, 112, "torch")
    for image, expected in zip(images(rendering), images(reference), strict=True):
        assert_close_but_for_thresholds(image, expected, 2e-4, flip=0.05)
    for name, expected in expected_gradients.items():
        largest = float(expected.abs().max())
        assert_close_but_for_thresholds(gradients[name], expected, 1e-3 * largest, flip=0.05 * largest)


def test_inria_adapter_speaks_the_interface(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in with mip-splatting's call interface that draws each Gaussian as one opaque pixel."""

    class Rasterizer:
        def __init__(self, raster_settings: types.SimpleNamespace) -> None:
            self.settings = raster_settings

        def __call__(self, means3D: Tensor, colors_precomp: Tensor, rotations: Tensor, **_: Any) -> tuple[Tensor, None]:
            s = self.settings
            image = s.bg[:, None, None].repeat(1, s.image_height, s.image_width)
            clip = torch.nn.functional.pad(means3D, (0, 1), value=1.0) @ s.projmatrix
            size = torch.tensor([s.image_width, s.image_height])
            column, row = ((clip[:, :2] / clip[:, 3:] + 1) * size / 2).long().T
            torch.testing.assert_close(rotations.norm(dim=1), torch.ones(len(rotations)))  # it takes no others
            image[:, row, column] = colors_precomp.T
            return image, None

    module = types.ModuleType("diff_gaussian_rasterization")
    module.GaussianRasterizer = Rasterizer  # type: ignore[attr-defined]
    module.GaussianRasterizationSettings = lambda **kwargs: types.SimpleNamespace(**kwargs)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(IMPLEMENTATIONS["rasterizer"], "inria", Implementation(module.__name__))  # on a CPU too
    g = make([[0.1, 0.3, 0.2]], [[0.01] * 3], [1.0], [[1.0, 0.25, 0.5]])
    image = rasterize(g, Camera(FRONT, OFF_CENTRE), (40, 50), BACKGROUND, "inria")
    column, row = int((1.1 * 0.1 / 2.3 + 0.3) * 50), int((1.6 * -0.2 / 2.3 + 0.65) * 40)
    torch.testing.assert_close(image.colour[:, row, column], torch.tensor([1.0, 0.25, 0.5]))
    assert image.alpha.nonzero().tolist() == [[0, row, column]]
    assert image.depth[0, row, column].item() == pytest.approx(2.3)
    torch.testing.assert_close(image.colour[:, 0, 0], BACKGROUND)
