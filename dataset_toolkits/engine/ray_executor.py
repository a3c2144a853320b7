"""Making items on a Ray cluster whose machines share the file system of the data set.

Every core of the cluster (for a stage on the GPU, every GPU) gets an actor with a `Worker`, so time limits and
crashes are handled as on one machine. The item of an actor that is lost with its machine is queued again; machines
that join later are used too.
"""

from __future__ import annotations

import functools
import logging
import os
import pickle
import sys
from collections import Counter, deque
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from dataset_toolkits.engine.stage import Item, Stage, StageError
from dataset_toolkits.engine.workers import Outcome

MAX_LOSSES = 3  # of actors, before their item counts as failed


@dataclass(frozen=True)
class _Task:
    actor: Any
    item: Item | None  # None while the actor waits for its core


def make_on_ray(
    stage: Stage, items: Sequence[Item], time_limit: float, address: str, workers: int | None
) -> Generator[Outcome, None, None]:
    """Make items on the cluster at `address`; yields outcomes as they are ready.

    Raises:
        StageError: there is no cluster at the address, or its actors cannot start.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise StageError(f"no Ray cluster at address {address}: start one with `ray start --head` ({error})") from error
    try:
        yield from _make(stage, items, time_limit, workers)
    finally:
        ray.shutdown()


def _make(
    stage: Stage, items: Sequence[Item], time_limit: float, workers: int | None
) -> Generator[Outcome, None, None]:
    import ray

    queue, losses = deque(items), Counter[str]()
    resource = "CPU" if stage.device == "cpu" else "GPU"  # which of the two there is one of for every actor
    tasks: dict[Any, _Task] = {}  # by the reference to their result; one an actor
    while queue or any(task.item is not None for task in tasks.values()):
        available = int(ray.cluster_resources().get(resource, 0))
        for _ in range(min(workers or available, available, len(tasks) + len(queue)) - len(tasks)):
            options = _actor_class().options(num_gpus=int(resource == "GPU"))
            actor = options.remote(sys.path, pickle.dumps(stage), time_limit)
            tasks[actor.ready.remote()] = _Task(actor, None)
        if not tasks:
            raise StageError(f"the Ray cluster has no {resource}s for the stage {stage.name}")
        for reference in ray.wait(list(tasks), timeout=10.0)[0]:
            task = tasks.pop(reference)
            try:
                outcome = ray.get(reference)
            except ray.exceptions.RayActorError as error:
                outcome = _lost(stage, task, losses, queue, error)
            else:
                _go_on(task.actor, queue, tasks)
            if outcome is not None:
                yield outcome


def _go_on(actor: Any, queue: deque[Item], tasks: dict[Any, _Task]) -> None:
    """Give the actor its next item, or let it go."""
    import ray

    if queue:
        item = queue.popleft()
        tasks[actor.make.remote(item)] = _Task(actor, item)
    else:
        with suppress(ray.exceptions.RayActorError):  # lost with its machine, but not missed
            ray.get(actor.close.remote())


def _lost(stage: Stage, task: _Task, losses: Counter[str], queue: deque[Item], error: Exception) -> Outcome | None:
    """Queue the item of a lost actor again; its failure as the outcome if that happened too often."""
    item = task.item
    if item is None:
        raise StageError(f"an actor of Ray cannot start: {error}") from error
    losses[item.name] += 1
    if losses[item.name] < MAX_LOSSES:
        queue.append(item)
        return None
    sentence = f"its Ray actor died {MAX_LOSSES} times"
    stage.fail(item, sentence, str(error))
    return Outcome(item.name, sentence)


@functools.cache
def _actor_class() -> Any:
    """The class of actors, in a function as Ray is imported only where it is used. Ray sends the class by value; an
    actor imports this package after it was told the driver's path."""
    import ray

    @ray.remote(num_cpus=1)
    class Maker:
        def __init__(self, path: list[str], stage: bytes, time_limit: float):
            sys.path += [folder for folder in path if folder not in sys.path]
            from dataset_toolkits.engine.workers import Worker

            self.worker = Worker(pickle.loads(stage), time_limit, threads=1)

        def ready(self) -> None:
            """Answered once the actor has its core."""

        def make(self, item: Item) -> Outcome:
            return self.worker.make(item)

        def close(self) -> None:
            self.worker.close()

    return Maker
