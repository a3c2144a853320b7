"""The `train` section of the config."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ss4d.config import option


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How a phase is optimised, watched and saved; configs/train.yaml says what each key means."""

    steps: int = option(at_least=1)
    learning_rate: float = option(above=0)
    final_learning_rate: float = option(at_least=0)
    warmup_steps: int = option(at_least=0)
    betas: tuple[float, float] = option(at_least=0, below=1)
    epsilon: float = option(above=0)
    weight_decay: float = option(at_least=0)
    freeze: Sequence[str]
    ema_decay: float = option(at_least=0, below=1)
    gradient_clip: float | None = option(above=0)
    clip_percentile: float | None = option(above=0, at_most=100)
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    strategy: Literal["ddp", "fsdp"]
    activation_gb: float | None = option(above=0)
    compile: bool
    log_every: int = option(at_least=1)
    save_every: int = option(at_least=1)
    keep: int = option(at_least=1)
    validate_every: int = option(at_least=0)
    validate_batches: int = option(at_least=1)
    validate_split: str
    preview_every: int = option(at_least=0)

    def __post_init__(self) -> None:
        if self.final_learning_rate > self.learning_rate:
            raise ValueError(
                f"train.final_learning_rate = {self.final_learning_rate} must be at most train.learning_rate = "
                f"{self.learning_rate}, which the schedule comes down from"
            )
