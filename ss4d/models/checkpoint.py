"""Models on disk: `NAME.json` ({"name", "args"}) beside `NAME.safetensors`, the released layout."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ss4d.files import written_atomically
from ss4d.models.base import TorsoModel
from ss4d.models.registry import create_model
from ss4d.sparse.conv import Kernel


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file, the fault and the remedy."""


def save_model(model: nn.Module, stem: Path, name: str, args: dict[str, Any], dtype: torch.dtype) -> None:
    """Write `stem`.json and `stem`.safetensors (weights as `dtype`); each file is written atomically."""
    save_model_weights(model.state_dict(), stem, name, args, dtype)


def save_model_weights(
    weights: Mapping[str, torch.Tensor], stem: Path, name: str, args: dict[str, Any], dtype: torch.dtype
) -> None:
    """`save_model` for weights that are not those a model holds just now."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    converted = {
        key: (value.to(dtype) if value.is_floating_point() else value).contiguous().cpu()
        for key, value in weights.items()
    }
    save_weights(converted, weights_file(stem))
    with written_atomically(settings_file(stem)) as temporary:
        temporary.write_text(json.dumps({"name": name, "args": args}, indent=4) + "\n")


def settings_file(stem: Path) -> Path:
    """Where a model's name and arguments are; a stem may hold dots, as in `flow_v1.5`."""
    return stem.with_name(stem.name + ".json")


def weights_file(stem: Path) -> Path:
    """Where a model's weights are."""
    return stem.with_name(stem.name + ".safetensors")


def save_weights(weights: dict[str, torch.Tensor], path: Path) -> None:
    """Write a safetensors file atomically.

    Raises:
        OSError: it cannot be written.
    """
    try:
        with written_atomically(path) as temporary:
            save_file(weights, temporary)
    except SafetensorError as error:  # its own kind, for a full disk too
        raise OSError(f"{path} cannot be written ({error})") from error


def load_model(stem: Path, as_stored: bool = False, dtype: torch.dtype | None = None) -> nn.Module:
    """The model described by `stem`.json with the weights of `stem`.safetensors, in evaluation mode.

    Args:
        as_stored: the matrices stay as the file has them, mapped from disk, and are cast to the type of what they
            are multiplied with at each use; they are not to be trained.
        dtype: of its torso; None: as its settings say.

    Raises:
        CheckpointError: a missing or damaged file, an unknown model, or weights that do not fit it exactly.
    """
    spec = read_json(settings_file(stem))
    if not isinstance(spec, dict) or "name" not in spec or "args" not in spec:
        raise CheckpointError(f"{stem}.json must hold a model's 'name' and 'args'")
    try:
        with _Uninitialised():
            model = create_model(spec["name"], **spec["args"])
    except ValueError as error:
        raise CheckpointError(f"{stem}.json: {error}") from error
    load_weights(model, weights_file(stem), as_stored)
    if dtype is not None and isinstance(model, TorsoModel):
        model.set_dtype(dtype)
    return model.eval()


class _Uninitialised(TorchFunctionMode):
    """Parameters made inside are left as memory came: what is loaded takes their place."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = args[0] if args else (kwargs or {}).get("tensor")
        initialises = func in _INITIALISERS or getattr(func, "__module__", None) == nn.init.__name__
        if initialises and isinstance(given, nn.Parameter):
            return given
        return func(*args, **(kwargs or {}))


_INITIALISERS = {Tensor.uniform_, Tensor.normal_, Tensor.zero_, Tensor.fill_}


def load_weights(model: nn.Module, path: Path, as_stored: bool = False) -> None:
    """Load a safetensors file strictly: every name and shape must match; `as_stored` as for `load_model`.

    Raises:
        CheckpointError: naming every missing, unexpected or misshapen weight.
    """
    weights = read_weights(path)
    expected = model.state_dict()
    faults = []
    if missing := sorted(expected.keys() - weights.keys()):
        faults.append(f"missing {_listing(missing)}")
    if unexpected := sorted(weights.keys() - expected.keys()):
        faults.append(f"unexpected {_listing(unexpected)}")
    misshapen = [
        f"{key} {list(weights[key].shape)} instead of {list(value.shape)}"
        for key, value in expected.items()
        if key in weights and weights[key].shape != value.shape
    ]
    if misshapen:
        faults.append(f"of another shape {_listing(misshapen)}")
    if faults:
        raise CheckpointError(
            f"the weights in {path} do not fit {type(model).__name__}: {'; '.join(faults)}; "
            "use the checkpoint that belongs to this model's .json file"
        )
    # The tensors of the file take the place of the model's own, which were never touched: mapped from disk as long as
    # they are of the model's type, and not held twice.
    kept = cast_at_use(model) if as_stored else set()
    taken = {key: weights[key] if key in kept else weights[key].to(value.dtype) for key, value in expected.items()}
    model.load_state_dict(taken, strict=True, assign=True)


def cast_at_use(model: nn.Module) -> set[str]:
    """Have the matrices of a model cast to the type of what they are multiplied with, whatever type they are of. Layers
    of other classes than those of `CASTING` stay as they are.

    Returns:
        Their names.
    """
    names = set()
    for name, layer in model.named_modules():
        if type(layer) in CASTING or isinstance(layer, Kernel):
            names.add(f"{name}.weight")
        # The class is changed rather than `layer.forward`: a layer that holds a method of its own refers to itself,
        # and would stay, with its weights, until garbage is collected.
        layer.__class__ = CASTING.get(type(layer), type(layer))
    return names


class CastLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, *_cast(self, x))


class CastConv2d(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, *_cast(self, x))


class CastConv3d(nn.Conv3d):
    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, *_cast(self, x))


def _cast(layer: nn.Linear | nn.Conv2d | nn.Conv3d, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Weight and bias in the type of the input."""
    return layer.weight.to(x.dtype), None if layer.bias is None else layer.bias.to(x.dtype)


CASTING: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: CastLinear,
    nn.Conv2d: CastConv2d,
    nn.Conv3d: CastConv3d,
}


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file."""
    with _named(path):
        return load_file(path)


def check_weights(path: Path) -> None:
    """Raise a CheckpointError unless a safetensors file is whole by its header; no tensor is read."""
    with _named(path), safe_open(path, "pt"):
        pass


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Whatever is wrong with a file of weights that is read inside is a CheckpointError."""
    if not path.is_file():
        raise CheckpointError(f"there is no weight file {path}: check the model folder, or download it again")
    try:
        yield
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or cut short ({error}): download it again") from error


def read_json(path: Path) -> Any:
    """The content of a JSON file."""
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}: check the model folder, or download it again")
    try:
        return json.loads(path.read_text())
    except ValueError as error:  # its syntax or its encoding
        raise CheckpointError(f"{path} is not valid JSON ({error}): download it again") from error


def _listing(names: list[str]) -> str:
    """Every name, the count in front."""
    return f"{len(names)} weight{'s' * (len(names) > 1)} ({', '.join(names)})"
