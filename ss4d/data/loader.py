"""From the `data` section of a config to batches."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from ss4d.config import option, read_yaml
from ss4d.data.conditioned import ConditionedDataset
from ss4d.data.dataset import WindowDataset, tensors_of
from ss4d.data.evaluation_objects import refuse_evaluation_objects
from ss4d.data.features import FeatureDataset
from ss4d.data.format import config_path
from ss4d.data.latents import SparseLatentDataset
from ss4d.data.masking import MaskingSettings
from ss4d.data.prepared import PreparedClip, PreparedSet
from ss4d.data.sampler import BatchSettings, ClipWeights, TokenBatchSampler
from ss4d.data.training_windows import Window


@dataclass(kw_only=True)
class DataSettings(BatchSettings):
    """The `data` section of the config; configs/train.yaml says what each means."""

    root: str
    split: str | None
    objects: Sequence[str] | None
    resolution: int = option(at_least=1)
    quarter_turns: Sequence[int]
    category_weight: Mapping[str, float] | None
    static_weight: float
    group_cap: float | None
    workers: int = option(at_least=0)
    recolor: float
    conditioning_targets: float
    masking: MaskingSettings

    def __post_init__(self) -> None:
        if not self.frames or min(self.frames) < 1:
            raise ValueError(f"data.frames = {list(self.frames)} must list lengths of windows, at least 1 frame each")
        if not self.quarter_turns or not set(self.quarter_turns) <= {0, 1, 2, 3}:
            raise ValueError(f"data.quarter_turns = {list(self.quarter_turns)} must list turns out of 0, 1, 2, 3")
        for name in ("recolor", "conditioning_targets"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"data.{name} = {getattr(self, name)} must be a chance between 0 and 1")
        for name in ("max_stride", "tokens_per_batch", "max_clips"):
            if getattr(self, name) < 1:
                raise ValueError(f"data.{name} = {getattr(self, name)} must be at least 1")
        self.clip_weights()

    def clip_weights(self) -> ClipWeights:
        return ClipWeights(self.category_weight or {}, self.static_weight, self.group_cap)


def open_dataset(kind: type[WindowDataset], settings: DataSettings) -> WindowDataset:
    """The dataset of a stage of training, on the clips that the settings name.

    Raises:
        ValueError: they are not prepared; the message names the stage to run. Objects of an evaluation set.
            Recolouring for latents that hold colour, or masking without videos.
    """
    if issubclass(kind, SparseLatentDataset) and settings.recolor:
        raise ValueError(
            f"data.recolor = {settings.recolor}, but the sparse flow learns colours from its pictures: set it to 0 "
            "and encode latents in other colours (encode.recolor)"
        )
    if settings.recolor and not issubclass(kind, (ConditionedDataset, FeatureDataset)):
        raise ValueError(f"data.recolor = {settings.recolor}, but this objective sees no colours: set it to 0")
    if settings.masking.probability and not issubclass(kind, ConditionedDataset):
        raise ValueError(
            f"data.masking.probability = {settings.masking.probability}, but this objective has no conditioning "
            "videos: set it to 0"
        )
    clips = PreparedSet.open(Path(settings.root), settings.resolution, kind.stages, settings.split, settings.objects)
    clips.check_files(kind.stages)
    refuse_evaluation_objects((clip.asset_id for clip in clips.clips), f"data.root={settings.root}")
    refuse_evaluation_set(Path(settings.root))
    _note_what_is_left_out(clips.clips, settings)
    if issubclass(kind, ConditionedDataset):  # the one kind that has conditioning videos
        return kind(clips, settings.quarter_turns, settings.masking, settings.recolor)
    if issubclass(kind, FeatureDataset):
        return kind(clips, settings.quarter_turns, settings.recolor, settings.conditioning_targets)
    return kind(clips, settings.quarter_turns)


def refuse_evaluation_set(root: Path) -> None:
    """ValueError where a data set says that it was made for evaluation."""
    path = config_path(root)
    collect = (read_yaml(path) or {}).get("collect") if path.is_file() else None
    if isinstance(collect, dict) and collect.get("for_evaluation"):
        raise ValueError(
            f"data.root={root} was made with collect.for_evaluation=true, so models that are trained on it could not "
            "be compared: take another set"
        )


def _note_what_is_left_out(clips: Sequence[PreparedClip], settings: DataSettings) -> None:
    """Warn of weights that do nothing, and of clips that are too short for every window."""
    if absent := settings.clip_weights().absent(clips):
        warnings.warn(f"data.category_weight: no clip is of category {', '.join(absent)}", stacklevel=3)
    short = sum(clip.frames < min(settings.frames) for clip in clips)
    if short:
        warnings.warn(
            f"{short} of {len(clips)} clips have fewer than {min(settings.frames)} frames and are left out",
            stacklevel=3,
        )


MOST_FAULTS = 100  # batches in a row without a clip that can be read


@dataclass(frozen=True)
class Fault:
    """Why a sample, or the batch that it was for, could not be made."""

    reason: str


class BatchLoader:
    """Endless batches of one rank, the same for any number of workers.

    Args:
        start: place of the run that the first batch is for, counted over all ranks.
        leave_out_faults: go on without the clips that cannot be read, with a warning, instead of raising ValueError.
    """

    def __init__(
        self,
        dataset: WindowDataset,
        settings: DataSettings,
        seed: int,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
        leave_out_faults: bool = False,
    ):
        clips, weights = dataset.clips.clips, settings.clip_weights().of(dataset.clips.clips)
        self.dataset, self.workers, self.leave_out_faults = dataset, settings.workers, leave_out_faults
        self.sampler = TokenBatchSampler(
            clips, dataset.frame_tokens(), weights, settings, seed, start, rank, world_size
        )
        guarded = _Guarded(dataset, leave_out_faults)
        self._loader = DataLoader(
            guarded,
            batch_sampler=self.sampler,
            collate_fn=guarded.collate,
            num_workers=settings.workers,
            generator=torch.Generator(),  # else the loader would draw from torch's own, which the models use
            worker_init_fn=_leave_signals_to_the_run,
        )

    def __iter__(self) -> Iterator[Any]:
        """
        Raises:
            ValueError: a clip cannot be read, or a worker has died.
        """
        in_a_row = 0
        try:
            for batch in self._loader:
                in_a_row = in_a_row + 1 if isinstance(batch, Fault) else 0
                if not isinstance(batch, Fault):
                    yield batch
                elif not self.leave_out_faults or in_a_row == MOST_FAULTS:
                    raise ValueError(batch.reason)
        except (RuntimeError, OSError) as error:
            if not self.workers or (isinstance(error, RuntimeError) and "DataLoader worker" not in str(error)):
                raise
            reason = str(error).splitlines()[0]
            raise ValueError(f"data.workers = {self.workers}: {reason}: {_MEMORY_ADVICE}") from error

    def clips_at(self, place: int) -> list[str]:
        """Names of the clips in the batch at a place of the run."""
        return list(dict.fromkeys(self.dataset.clips.clips[window.clip].name for window in self.sampler.batch(place)))


def _leave_signals_to_the_run(worker: int) -> None:
    """A signal to all processes of a job lets the step finish, for which its batch is needed."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


_MEMORY_ADVICE = "lower data.workers, or allow more memory (of a container: docker run --shm-size=8g)"


@dataclass(frozen=True)
class _Guarded(Dataset[Any]):
    """Samples and batches of a dataset, or a `Fault`. That travels as a value: torch would put a worker's traceback
    into the message of what is raised there."""

    dataset: WindowDataset
    leave_out_faults: bool

    def __getitem__(self, window: Window) -> Any:
        try:
            return self.dataset[window]
        except (ValueError, OSError) as error:
            return Fault(f"clip {self.dataset.clips.clips[window.clip].name}: {error}")

    def collate(self, samples: Sequence[Any]) -> Any:
        faults = [sample for sample in samples if isinstance(sample, Fault)]
        good = [sample for sample in samples if not isinstance(sample, Fault)]
        if self.leave_out_faults:
            for fault in faults:
                warnings.warn(f"left out: {fault.reason}", stacklevel=2)
        if not good or (faults and not self.leave_out_faults):
            return faults[0]
        batch = self.dataset.collate(good)
        if get_worker_info() is not None:
            try:  # where the queue to the main process does this, a failure makes the run wait for ever
                for tensor in tensors_of(batch):
                    tensor.share_memory_()
            except RuntimeError as error:
                return Fault(f"data.workers: the shared memory is full ({error}): {_MEMORY_ADVICE}")
        return batch
