"""Training the variants of an ablation: a finished run is kept, a stopped one resumes."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from ss4d.files import content_hash
from ss4d.nested import leaves
from ss4d.training.checkpointing import SaveError
from ss4d.training.phases import read_phases
from ss4d.training.run import run

UNCHECKED = ("threads", "wandb", "dry_run", "backend")  # keys of train.yaml that may change from one start to the next


def train_run(config: DictConfig) -> None:
    """Train to the end, resuming an earlier start; nothing where it is finished.

    Raises:
        ValueError: the run folder is of a run with other options; the run cannot be trained, or was stopped.
    """
    run_dir = Path(config.run_dir)
    check_same_options(run_dir, config)
    check_same_start(run_dir, config)
    if is_finished(run_dir, config) and not config.dry_run:
        print(f"{run_dir} is trained already")
        return
    print(f"{'would train' if config.dry_run else 'training'} {run_dir}")
    try:
        run(config)
    except (SaveError, FloatingPointError) as error:
        raise ValueError(f"{run_dir}: {error}") from error
    if not config.dry_run and not is_finished(run_dir, config):
        raise ValueError(f"{run_dir} was stopped before its end; the same command resumes it.")


def check_same_start(run_dir: Path, config: DictConfig) -> None:
    """ValueError where a run folder began with other weights of the run that `init_from` names."""
    start, noted = Path(config.init_from or ""), run_dir / "init_from.sha256"
    if not config.init_from or not (start / "ckpts").is_dir():
        return
    digest = content_hash(sorted((start / "ckpts").glob("*.safetensors")))
    if not (run_dir / "config.yaml").exists():
        if not config.dry_run:
            run_dir.mkdir(parents=True, exist_ok=True)
            noted.write_text(digest + "\n")
    elif noted.exists() and noted.read_text().strip() != digest:
        raise ValueError(f"{run_dir} began with other weights of {start}: give another out=DIR, or delete that folder.")


def is_finished(run_dir: Path, config: DictConfig) -> bool:
    """Whether the checkpoint of the last step is there, and the models exported after it."""
    last = run_dir / "checkpoints" / f"step_{read_phases(config)[-1].stop:08d}" / "manifest.json"
    exported = [run_dir / "ckpts" / f"{name}.json" for name in config.models]
    if not all(path.is_file() for path in (last, *exported)):
        return False
    return min(path.stat().st_mtime_ns for path in exported) >= last.stat().st_mtime_ns


def check_same_options(run_dir: Path, config: DictConfig) -> None:
    """ValueError where a run folder was made with other options, the first of them named."""
    path = run_dir / "config.yaml"
    if not path.exists():
        return
    earlier = dict(leaves(OmegaConf.to_container(OmegaConf.load(path))))
    now = dict(leaves(OmegaConf.to_container(config, resolve=True)))
    for key in {**earlier, **now}:
        if earlier.get(key) != now.get(key) and key.partition(".")[0] not in UNCHECKED:
            raise ValueError(
                f"{run_dir} was trained with {key}={earlier.get(key)}, but now it is {now.get(key)}: "
                "give another out=DIR, or delete that folder."
            )
