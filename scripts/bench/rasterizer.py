"""Time the rasteriser, forward and backward, on a sphere of Gaussians as a decoder makes them.

    python -m scripts.bench rasterizer --gaussians 32000 --size 256 --backends numba torch

Prints how much compositing the scene asks for, then for each backend the first call, and the median and the
fastest of the repeats, in milliseconds.
"""

from __future__ import annotations

import statistics
import time
from argparse import Namespace

import torch

from ss4d.cameras import orbit_camera
from ss4d.gaussians import Gaussians, rasterize
from ss4d.gaussians.projection import Splats, project

TILE = 16  # pixels; the compositors work on rows of a tile
FLOPS_FORWARD, FLOPS_BACKWARD = 35, 65  # per pixel of a row, counted in the two kernels, exponential included


def sphere(count: int, scale: float) -> list[torch.Tensor]:
    """Fields of `count` Gaussians of standard deviation about `scale` around a sphere of radius 0.35."""
    g = torch.Generator().manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=1)
    return [
        0.35 * direction + 0.01 * torch.randn(count, 3, generator=g),
        scale * torch.exp(0.4 * torch.randn(count, 3, generator=g)),
        torch.nn.functional.normalize(torch.randn(count, 4, generator=g), dim=1),
        torch.sigmoid(2 * torch.randn(count, 1, generator=g)),
        torch.randn(count, 1, 3, generator=g),
    ]


def tile_rows(splats: Splats, size: int) -> int:
    """How many rows of sixteen pixels the splats' bounding boxes cover, over all tiles."""
    low, high = (splats.mean - splats.extent).clamp(0, size), (splats.mean + splats.extent).clamp(0, size)
    columns = (high[0] / TILE).ceil() - (low[0] / TILE).floor()
    rows = (high[1] - low[1]).round()
    return int((columns * rows * (splats.extent[0] >= 0)).sum())


def run(options: Namespace) -> None:
    camera = orbit_camera(30, 20)
    leaves = [field.to(options.device).requires_grad_() for field in sphere(options.gaussians, options.scale)]
    gaussians, size = Gaussians(*leaves), options.size
    background = torch.ones(3, device=options.device)
    weight = torch.randn(3, size, size, generator=torch.Generator().manual_seed(1)).to(options.device)

    splats = project(gaussians.detach().to("cpu"), camera, size, size)
    rows = tile_rows(splats, size)
    forward, backward = (rows * TILE * flops / 1e9 for flops in (FLOPS_FORWARD, FLOPS_BACKWARD))
    print(f"{options.gaussians} Gaussians, {size} x {size} pixels, {torch.get_num_threads()} threads: ", end="")
    print(f"at most {rows} rows of {TILE} pixels, {forward:.2f} + {backward:.2f} GFLOP of compositing")

    def synchronise() -> float:
        if options.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()

    for backend in options.backends:
        timings: list[tuple[float, float]] = []
        for _ in range(options.repeats + 1):
            start = synchronise()
            image = rasterize(gaussians, camera, size, background, backend)
            middle = synchronise()
            torch.autograd.grad(image.colour, leaves, weight)
            timings.append((1e3 * (middle - start), 1e3 * (synchronise() - middle)))
        first, rest = timings[0], timings[1:]
        total = [sum(pair) for pair in rest]
        print(
            f"{backend:>7}: first {sum(first):8.1f} ms, then "
            f"forward {statistics.median(f for f, _ in rest):7.2f}, "
            f"backward {statistics.median(b for _, b in rest):7.2f}, "
            f"both {statistics.median(total):7.2f} (fastest {min(total):.2f}) ms"
        )
