"""The training loop, for all four experiments; it reads from top to bottom.

Everything random about a step follows from the seed and the place of its batches in the run. So a run resumes bit for
bit, on a CPU (a GPU adds gradients up in no fixed order), and two processes do what one does that accumulates twice as
much.
"""

from __future__ import annotations

import math
import shutil
import sys
import time
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ss4d.data import BatchLoader, WindowDataset, to_device
from ss4d.data.masking import contact_sheet
from ss4d.memory import peak_memory
from ss4d.training.checkpointing import CheckpointStore
from ss4d.training.cost import PhaseCost, phase_cost, recompute
from ss4d.training.distributed import World, distribute, full_tensor, gathered, gradients_kept_local
from ss4d.training.export import export_run
from ss4d.training.freezing import freeze
from ss4d.training.monitor import Meter, Monitor
from ss4d.training.non_finite import check_all_finite, check_weights, explain
from ss4d.training.objectives import Objective
from ss4d.training.optimization import (
    GradientClipper,
    LossScale,
    WeightAverage,
    adamw,
    learning_rate,
    optimizer_tensors,
    set_options,
)
from ss4d.training.phase_data import PhaseData, open_data
from ss4d.training.phases import Phase
from ss4d.training.precision import autocast
from ss4d.training.progress import Progress
from ss4d.training.stopping import StopSignal
from ss4d.training.throughput import COUNTS, throughput
from ss4d.training.validation import averaged, first_batch, mean_metrics


class Trainer:
    """Trains an objective through its phases, checkpointing into `run_dir` and resuming from there.

    Args:
        specs: {"name", "args"} of each trained model, written beside its weights.
        config: the resolved config: `seed`, `wandb`, and what wandb is to show.
    """

    def __init__(
        self,
        objective: Objective,
        phases: Sequence[Phase],
        specs: Mapping[str, Mapping[str, Any]],
        run_dir: Path,
        config: Mapping[str, Any],
        world: World,
    ):
        self.objective, self.phases, self.specs = objective, phases, specs
        self.run_dir, self.config, self.world, self.seed = run_dir, config, world, int(config["seed"])
        self.store = CheckpointStore(run_dir / "checkpoints", world)
        self.progress = Progress()
        self.monitor: Monitor | None = None
        self.stop = StopSignal()
        self.costs: dict[str, PhaseCost] = {}

    def prepare(self) -> None:
        """Open the data of all phases and go to where the newest checkpoint was written. Nothing is written yet.

        Raises:
            ValueError: an option, data or a checkpoint that does not fit.
        """
        reason = self.objective.missing_for_preview()
        if reason and self.world.is_first and any(phase.train.preview_every for phase in self.phases):
            print(reason)
        self.data = {phase.name: open_data(self.objective, phase, self.seed) for phase in self.phases}
        for phase in reversed(self.phases):  # the first last: its statistics hold
            self.objective.options = phase.objective
            self.objective.prepare(self.data[phase.name].train.clips)
        self._set_up(self.phases[0])
        for phase in self.phases:
            largest = max(clip.voxels for clip in self.data[phase.name].train.clips.clips)
            self.costs[phase.name] = phase_cost(phase, self.config, self.world.size, largest)
        self._restore()

    def fit(self) -> int | None:
        """Train to the end of the last phase; `prepare` comes first.

        Returns the number of the signal that stopped the run before its end, None at its end.

        Raises:
            ValueError: a clip that cannot be read.
            SaveError: a checkpoint could not be written.
            FloatingPointError: the loss or its gradients stopped being finite.
        """
        self.store.tidy(self.progress.step)
        if self.world.is_first and not self.progress.step:
            shutil.rmtree(self.run_dir / "best", ignore_errors=True)  # of a run that ended before its first checkpoint
        if self.progress.step:
            self._export(self.run_dir / "ckpts")  # a run can be killed between its last checkpoint and this
        with self.stop.caught(), self._monitored():
            for phase in self.phases:
                if self.progress.step < phase.stop and self.stop.agreed is None:
                    self._run_phase(phase, self.data[phase.name])
        if self.stop.agreed is None or self.progress.step == self.phases[-1].stop:
            return None
        if self.world.is_first:
            print(f"stopped by signal {self.stop.agreed} after step {self.progress.step}; the same command resumes")
        return self.stop.agreed

    def _set_up(self, first: Phase) -> None:
        models = self.objective.models
        check_weights(models, f"init_from = {self.config['init_from']}")
        learning = freeze(models, first.train.freeze)
        if self.world.is_first:
            print(learning)
        self.objective.to(self.world.device).train()
        self.objective.frozen.eval()
        if first.train.compile:
            if self.world.device.type == "cpu":
                warnings.warn("train.compile: on a CPU the first step compiles for minutes", stacklevel=2)
            for model in models.values():
                for block in getattr(model, "blocks", []):
                    block.compile(dynamic=True)
        self.wrapped = distribute(self.objective, models.values(), self.world, first.train.strategy)
        self.parameters = [p for p in models.parameters() if p.requires_grad]
        self.names: dict[torch.Tensor, str] = {p: name for name, p in models.named_parameters()}
        self.optimizer = adamw(self.parameters, first.train)
        self.average = WeightAverage(models)
        self.clipper = GradientClipper(first.train.gradient_clip, first.train.clip_percentile)
        self.scale = LossScale.of(first.train.precision)

    def _run_phase(self, phase: Phase, data: PhaseData) -> None:
        settings, world, held_out = phase.train, self.world, data.held_out
        judged_on = f"{phase.name}: {settings.validate_batches} batches of {settings.validate_split}"
        if self.progress.best_of != judged_on:  # losses of other clips or frames do not compare
            self.progress.best, self.progress.best_of = math.inf, judged_on
        self.clipper.limit, self.clipper.percentile = settings.gradient_clip, settings.clip_percentile
        cost = self.costs[phase.name]
        recompute(dict(self.objective.models.items()), cost.share)
        self.flops_per_token = cost.model_flops / cost.tokens
        set_options(self.optimizer, settings)
        self.objective.options = phase.objective
        loader = BatchLoader(data.train, phase.data, self.seed, self.progress.place, world.rank, world.size)
        batches, meter = iter(loader), Meter()
        pictured = self._pictured(phase, data) if settings.preview_every else None
        bar = tqdm(
            total=phase.stop,
            initial=self.progress.step,
            unit="step",
            desc=phase.name,
            disable=not world.is_first or not sys.stderr.isatty(),  # a log gets lines instead, from `_log`
            dynamic_ncols=True,
        )
        while self.progress.step < phase.stop and self.stop.agreed is None:
            self._step(phase, loader, batches, meter)
            step, last = self.progress.step, self.progress.step == phase.stop
            bar.update()
            if step % settings.log_every == 0 or last:
                self._log(phase, meter, bar)
            if held_out is not None and settings.validate_every and (step % settings.validate_every == 0 or last):
                self._validate(phase, held_out)
            if pictured is not None and (step % settings.preview_every == 0 or last):
                self._preview(phase, pictured)
            if step % settings.save_every == 0 or last:
                self._save(settings.keep)
            self.stop.agree(world)
        if self.progress.step < phase.stop and self.progress.step % settings.save_every:
            self._save(settings.keep)
        bar.close()

    def _step(self, phase: Phase, loader: BatchLoader, batches: Iterator[Any], meter: Meter) -> None:
        """One update, from `accumulation` batches of every process."""
        started, settings, progress, world = time.monotonic(), phase.train, self.progress, self.world
        rate = learning_rate(settings, progress.step - phase.start)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        losses: list[torch.Tensor] = []
        for part in range(phase.accumulation):
            batch = to_device(self._next(batches), world.device)
            generator = self._generator(progress.place + part * world.size + world.rank)
            with gradients_kept_local(self.wrapped, self.objective.models.values(), part < phase.accumulation - 1):
                with autocast(settings.precision, world.device):
                    loss = self.wrapped(batch, generator)
                (loss.total * (self.scale.value / phase.accumulation)).backward()
            losses.append(loss.total.detach())
            size = batch.size
            meter.add({**loss.metrics, "clips": size.clips, "frames": size.frames, "tokens": size.tokens})
        norm = self.clipper.clip(self.parameters, self.scale.value)
        if math.isfinite(norm):
            self.optimizer.step()
            self.average.update(self.objective.models, settings.ema_decay, progress.step)
        self.scale.update(math.isfinite(norm))
        if self.scale.gives_up:
            self._give_up(loader, losses, norm)
        self.optimizer.zero_grad(set_to_none=True)
        progress.place += phase.accumulation * world.size
        progress.step += 1
        seconds = time.monotonic() - started  # the GPU was waited for, for `norm`
        meter.add({"learning_rate": rate, "batches": phase.accumulation, "seconds": seconds})
        if math.isfinite(norm):  # a skipped step hides no others
            meter.add({"gradient_norm": norm})

    def _next(self, batches: Iterator[Any]) -> Any:
        try:
            return next(batches)
        except ValueError as error:
            raise ValueError(f"step {self.progress.step + 1}, {error}") from error

    def _give_up(self, loader: BatchLoader, losses: list[torch.Tensor], norm: float) -> None:
        """FloatingPointError that names the clips whose loss is not finite (all processes come here at one step)."""
        own = [self.progress.place + part * self.world.size + self.world.rank for part in range(len(losses))]
        bad = [place for place, loss in zip(own, losses, strict=True) if not bool(loss.isfinite())]
        names = gathered([name for place in bad for name in loader.clips_at(place)], self.world)
        clips = list(dict.fromkeys(name for part in names for name in part))
        raise FloatingPointError(explain(self.progress.step + 1, norm, clips, self.scale))

    def _generator(self, place: int) -> torch.Generator:
        """The source of all randomness of one batch."""
        key = zlib.crc32(f"{self.seed}/{place}".encode())
        return torch.Generator(self.world.device).manual_seed(key)

    def _log(self, phase: Phase, meter: Meter, bar: tqdm[Any]) -> None:
        means = meter.means(self.world)
        metrics = {"gradient_norm": math.inf, **{key: value for key, value in means.items() if key not in COUNTS}}
        metrics |= throughput(means, self.flops_per_token, self.world)
        metrics["memory_gb"] = peak_memory(self.world.device) / 1e9
        if not self.scale.fixed:
            metrics["loss_scale"] = self.scale.value
        if self.monitor is not None:
            self.monitor.log(self.progress.step, metrics)
        shown = {key: f"{metrics[key]:.3g}" for key in ("loss", "gradient_norm", "clips_per_second")}
        bar.set_postfix(shown)
        if bar.disable and self.world.is_first:
            values = ", ".join(f"{key} {value}" for key, value in shown.items())
            print(f"{phase.name}: step {self.progress.step} of {phase.stop}, {values}", file=sys.stderr, flush=True)

    def _validate(self, phase: Phase, held_out: WindowDataset) -> None:
        """The loss of the averaged weights on held-out clips; the best are kept under `best`."""
        with averaged(self.objective, self.average):
            metrics = mean_metrics(self.objective, held_out, phase, self.world)
        if self.monitor is not None:
            self.monitor.log(self.progress.step, {f"val_{key}": value for key, value in metrics.items()})
        if metrics.get("loss", math.inf) < self.progress.best:
            self.progress.best = metrics["loss"]
            self._export(self.run_dir / "best")

    def _pictured(self, phase: Phase, data: PhaseData) -> Any:
        """The held-out batch that previews show, and on the first time what masking makes of training videos."""
        if data.held_out is None or self.objective.missing_for_preview():
            return None
        if self.monitor is not None and phase.data.masking.probability:
            batch = next(iter(BatchLoader(data.train, phase.data, self.seed)))
            self.monitor.pictures(phase.start, "masking", contact_sheet(batch.images[:4, :, :3])[None])
        return to_device(first_batch(data.held_out, phase), self.world.device)

    def _preview(self, phase: Phase, batch: Any) -> None:
        """What the averaged weights make of held-out clips; all processes take part, for the models may be cut up."""
        with averaged(self.objective, self.average), autocast(phase.train.precision, self.world.device):
            shown = self.objective.preview(batch, torch.Generator(self.world.device).manual_seed(0))
        if self.monitor is not None:
            self.monitor.pictures(self.progress.step, "preview", shown.frames)
            self.monitor.log(self.progress.step, shown.metrics)

    def _export(self, folder: Path) -> None:
        """The averaged weights as models, and what inference needs beside them."""
        weights = {}
        for key, value in self.average.tensors.items():  # one at a time: a GPU need not hold them all
            whole = full_tensor(value)
            if self.world.is_first:
                weights[key] = whole.cpu()
        if self.world.is_first:
            export_run(weights, self.specs, self.objective.statistics(), folder)

    def _tensors(self) -> dict[str, Any]:
        return {
            "models": self.objective.models.state_dict(),
            "average": self.average.tensors,
            "optimizer": optimizer_tensors(self.optimizer, self.names),
        }

    def _save(self, keep: int) -> None:
        """
        Raises:
            FloatingPointError: a weight is not finite; the checkpoints of before stay.
        """
        progress = self.progress
        check_all_finite(self.parameters, progress.step, self.world)
        progress.scale = None if self.scale.fixed else self.scale.value
        progress.good_steps = self.scale.good_steps
        progress.skipped = self.scale.skipped
        progress.norms = tuple(self.clipper.history)
        progress.statistics = {key: value.tolist() for key, value in self.objective.statistics().items()}
        self.store.save(progress.step, self._tensors(), asdict(progress), keep)
        self._export(self.run_dir / "ckpts")

    def _restore(self) -> None:
        """Go on exactly where the newest checkpoint was written, with any number of processes."""
        tensors = self._tensors()
        values = self.store.load(tensors)
        if values is None:
            return
        self.progress = Progress.read(values, self.store.folder)
        self.clipper.history = list(self.progress.norms)
        if self.progress.scale not in (None, 1.0) and not self.scale.fixed:  # 1: of a run in another precision
            self.scale.value, self.scale.good_steps = float(self.progress.scale), self.progress.good_steps
        self.scale.skipped = self.progress.skipped
        if self.progress.statistics:  # those of the data may be others by now
            self.objective.use_statistics({key: torch.tensor(v) for key, v in self.progress.statistics.items()})
        if self.world.is_first:
            print(f"resuming at step {self.progress.step}")

    @contextmanager
    def _monitored(self) -> Iterator[None]:
        if not self.world.is_first:
            yield
            return
        self.monitor = Monitor(self.run_dir, self.progress.step, self.config["wandb"], self.config)
        try:
            yield
        finally:
            self.monitor.close()
