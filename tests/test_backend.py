"""The settings `backend.*`: what they choose, what they refuse, and that they reach the models and the rasteriser."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from ss4d import backend
from ss4d.backend import Backend, BackendError
from ss4d.cameras import orbit_camera
from ss4d.gaussians import Gaussians, rasterize
from ss4d.nn import attention, packed_attention
from ss4d.segments import Segments


@pytest.fixture(autouse=True)
def automatic_afterwards() -> Iterator[None]:
    yield
    backend.use(Backend(), "cpu")


def test_automatic_on_a_cpu():
    assert backend.describe("cpu") == {"attention": "sdpa", "convolution": "ours", "rasterizer": "numba"}


def test_automatic_on_cuda_takes_what_is_installed(monkeypatch: pytest.MonkeyPatch):
    there: set[str] = set()
    monkeypatch.setattr(backend, "_is_there", lambda package: package in there)
    monkeypatch.setattr(backend, "_has_ampere", lambda device: device != "cuda:1")
    monkeypatch.setattr(backend, "_is_compiled", lambda package: "nvcc" in there)
    there |= {"numba"}
    assert backend.resolve("attention", "cuda:0", half=True) == "sdpa"
    assert backend.resolve("rasterizer", "cuda:0") == "numba"  # of a copy on the CPU
    there |= {"flash_attn", "gsplat"}
    assert backend.resolve("rasterizer", "cuda:0") == "numba"  # gsplat could not compile its kernels
    there |= {"nvcc"}
    assert backend.describe("cuda", half=True) == {"attention": "flash", "convolution": "ours", "rasterizer": "gsplat"}
    there |= {"torch.nn.attention.varlen"}
    assert backend.resolve("attention", "cuda", half=True) == "varlen"
    assert backend.resolve("attention", "cuda", half=False) == "sdpa"
    assert backend.resolve("attention", "cuda", half=True, head_channels=12) == "sdpa"
    assert backend.resolve("attention", "cuda", half=True, head_channels=264) == "sdpa"
    assert backend.resolve("attention", "cuda:1", half=True) == "sdpa"


def test_flash_kernels_leave_to_torch_what_they_do_not_take(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backend, "_is_there", lambda package: True)
    monkeypatch.setattr(backend, "_has_ampere", lambda device: device != "cuda:1")
    backend.use(Backend(attention="flash"), "cuda")
    assert backend.resolve("attention", "cuda", half=True) == "flash"
    assert backend.resolve("attention", "cuda", half=False) == "sdpa"
    assert backend.resolve("attention", "cuda", half=True, head_channels=12) == "sdpa"
    with pytest.raises(BackendError, match="needs a GPU from Ampere on, which cuda:1 is not: choose sdpa"):
        backend.use(Backend(attention="flash"), "cuda:1")


@pytest.mark.parametrize(
    ("setting", "device", "message"),
    [
        ("attention=flash", "cuda", "pip install flash-attn"),
        ("attention=xformers", "cuda", "pip install xformers"),
        ("convolution=spconv", "cuda", "pip install spconv-cu"),
        ("rasterizer=gsplat", "cuda", "pip install gsplat"),
        ("rasterizer=inria", "cuda", "pip install 'git"),
        ("rasterizer=gsplat", "cpu", "runs on cuda, not on cpu"),
        ("attention=fast", "cpu", "choose one of auto, torch, sdpa"),
        ("speed=fast", "cpu", "PART one of attention, convolution, rasterizer"),
        ("flash", "cpu", "write PART=NAME"),
    ],
)
def test_what_is_missing_or_unknown_is_one_sentence(
    setting: str, device: str, message: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(backend, "_is_there", lambda package: package in ("torch", "numba"))
    with pytest.raises(BackendError, match=message.replace("'", ".")) as caught:
        backend.use(Backend.parse([setting]), device)
    assert "\n" not in str(caught.value)
    assert backend.current() == Backend()


def test_the_settings_reach_attention_and_rasteriser(monkeypatch: pytest.MonkeyPatch):
    used: list[str] = []

    def watched(q: torch.Tensor, *rest: object) -> torch.Tensor:
        used.append("torch")
        return q

    monkeypatch.setitem(attention._KERNELS, "torch", watched)
    q, segments = torch.randn(4, 1, 2), Segments([4])
    packed_attention(q, q, q, segments, segments)
    assert used == []
    backend.use(Backend(attention="torch", rasterizer="torch"), "cpu")
    packed_attention(q, q, q, segments, segments)
    assert used == ["torch"]
    double = Gaussians(
        torch.zeros(1, 3).double(),
        torch.full((1, 3), 0.1).double(),
        torch.eye(4)[:1].double(),
        torch.ones(1, 1).double(),
        torch.zeros(1, 1, 3).double(),
    )
    assert rasterize(double, orbit_camera(0, 0), 8).alpha.max() > 0.3  # numba would refuse double precision


def test_the_settings_are_read_without_torch():
    script = (
        "import sys; from ss4d.backend import Backend; Backend.parse(['attention=sdpa']); print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
