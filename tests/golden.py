"""The golden fixtures: inputs, weights and outputs of the released model code."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

GOLDEN = Path(__file__).parent / "fixtures" / "golden"
# Tolerance of every comparison, as a share of the output's standard deviation (float32).
GOLDEN_TOLERANCE = 5e-5


@dataclass
class Golden:
    """One fixture: `info` is its JSON, `tensors` its safetensors."""

    info: dict[str, Any]
    tensors: dict[str, torch.Tensor]

    @classmethod
    def load(cls, name: str) -> Golden:
        return cls(json.loads((GOLDEN / f"{name}.json").read_text()), load_file(GOLDEN / f"{name}.safetensors"))

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        return self.group("w.")

    def inputs(self, run: str) -> dict[str, torch.Tensor]:
        return self.group(f"in.{run}.")

    def outputs(self, run: str) -> dict[str, torch.Tensor]:
        return self.group(f"out.{run}.")

    def group(self, prefix: str) -> dict[str, torch.Tensor]:
        return {key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)}

    def scalar(self, run: str, name: str) -> Any:
        return self.info["runs"][run]["scalars"][name]


def assert_golden(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """Same shape, and every element within GOLDEN_TOLERANCE of the expected tensor's standard deviation."""
    assert actual.shape == expected.shape
    error = (actual - expected).abs().max() / expected.std()
    assert error <= GOLDEN_TOLERANCE, f"largest error is {error:.2e} of the output's std"
