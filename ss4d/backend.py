"""Which implementation computes attention, sparse convolution and rendering: the settings `backend.*`.

`inference.py --backend attention=sdpa rasterizer=torch`, `train.py backend.attention=flash`, and from Python

>>> from ss4d import backend
>>> backend.use(backend.Backend(attention="sdpa"), "cpu")
>>> backend.describe("cpu")
{'attention': 'sdpa', 'convolution': 'ours', 'rasterizer': 'numba'}
>>> backend.use(backend.Backend(), "cpu")  # automatic again

The settings hold for the whole process. This module imports neither torch nor any of the packages it names.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

AUTO = "auto"


class BackendError(ValueError):
    """An implementation that cannot be used here; the message says what to do."""


@dataclass(frozen=True)
class Implementation:
    """What an implementation needs."""

    package: str = "torch"  # the module that must be there
    install: str = ""  # the command that brings it
    device: str = "any"  # or "cpu", "cuda", "cpu or cuda"
    compiled: bool = False  # on first use, which takes nvcc, unless its wheel brings it compiled
    flash: bool = False  # one of the kernels of flash-attention, which take half precision alone on GPUs from Ampere on

    def installed(self) -> bool:
        there = self.package in sys.modules or _is_there(self.package)
        return there and (not self.compiled or _is_compiled(self.package))

    def takes(self, device: torch.device | str, half: bool, head_channels: int) -> bool:
        fits = half and head_channels % 8 == 0 and head_channels <= MOST_FLASH_CHANNELS
        return self.runs_on(device) and (fits or not self.flash)

    def runs_on(self, device: torch.device | str) -> bool:
        return (self.device == "any" or _type(device) in self.device.split()) and (
            not self.flash or _has_ampere(device)
        )


@cache
def _is_there(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


@cache
def _is_compiled(package: str) -> bool:
    """Whether a package's CUDA code is compiled already, or can be."""
    found = importlib.util.find_spec(package)
    folders = [] if found is None else map(Path, found.submodule_search_locations or [])
    has_nvcc = shutil.which("nvcc") is not None or "CUDA_HOME" in os.environ
    return has_nvcc or any(True for folder in folders for _ in folder.glob("csrc*.so"))


@cache
def _has_ampere(device: torch.device | str) -> bool:
    """Whether a CUDA device is of the generation that flash-attention needs, or newer."""
    import torch

    return torch.cuda.get_device_capability(device)[0] >= 8


MOST_FLASH_CHANNELS = 256  # of a head; a multiple of 8
MIP_SPLATTING = (
    "git+https://github.com/autonomousvision/mip-splatting#subdirectory=submodules/diff-gaussian-rasterization"
)
IMPLEMENTATIONS: dict[str, dict[str, Implementation]] = {
    "attention": {
        "torch": Implementation(),  # explicit softmax, the reference
        "sdpa": Implementation(),  # torch's fused kernel, one call per segment unless all are equally long
        "varlen": Implementation("torch.nn.attention.varlen", "pip install 'torch>=2.10'", "cuda", flash=True),
        "flash": Implementation("flash_attn", "pip install flash-attn --no-build-isolation", "cuda", flash=True),
        "xformers": Implementation("xformers", "pip install xformers", "cuda"),
    },
    "convolution": {
        "ours": Implementation(),
        "spconv": Implementation("spconv", "pip install spconv-cu126 (the suffix is your CUDA version)", "cuda"),
    },
    "rasterizer": {
        "torch": Implementation(),  # the definition, slow
        "numba": Implementation("numba", "pip install numba", "cpu or cuda"),  # computes on the CPU
        "gsplat": Implementation("gsplat", "pip install gsplat (it needs nvcc)", "cuda", compiled=True),
        "inria": Implementation("diff_gaussian_rasterization", f"pip install '{MIP_SPLATTING}'", "cuda"),
    },
}
# In order of preference: the first that runs on the device, takes the tensors and is installed.
AUTOMATIC = {"attention": ("varlen", "flash", "sdpa"), "convolution": ("ours",), "rasterizer": ("gsplat", "numba")}
OTHER_ATTENTION = "sdpa"  # where a flash kernel was chosen that does not take the tokens


@dataclass(frozen=True)
class Backend:
    """One name per part, "auto" to choose by device and by what is installed.

    Raises:
        BackendError: a name that is none of the choices.
    """

    attention: str = AUTO  # torch, sdpa, varlen, flash, xformers
    convolution: str = AUTO  # ours, spconv
    rasterizer: str = AUTO  # torch, numba, gsplat, inria

    def __post_init__(self) -> None:
        for part, name in asdict(self).items():
            if name != AUTO:
                _implementation(part, name)

    @classmethod
    def parse(cls, settings: Iterable[str]) -> Backend:
        """From words such as "attention=flash"."""
        values = {}
        parts = [field.name for field in fields(cls)]
        for setting in settings:
            part, equals, name = setting.partition("=")
            if not equals or part not in parts:
                raise BackendError(f"backend setting {setting!r}: write PART=NAME with PART one of {', '.join(parts)}.")
            values[part] = name
        return cls(**values)


_current = Backend()


def current() -> Backend:
    """The settings in force."""
    return _current


def use(settings: Backend, device: torch.device | str) -> None:
    """Compute with these implementations from now on, in this process.

    Raises:
        BackendError: one of them is not installed or does not run on `device`.
    """
    global _current
    for part, name in asdict(settings).items():
        if name != AUTO:
            _check(part, name, device)
    _current = settings


def resolve(
    part: str, device: torch.device | str, half: bool = False, asked: str | None = None, head_channels: int = 64
) -> str:
    """The implementation to use for tensors on `device`, in half precision or not.

    Args:
        head_channels: of the queries and keys of an attention.
        asked: overrides the settings in force.

    Raises:
        BackendError: it is not installed, unknown, or does not run on `device`.
    """
    name = asked or getattr(_current, part)
    if name != AUTO:
        _check(part, name, device)
        return name if IMPLEMENTATIONS[part][name].takes(device, half, head_channels) else OTHER_ATTENTION
    candidates = [name for name in AUTOMATIC[part] if IMPLEMENTATIONS[part][name].takes(device, half, head_channels)]
    if not candidates:
        raise BackendError(f"No {part} runs on device {_type(device)!r}: move the tensors to 'cpu' or 'cuda'.")
    installed = [name for name in candidates if IMPLEMENTATIONS[part][name].installed()]
    if not installed:
        _check(part, candidates[-1], device)
    return installed[0]


def describe(device: torch.device | str, half: bool = False) -> dict[str, str]:
    """What the settings in force come to on `device`: a name per part, for logs and results."""
    return {part: resolve(part, device, half) for part in IMPLEMENTATIONS}


def _implementation(part: str, name: str) -> Implementation:
    if name not in IMPLEMENTATIONS[part]:
        raise BackendError(f"backend.{part} = {name!r}: choose one of {', '.join([AUTO, *IMPLEMENTATIONS[part]])}.")
    return IMPLEMENTATIONS[part][name]


def _check(part: str, name: str, device: torch.device | str) -> None:
    """Raise a BackendError unless the implementation is installed and runs on a device."""
    chosen, kind = _implementation(part, name), _type(device)
    if chosen.device != "any" and kind not in chosen.device.split():
        raise BackendError(f"backend.{part} = {name} runs on {chosen.device}, not on {kind}: choose another.")
    if not chosen.installed():
        raise BackendError(f"backend.{part} = {name} needs a package that is not installed: {chosen.install}")
    if chosen.flash and not _has_ampere(device):
        raise BackendError(f"backend.{part} = {name} needs a GPU from Ampere on, which {device} is not: choose sdpa.")


def _type(device: torch.device | str) -> str:
    return (device if isinstance(device, str) else device.type).split(":")[0]


def find_device(name: torch.device | str | None = None) -> torch.device:
    """The device of this name; by default "cuda" where there is one, else "cpu".

    Raises:
        ValueError: this machine has no such device, or we do not run on its kind.
    """
    import torch

    count = torch.cuda.device_count()
    try:
        device = torch.device(name or ("cuda" if count else "cpu"))
    except RuntimeError:
        raise ValueError(f"{name!r} is no device: use cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device {device} is not supported: use cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= count:
        there = f"cuda:0 to cuda:{count - 1}" if count else "cpu"
        raise ValueError(f"this machine has no device {device}: use {there}")
    return device
