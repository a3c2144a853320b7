"""The published weights of EfficientNet-Lite0, their batch norms folded in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import relu6

from ss4d.models.checkpoint import CheckpointError, save_weights
from ss4d.models.efficientnet import STAGES, EfficientNetLite0
from ss4d.training.imagenet import EPSILON, fold, imagenet_weights


def published() -> dict[str, torch.Tensor]:
    """Random parameters under the names of the package: convolutions without bias, batch norms."""
    torch.manual_seed(0)
    state: dict[str, torch.Tensor] = {}

    def add(conv: str, norm: str, shape: tuple[int, ...]) -> None:
        state[f"{conv}.weight"] = torch.randn(shape) * (shape[1] * shape[2] * shape[3]) ** -0.5
        state[f"{norm}.weight"], state[f"{norm}.bias"] = torch.rand(shape[0]) + 0.5, torch.randn(shape[0])
        state[f"{norm}.running_mean"], state[f"{norm}.running_var"] = torch.randn(shape[0]), torch.rand(shape[0]) + 0.5

    add("_conv_stem", "_bn0", (32, 3, 3, 3))
    width, block = 32, 0
    for stage in STAGES:
        for _ in range(stage.blocks):
            inner, name = width * stage.expansion, f"_blocks.{block}"
            if stage.expansion > 1:
                add(f"{name}._expand_conv", f"{name}._bn0", (inner, width, 1, 1))
            add(f"{name}._depthwise_conv", f"{name}._bn1", (inner, 1, stage.kernel, stage.kernel))
            add(f"{name}._project_conv", f"{name}._bn2", (stage.channels, inner, 1, 1))
            width, block = stage.channels, block + 1
    return state


def test_folded_weights_do_what_convolution_and_batch_norm_do():
    state = published()
    model = EfficientNetLite0()
    model.load_state_dict(fold(state))
    norm = nn.BatchNorm2d(32, eps=EPSILON).eval()
    norm.load_state_dict(
        {key.removeprefix("_bn0."): state[key] for key in state if key.startswith("_bn0.")}, strict=False
    )
    rgb = torch.rand(2, 3, 16, 16)
    padded = nn.functional.pad((rgb * 255 - 127) / 128, (0, 1, 0, 1))
    expected = relu6(norm(nn.functional.conv2d(padded, state["_conv_stem.weight"], stride=2)))
    torch.testing.assert_close(relu6(model.stem((rgb * 255 - 127) / 128)), expected, atol=1e-4, rtol=1e-4)


def test_weights_come_from_the_package_or_from_an_estimator(tmp_path: Path):
    state = published()
    torch.save(state, tmp_path / "lite0.pth")
    first = imagenet_weights(tmp_path / "lite0.pth")
    EfficientNetLite0().load_state_dict(first)
    named = {f"known.network.{name}": value.half() for name, value in first.items()}
    save_weights({**named, "stem.weight": torch.zeros(1)}, tmp_path / "estimator.safetensors")
    second = imagenet_weights(tmp_path / "estimator.safetensors")
    assert second.keys() == first.keys() and second["stem.weight"].dtype == torch.float32
    torch.testing.assert_close(second["stem.weight"], first["stem.weight"], atol=1e-3, rtol=1e-3)
    save_weights({"stem.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"other.safetensors has no weights of EfficientNet-Lite0"):
        imagenet_weights(tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"there is no file .*none.pth with the weights of EfficientNet-Lite0"):
        imagenet_weights(tmp_path / "none.pth")
