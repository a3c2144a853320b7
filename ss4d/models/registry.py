"""Models by name: ours, or the class names that released checkpoints carry in their JSON files."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ss4d.config import did_you_mean
from ss4d.models.image_encoder import DinoImageEncoder, PatchImageEncoder
from ss4d.models.sparse_flow import SparseFlow
from ss4d.models.sparse_vae import GaussianDecoder, SparseEncoder, SparseTransformer
from ss4d.models.structure_flow import StructureFlow
from ss4d.models.structure_vae import StructureDecoder, StructureEncoder


@dataclass
class _Entry:
    """A model class and the defaults that a released class name implies."""

    build: Callable[..., nn.Module]
    defaults: dict[str, Any] = field(default_factory=dict)


_MODELS: dict[str, _Entry] = {
    "StructureEncoder": _Entry(StructureEncoder),
    "StructureDecoder": _Entry(StructureDecoder),
    "StructureFlow": _Entry(StructureFlow),
    "SparseEncoder": _Entry(SparseEncoder),
    "GaussianDecoder": _Entry(GaussianDecoder),
    "SparseFlow": _Entry(SparseFlow),
    "PatchImageEncoder": _Entry(PatchImageEncoder),
    "DinoImageEncoder": _Entry(DinoImageEncoder),
    "SparseStructureEncoder": _Entry(StructureEncoder),
    "SparseStructureDecoder": _Entry(StructureDecoder),
    "SparseStructureFlow4DModel": _Entry(StructureFlow),
    # TRELLIS' own classes know no time: each frame is alone.
    "SparseStructureFlowModel": _Entry(StructureFlow, {"pe_mode": "ape", "expand_self_attn": False}),
    "SLatEncoder": _Entry(SparseEncoder),
    "SLatGaussianDecoder": _Entry(GaussianDecoder),
    "SLatFlow4DModel": _Entry(SparseFlow),
    "SLatFlowModel": _Entry(SparseFlow, {"pe_mode": "ape", "expand_self_attn": False, "conv_type": "3D"}),
}


def create_model(name: str, **args: Any) -> nn.Module:
    """Build a model from its name and the `args` of its JSON file.

    Args:
        name: e.g. "StructureFlow", or a released class name such as "SLatFlow4DModel". "Elastic..." names are the
            same models (the prefix stood for a memory controller).

    Raises:
        ValueError: an unknown name or argument, with the nearest valid one.
    """
    entry = _MODELS.get(name) or _MODELS.get(name.removeprefix("Elastic"))
    if entry is None:
        raise ValueError(f"unknown model '{name}': {_nearest(name, _MODELS)}")
    accepted = _accepted_arguments(entry.build)
    for key in args:
        if key not in accepted:
            raise ValueError(f"{name} takes no argument '{key}': {_nearest(key, accepted)}")
    missing = [key for key, parameter in accepted.items() if _required(parameter) and key not in args]
    if missing:
        raise ValueError(f"{name} needs the argument{'s' * (len(missing) > 1)} {', '.join(missing)}")
    return entry.build(**{**entry.defaults, **args})


def _accepted_arguments(build: Callable[..., nn.Module]) -> dict[str, inspect.Parameter]:
    parameters = dict(inspect.signature(build).parameters)
    if parameters.pop("body", None) is not None:
        body = inspect.signature(SparseTransformer).parameters
        parameters |= {key: value for key, value in body.items() if key not in ("in_channels", "out_channels")}
    return parameters


def _required(parameter: inspect.Parameter) -> bool:
    return parameter.default is inspect.Parameter.empty


def _nearest(word: str, choices: Iterable[str]) -> str:
    return did_you_mean(word, list(choices), f"choose one of {', '.join(choices)}")
