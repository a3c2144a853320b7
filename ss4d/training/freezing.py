"""Parts of the models that do not learn, by name (`train.freeze`)."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from ss4d.config import did_you_mean


def is_frozen(name: str, patterns: Sequence[str]) -> bool:
    """Whether `train.freeze` keeps the parameter of this name, with its model's in front, as it is."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def freeze(models: nn.ModuleDict, patterns: Sequence[str]) -> str:
    """Freeze the parameters whose name fits a pattern, such as "flow.blocks.*" or "*.adaLN_modulation.*".

    Returns how many parameters learn.

    Raises:
        ValueError: a pattern that fits no parameter, or nothing is left to learn.
    """
    parameters = dict(models.named_parameters())
    for pattern in patterns:
        fitting = [name for name in parameters if is_frozen(name, [pattern])]
        if not fitting:
            nearest = did_you_mean(pattern, list(parameters), f"names are such as {next(iter(parameters))}")
            raise ValueError(f"train.freeze: no parameter fits {pattern}: {nearest}")
        for name in fitting:
            parameters[name].requires_grad_(False)
    learning = sum(parameter.numel() for parameter in parameters.values() if parameter.requires_grad)
    if not learning:
        raise ValueError(f"train.freeze = {list(patterns)} leaves no parameter to learn")
    total = sum(parameter.numel() for parameter in parameters.values())
    return f"{learning:,} of {total:,} parameters learn"
