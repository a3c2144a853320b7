from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from ss4d.metrics import optical_flow as module
from ss4d.metrics.optical_flow import optical_flow

SIDE = 128


def texture() -> Tensor:
    """[3, SIDE, SIDE] random, of details from three pixels on, periodic."""
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(3, SIDE, SIDE)
    for width in (3, 7, 15):
        noise = torch.rand(3, SIDE, SIDE, generator=generator)
        for _ in range(3):
            padded = torch.nn.functional.pad(noise[None], (width // 2,) * 4, mode="circular")
            noise = avg_pool2d(padded, width, 1)[0]
        total += (noise - noise.mean()) / noise.std()
    return (0.5 + 0.1 * total).clamp(0, 1)


def moved(image: Tensor, x: float, y: float) -> Tensor:
    """Shifted by a phase in the frequency domain, exactly and by any part of a pixel."""
    frequency = torch.fft.fftfreq(SIDE)
    phase = torch.exp(-2j * torch.pi * (frequency[:, None] * y + frequency * x))
    return torch.fft.ifft2(torch.fft.fft2(image) * phase).real


@pytest.mark.parametrize("shift", [(0.5, 0.0), (2.3, -1.1), (5.2, 3.7)])
def test_the_flow_of_a_shift_is_the_shift_and_stays_it(shift: tuple[float, float], monkeypatch: pytest.MonkeyPatch):
    first = texture()
    second = moved(first, *shift)
    for iterations in (6, 24):  # errors do not grow with them
        monkeypatch.setattr(module, "ITERATIONS", iterations)
        error = optical_flow(first[None], second[None])[0] - torch.tensor(shift)[:, None, None]
        inside = error[:, 16:-16, 16:-16].norm(dim=0)
        assert float(inside.mean()) < 0.05 and float(inside.max()) < 0.3


def test_what_has_no_texture_is_taken_to_rest():
    plain = torch.full((1, 3, 64, 64), 0.4)
    assert not optical_flow(plain, plain).any()
