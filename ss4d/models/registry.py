"""Models by name: ours, or the class names that released checkpoints carry in their JSON files."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_type_hints

from torch import nn

from ss4d.config import check_value, did_you_mean
from ss4d.models.compnet import CompNetOptions
from ss4d.models.gaussian_decoder import GaussianDecoder, GaussianDecoderOptions
from ss4d.models.image_encoder import DinoImageEncoder, PatchImageEncoder
from ss4d.models.sparse_flow import SparseFlow
from ss4d.models.sparse_vae import SparseEncoder, SparseEncoderOptions
from ss4d.models.structure_estimator import StructureEstimator
from ss4d.models.structure_flow import StructureFlow, StructureFlowOptions
from ss4d.models.structure_vae import StructureDecoder, StructureEncoder


@dataclass(frozen=True)
class _Entry:
    """A model class, the dataclass of its arguments where it takes one, and what a released class name implies."""

    build: Callable[..., nn.Module]
    options: Callable[..., Any] | None = None
    defaults: dict[str, Any] = field(default_factory=dict)

    def check(self, args: Mapping[str, Any]) -> None:
        """ValueError for a value of another type than its annotation says, or a number below 0."""
        hints = get_type_hints(self.options or self.build.__init__)  # type: ignore[misc]
        for key, value in args.items():
            check_value(value, hints[key], key, at_least=0)

    def accepted(self) -> dict[str, inspect.Parameter]:
        return dict(inspect.signature(self.options or self.build).parameters)

    def create(self, args: dict[str, Any]) -> nn.Module:
        given = {**self.defaults, **args}
        return self.build(**given) if self.options is None else self.build(self.options(**given))


_PER_FRAME = {"pe_mode": "ape", "expand_self_attn": False}  # TRELLIS' own classes know no time: each frame is alone
_MODELS: dict[str, _Entry] = {
    "StructureEncoder": _Entry(StructureEncoder),
    "StructureDecoder": _Entry(StructureDecoder),
    "StructureFlow": _Entry(StructureFlow, StructureFlowOptions),
    "StructureEstimator": _Entry(StructureEstimator),
    "SparseEncoder": _Entry(SparseEncoder, SparseEncoderOptions),
    "GaussianDecoder": _Entry(GaussianDecoder, GaussianDecoderOptions),
    "SparseFlow": _Entry(SparseFlow, CompNetOptions),
    "PatchImageEncoder": _Entry(PatchImageEncoder),
    "DinoImageEncoder": _Entry(DinoImageEncoder),
    "SparseStructureEncoder": _Entry(StructureEncoder),
    "SparseStructureDecoder": _Entry(StructureDecoder),
    "SparseStructureFlow4DModel": _Entry(StructureFlow, StructureFlowOptions),
    "SparseStructureFlowModel": _Entry(StructureFlow, StructureFlowOptions, _PER_FRAME),
    "SLatEncoder": _Entry(SparseEncoder, SparseEncoderOptions),
    "SLatGaussianDecoder": _Entry(GaussianDecoder, GaussianDecoderOptions),
    "SLatFlow4DModel": _Entry(SparseFlow, CompNetOptions),
    "SLatFlowModel": _Entry(SparseFlow, CompNetOptions, {**_PER_FRAME, "conv_type": "3D"}),
}


def create_model(name: str, **args: Any) -> nn.Module:
    """Build a model from its name and the `args` of its JSON file.

    Args:
        name: e.g. "StructureFlow", or a released class name such as "SLatFlow4DModel". "Elastic..." names are the
            same models (the prefix stood for a memory controller).

    Raises:
        ValueError: an unknown name or argument, with the nearest valid one, or a value of another type.
    """
    entry = _MODELS.get(name) or _MODELS.get(name.removeprefix("Elastic"))
    if entry is None:
        raise ValueError(f"unknown model '{name}': {_nearest(name, _MODELS)}")
    accepted = entry.accepted()
    for key in args:
        if key not in accepted:
            raise ValueError(f"{name} takes no argument '{key}': {_nearest(key, accepted)}")
    try:
        entry.check(args)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    missing = [key for key, parameter in accepted.items() if _required(parameter) and key not in args]
    if missing:
        raise ValueError(f"{name} needs the argument{'s' * (len(missing) > 1)} {', '.join(missing)}")
    return entry.create(args)


def _required(parameter: inspect.Parameter) -> bool:
    return parameter.default is inspect.Parameter.empty


def _nearest(word: str, choices: Iterable[str]) -> str:
    return did_you_mean(word, list(choices), f"choose one of {', '.join(choices)}")
