"""A run folder is one run: whoever resumes it is compared with what began it, before anything is written.

What decides the model or the order of its data must be the same: `seed`, `models`, `objective`, and, of each phase that
has begun, `data`, the batches of a step and `train.freeze`. All else may change (the rest of the `train` section,
phases ahead, processes, workers, backends, logging); `history.jsonl` keeps what did.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ss4d.files import locked, unlock
from ss4d.nested import leaves
from ss4d.training.checkpointing import checkpoints_of
from ss4d.training.objectives import OBJECTIVES
from ss4d.training.phases import phase_sections

# Processes that load change nothing of what is learnt (max_clips is compared as batch_size), nor do decoders for
# pictures, unless the loss uses them.
FREE = {"data.workers", "data.max_clips"}
DECODERS = {f"objective.{kind.preview_decoder}" for kind in OBJECTIVES.values() if kind.preview_decoder}
SHOWN = 8  # differences in a message
SECONDS_TO_END = 10.0  # that processes which load data for a run may outlive it, where it was killed


def reached_step(run_dir: Path) -> int | None:
    """The step of the newest checkpoint; None where the folder has none."""
    return max((step for step, _ in checkpoints_of(run_dir / "checkpoints")), default=None)


def check_same_run(run_dir: Path, config: DictConfig, processes: int) -> None:
    """Compare a command with the run that is in its folder, if one is. Nothing is written.

    Raises:
        ValueError: the folder cannot be written to, what must stay differs, or the steps end before the step reached.
    """
    existing = next(place for place in (run_dir, *run_dir.absolute().parents) if place.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"run_dir = {run_dir} cannot be written to ({existing}): choose another one")
    step, saved = reached_step(run_dir), read_saved(run_dir)
    if step is None:
        return
    if saved is None:
        raise ValueError(
            f"{run_dir} has checkpoints and no config.yaml, which says what they are of: bring it back from a copy, or "
            "choose another run_dir (init_from=RUN starts from its weights)"
        )
    differences = list(_differences(saved, config, step, _processes(run_dir), processes))
    if differences:
        more = f" and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
        raise ValueError(
            f"{run_dir} holds another run, which has reached step {step}: {'; '.join(differences[:SHOWN])}{more}: give "
            "it the same values to resume it, or choose another run_dir (init_from=RUN starts from its weights)"
        )


@contextmanager
def held(run_dir: Path) -> Iterator[None]:
    """Have a run folder, which is made, for this process alone.

    Raises:
        ValueError: another process has it.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    folder, deadline = os.open(run_dir, os.O_RDONLY | os.O_DIRECTORY), time.monotonic() + SECONDS_TO_END
    try:
        while not locked(folder):
            if time.monotonic() > deadline:
                raise ValueError(
                    f"another process trains in {run_dir}: wait until it has ended, or choose another run_dir"
                )
            time.sleep(0.1)
        yield
        unlock(folder)  # processes that load data have the open folder too
    finally:
        os.close(folder)


def read_saved(run_dir: Path) -> DictConfig | None:
    """The config that a run was last started with; None where there is none.

    Raises:
        ValueError: it cannot be read.
    """
    path = run_dir / "config.yaml"
    if not path.exists():
        return None
    try:
        saved: Any = OmegaConf.load(path)
        # Saved without references: frames and batch_size of a phase must reach its data again.
        for key, source in (("frames", "frames"), ("max_clips", "batch_size")):
            if saved.data[key] == saved[source]:
                saved.data[key] = f"${{{source}}}"
        if not isinstance(saved, DictConfig):
            raise TypeError("no mapping")
    except Exception as error:
        raise ValueError(f"{path} is damaged ({' '.join(str(error).split())}): choose another run_dir") from error
    return saved


def append_history(run_dir: Path, config: DictConfig, processes: int, commit: str) -> None:
    """Note a start in `history.jsonl`, and how its config differs from the saved one, which is still the one before."""
    saved = read_saved(run_dir)
    old = {} if saved is None else dict(leaves(OmegaConf.to_container(saved, resolve=True)))
    new = dict(leaves(OmegaConf.to_container(config, resolve=True)))
    changed = {key: [old.get(key), new.get(key)] for key in sorted({*old, *new}) if old.get(key) != new.get(key)}
    entry = {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "step": reached_step(run_dir) or 0,
        "command": sys.argv,
        "commit": commit,
        "processes": processes,
        "changed": {} if saved is None else changed,
    }
    with (run_dir / "history.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def _processes(run_dir: Path) -> int | None:
    """Of the last start; None where an earlier version did not note it."""
    path = run_dir / "history.jsonl"
    try:
        return int(json.loads(path.read_text(encoding="utf-8").splitlines()[-1])["processes"])
    except (OSError, ValueError, KeyError, IndexError):
        return None


def _differences(
    saved: DictConfig, config: DictConfig, step: int, old_processes: int | None, processes: int
) -> Iterator[str]:
    """What differs and must not, each as "key = new instead of old"."""
    yield from _changes("seed", saved.get("seed"), config.seed)
    if saved.objective.name != config.objective.name:
        yield f"objective.name = {config.objective.name} instead of {saved.objective.name}"
        return  # all else differs with it
    yield from _changes("models", _plain(saved.models), _plain(config.models), strict=True)
    if config.init_from not in (None, saved.get("init_from")):
        yield f"init_from = {config.init_from} instead of {saved.get('init_from')} (the run has its weights already)"
    before, after = phase_sections(saved), phase_sections(config)
    end = 0
    for (old_name, old), (name, new) in zip(before, after, strict=False):
        prefix = f"phases.{name}." if len(after) > 1 else ""
        if old_name != name:
            yield f"phase {name} instead of {old_name}"
            return
        for section in ("data", "objective"):
            free = FREE if new["objective"].get("occupancy_weight") else FREE | DECODERS
            yield from (prefix + text for text in _changes(section, old[section], new[section], free=free))
        was_frozen, is_frozen = (section["train"].get("freeze") or [] for section in (old, new))
        yield from _changes(f"{prefix}train.freeze", was_frozen, is_frozen)
        yield from _changes(f"{prefix}batch_size", old["data"]["max_clips"], new["data"]["max_clips"])
        had, has = old["accumulation"] * (old_processes or 0), new["accumulation"] * processes
        if old_processes is not None and had != has:
            yield f"{prefix}accumulation x processes = {has} instead of {had}"
        length, old_length = int(new["train"]["steps"]), int(old["train"]["steps"])
        is_last = (name, new) == after[-1] or (old_name, old) == before[-1]
        if end + old_length < step and not is_last and length != old_length:
            yield f"{prefix}train.steps = {length} instead of {old_length} (this phase has ended)"
        elif end + length < step and (end + old_length >= step or name == after[-1][0]):
            yield f"{prefix}train.steps = {length} instead of {old_length} ends before the step reached"
        end += length
        if end >= step:
            return


def _changes(key: str, old: Any, new: Any, strict: bool = False, free: Collection[str] = frozenset()) -> Iterator[str]:
    """Leaves that differ and are not `free` to. Unless `strict`, those that only one of the two has are left to the
    version that wrote it."""
    if key in free:
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping) and key != "data.category_weight":
        for name in {**old, **new}:
            if strict or (name in old and name in new):
                yield from _changes(f"{key}.{name}", old.get(name), new.get(name), strict, free)
    elif _comparable(key, old) != _comparable(key, new):
        yield f"{key} = {_shown(new)} instead of {_shown(old)}"


def _comparable(key: str, value: Any) -> Any:
    if isinstance(value, str) and key.startswith(("data.root", "objective.")):
        is_path = os.path.exists(value) or os.path.exists(f"{value}.json")  # models are named without their ending
        return os.path.realpath(value) if is_path else value
    return value or None if key == "data.category_weight" else value


def _shown(value: Any) -> str:
    text = "null" if value is None else json.dumps(value, default=str).strip('"')
    return text if len(text) <= 60 else text[:57] + "..."


def _plain(section: Any) -> Any:
    return OmegaConf.to_container(section, resolve=True)
