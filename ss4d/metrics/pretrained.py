"""Loading the weights of a metric's network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        ValueError: it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file ({error}): get it again.") from error


def load_strictly(model: nn.Module, stored: Mapping[str, Tensor], path: Path, what: str) -> None:
    """Load weights whose names and shapes are exactly the model's, and freeze it in evaluation mode; batch norms' step
    counters, which inference does not use, may be missing.

    Raises:
        ValueError: weights that do not fit, some of them named.
    """
    expected = {name: value for name, value in model.state_dict().items() if "num_batches_tracked" not in name}
    given = {name: value for name, value in stored.items() if "num_batches_tracked" not in name}
    wrong = sorted(set(given) ^ set(expected)) or [n for n, v in expected.items() if v.shape != given[n].shape]
    if wrong:
        raise ValueError(f"{path} does not hold {what}: {', '.join(wrong[:4])} missing, extra or misshapen.")
    model.load_state_dict(given, strict=False)
    model.eval().requires_grad_(False)
