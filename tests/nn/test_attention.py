"""Packed attention against naive loops, in every backend that runs here."""

from __future__ import annotations

import math

import pytest
import torch

from ss4d.nn import packed_attention
from ss4d.segments import Segments

CASES = [
    ([3, 5, 1], [3, 5, 1]),
    ([4, 0, 2], [1, 3, 2]),
    ([4, 4], [4, 4]),
    ([2, 2], [5, 5]),
    ([2, 2], [1, 3]),
    ([2, 1], [0, 3]),
    ([], []),
]


def naive(q, k, v, q_lengths, k_lengths):
    out, i, j = torch.zeros_like(q), 0, 0
    for n, m in zip(q_lengths, k_lengths, strict=True):
        for row in range(i, i + n):
            for head in range(q.shape[1]):
                if m:
                    weight = (k[j : j + m, head] @ q[row, head] / math.sqrt(q.shape[2])).softmax(0)
                    out[row, head] = weight @ v[j : j + m, head]
        i, j = i + n, j + m
    return out


@pytest.mark.parametrize("backend", ["torch", "sdpa"])
@pytest.mark.parametrize("case", CASES)
def test_equals_naive_loops(backend: str, case: tuple):
    q_lengths, k_lengths = case
    q = torch.randn(sum(q_lengths), 2, 4, dtype=torch.float64)
    k, v = torch.randn(2, sum(k_lengths), 2, 4, dtype=torch.float64)
    out = packed_attention(q, k, v, Segments(q_lengths), Segments(k_lengths), backend)
    torch.testing.assert_close(out, naive(q, k, v, q_lengths, k_lengths))


@pytest.mark.parametrize("backend", ["torch", "sdpa"])
@pytest.mark.parametrize("case", CASES[:4])
def test_gradients(backend: str, case: tuple):
    q_lengths, k_lengths = case
    inputs = [
        torch.randn(sum(n), 2, 2, dtype=torch.float64, requires_grad=True) for n in (q_lengths, k_lengths, k_lengths)
    ]
    segments = Segments(q_lengths), Segments(k_lengths)
    assert torch.autograd.gradcheck(lambda q, k, v: packed_attention(q, k, v, *segments, backend), inputs)


@pytest.mark.parametrize("length", [40, 700])  # below and above the length at which the CPU changes its way
def test_bfloat16_on_cpu_stays_near_the_reference(length: int):
    q, k, v = torch.randn(3, 2 * length, 2, 16).unbind(0)
    segments = Segments([length, length])
    expected = packed_attention(q, k, v, segments, segments, "torch")
    for trained in (False, True):  # forward alone may take another way
        with torch.set_grad_enabled(trained):
            out = packed_attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), segments, segments).float()
        assert (out - expected).norm() / expected.norm() < 2e-2


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["varlen", "flash", "xformers"])
def test_cuda_backends(backend: str):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    pytest.importorskip({"varlen": "torch.nn.attention.varlen", "flash": "flash_attn", "xformers": "xformers"}[backend])
    lengths = [300, 17, 512]
    q, k, v = torch.randn(3, sum(lengths), 4, 64, device="cuda").half().unbind(0)
    out = packed_attention(q, k, v, Segments(lengths), Segments(lengths), backend).float()
    expected = packed_attention(q.float(), k.float(), v.float(), Segments(lengths), Segments(lengths), "torch")
    assert (out - expected).norm() / expected.norm() < 2e-3


def test_wrong_segments_and_backends_are_refused():
    q = torch.randn(4, 2, 8)
    with pytest.raises(ValueError, match="do not fit the tokens"):
        packed_attention(q, q, q, Segments([3]), Segments([4]))
    with pytest.raises(ValueError, match="choose one of"):
        packed_attention(q, q, q, Segments([4]), Segments([4]), "nonsense")
