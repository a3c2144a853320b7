"""The training loop, for all four experiments; it reads from top to bottom."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW
from tqdm import tqdm

from ss4d.data import DataSettings, WindowDataset, batch_loader
from ss4d.models.checkpoint import save_model, save_weights
from ss4d.training.checkpointing import load_state, save_state
from ss4d.training.objectives import Objective

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}


@dataclass
class TrainerSettings:
    """The `train` section of the config."""

    steps: int
    learning_rate: float
    weight_decay: float
    warmup_steps: int
    final_learning_rate: float  # the cosine schedule ends there
    ema_decay: float
    gradient_clip: float
    precision: str
    log_every: int
    save_every: int


class Trainer:
    """Trains an objective on its dataset, checkpointing into `run_dir` and resuming from there.

    Args:
        specs: {"name", "args"} of each trained model, written beside its weights.
    """

    def __init__(
        self,
        objective: Objective,
        dataset: WindowDataset,
        data: DataSettings,
        settings: TrainerSettings,
        specs: Mapping[str, Mapping[str, Any]],
        run_dir: Path,
        seed: int,
    ):
        self.objective, self.dataset, self.data, self.settings = objective, dataset, data, settings
        self.specs, self.run_dir, self.seed = specs, run_dir, seed
        self.parameters = [p for p in objective.parameters() if p.requires_grad]
        self.ema = {key: value.detach().clone() for key, value in objective.models.state_dict().items()}
        self.optimizer = AdamW(
            self.parameters, settings.learning_rate, betas=(0.9, 0.99), weight_decay=settings.weight_decay
        )
        self.generator = torch.Generator().manual_seed(seed)
        self.step = 0

    @property
    def state_path(self) -> Path:
        return self.run_dir / "state.pt"

    def fit(self) -> None:
        """Train until `settings.steps`, from the last checkpoint if there is one."""
        if self.state_path.exists():
            self.restore()
        self.objective.prepare(self.dataset.clips)
        self.objective.train()
        batches = iter(batch_loader(self.dataset, self.data, self.seed, start=self.step))
        started, last_log = time.monotonic(), self.step
        progress = tqdm(total=self.settings.steps, initial=self.step, unit="step", dynamic_ncols=True)
        while self.step < self.settings.steps:
            figures = self.train_step(next(batches))
            self.step += 1
            progress.update()
            if self.step % self.settings.log_every == 0 or self.step == self.settings.steps:
                seconds, started = time.monotonic() - started, time.monotonic()
                figures["steps_per_second"] = (self.step - last_log) / seconds
                last_log = self.step
                self.log(figures)
                progress.set_postfix({key: f"{value:.3g}" for key, value in figures.items()})
            if self.step % self.settings.save_every == 0 or self.step == self.settings.steps:
                self.save()
        progress.close()

    def train_step(self, batch: Any) -> dict[str, float]:
        """One update by a batch of the objective's dataset; returns the figures to log."""
        settings = self.settings
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        dtype = PRECISIONS[settings.precision]
        with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            loss = self.objective.loss(batch, self.generator)
        if not math.isfinite(loss.total.item()):
            raise FloatingPointError(f"the loss is {loss.total.item()} at step {self.step}: lower the learning rate")
        loss.total.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, settings.gradient_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.update_ema()
        return {"loss": loss.total.item(), **loss.figures, "gradient_norm": float(norm)}

    def learning_rate(self) -> float:
        """Linear warm-up, then a cosine down to `final_learning_rate`."""
        settings = self.settings
        if self.step < settings.warmup_steps:
            return settings.learning_rate * (self.step + 1) / settings.warmup_steps
        done = (self.step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
        span = settings.learning_rate - settings.final_learning_rate
        return settings.final_learning_rate + 0.5 * span * (1 + math.cos(math.pi * done))

    @torch.no_grad()
    def update_ema(self) -> None:
        """Exponential moving average of the weights, warming up so that the first steps do not linger."""
        decay = min(self.settings.ema_decay, (1 + self.step) / (10 + self.step))
        for key, value in self.objective.models.state_dict().items():
            if value.is_floating_point():
                self.ema[key].lerp_(value.detach(), 1 - decay)

    def log(self, figures: Mapping[str, float]) -> None:
        """Append a row to log.csv: step, figure, value."""
        path = self.run_dir / "log.csv"
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(["step", "figure", "value"])
            writer.writerows([self.step, key, f"{value:.6g}"] for key, value in figures.items())

    def save(self) -> None:
        """The state to resume from, and the averaged weights as models under `ckpts`."""
        state = {
            "step": self.step,
            "models": self.objective.models.state_dict(),
            "ema": self.ema,
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "torch_rng": torch.get_rng_state(),
        }
        save_state(state, self.state_path)
        live = {key: value.clone() for key, value in self.objective.models.state_dict().items()}
        self.objective.models.load_state_dict(self.ema)
        for name, model in self.objective.models.items():
            save_model(
                model,
                self.run_dir / "ckpts" / name,
                self.specs[name]["name"],
                dict(self.specs[name]["args"]),
                torch.float32,
            )
        self.objective.models.load_state_dict(live)
        if statistics := self.objective.statistics():
            save_weights(statistics, self.run_dir / "ckpts" / "latent_statistics.safetensors")

    def restore(self) -> None:
        """Continue from `state.pt`, exactly where it was written."""
        state = load_state(self.state_path)
        self.step = state["step"]
        self.objective.models.load_state_dict(state["models"])
        self.ema = state["ema"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch_rng"])
