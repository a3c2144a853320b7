"""Embeddings at known answers."""

from __future__ import annotations

import math

import torch

from ss4d.nn import FrameRotation, TimestepEmbedder, absolute_position_embedding


def test_rotation_turns_each_pair_by_its_frequency():
    frames, x = torch.tensor([0, 1, 5]), torch.randn(3, 2, 4)
    turned = FrameRotation(frames, 4, base=100.0)(x)
    torch.testing.assert_close(turned[0], x[0])  # frame 0 is the identity
    for row, frame in enumerate(frames.tolist()):
        for pair, frequency in enumerate((1.0, 0.1)):
            angle = torch.tensor(frame * frequency)
            a, b = x[row, :, 2 * pair], x[row, :, 2 * pair + 1]
            torch.testing.assert_close(turned[row, :, 2 * pair], a * angle.cos() - b * angle.sin())
            torch.testing.assert_close(turned[row, :, 2 * pair + 1], a * angle.sin() + b * angle.cos())


def test_rotated_products_depend_on_the_difference_of_frames():
    q, k = torch.randn(1, 1, 8), torch.randn(1, 1, 8)

    def score(i: int, j: int) -> torch.Tensor:
        return (FrameRotation(torch.tensor([i]), 8)(q) * FrameRotation(torch.tensor([j]), 8)(k)).sum()

    torch.testing.assert_close(score(2, 7), score(12, 17), rtol=1e-4, atol=1e-4)


def test_absolute_embedding_is_sines_then_cosines_per_axis_padded_with_zeros():
    embedding = absolute_position_embedding(torch.tensor([[3, 0, 1]]), 14)[0]
    frequencies = [1.0, 10000**-0.5]
    expected = [f(p * w) for p in (3, 0, 1) for f in (math.sin, math.cos) for w in frequencies] + [0, 0]
    torch.testing.assert_close(embedding, torch.tensor(expected))


def test_timesteps_are_embedded_cosines_first():
    embedder = TimestepEmbedder(256)
    seen: list[torch.Tensor] = []
    embedder.mlp = torch.nn.Sequential(torch.nn.Linear(256, 256))
    embedder.mlp[0].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    embedder(torch.tensor([0.0, 500.0]))
    assert torch.equal(seen[0][0], torch.cat([torch.ones(128), torch.zeros(128)]))
    torch.testing.assert_close(seen[0][1, 1], torch.tensor(math.cos(500 * 10000 ** (-1 / 128))), rtol=1e-3, atol=1e-3)


def test_a_product_of_complex_numbers_is_the_rotation_pair_by_pair():
    """The plain form, with queries and keys together as attention has them, and the gradient."""
    frames, x = torch.tensor([0, 0, 3, 17, 5]), torch.randn(5, 2, 3, 8, requires_grad=True)
    angle = frames[:, None] * 10000.0 ** (-torch.arange(4) / 4)
    cos, sin = (table[:, None, None] for table in (angle.cos(), angle.sin()))
    even, odd = x[..., ::2], x[..., 1::2]
    plain = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)
    turned, weight = FrameRotation(frames, 8)(x), torch.randn(5, 2, 3, 8)
    torch.testing.assert_close(turned, plain, rtol=1e-5, atol=1e-6)
    gradients = [torch.autograd.grad(out, x, weight, retain_graph=True)[0] for out in (turned, plain)]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)
