"""The `train` section of the config."""

from __future__ import annotations

from dataclasses import dataclass

from ss4d.training.precision import DTYPES

PRECISIONS = ("auto", *DTYPES)
STRATEGIES = ("ddp", "fsdp")


@dataclass(frozen=True)
class TrainSettings:
    """How a phase is optimised, watched and saved; configs/train.yaml says what each key means."""

    steps: int
    learning_rate: float
    final_learning_rate: float
    warmup_steps: int
    weight_decay: float
    ema_decay: float
    gradient_clip: float
    clip_percentile: float | None
    precision: str
    strategy: str
    activation_gb: float | None
    compile: bool
    log_every: int
    save_every: int
    keep: int
    validate_every: int
    validate_batches: int
    validate_split: str
    preview_every: int

    def __post_init__(self) -> None:
        for name, choices in (("precision", PRECISIONS), ("strategy", STRATEGIES)):
            if getattr(self, name) not in choices:
                raise ValueError(f"train.{name} = {getattr(self, name)} must be one of {', '.join(choices)}")
        for name in ("steps", "log_every", "save_every", "keep", "validate_batches"):
            if getattr(self, name) < 1:
                raise ValueError(f"train.{name} = {getattr(self, name)} must be at least 1")
        if self.clip_percentile is not None and not 0 < self.clip_percentile <= 100:
            raise ValueError(f"train.clip_percentile = {self.clip_percentile} must lie in (0, 100], or be null")
