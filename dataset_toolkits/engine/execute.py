"""Running a stage: its items in worker processes, on this machine or a Ray cluster, then its table."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from queue import SimpleQueue

from dataset_toolkits.engine.records import Record, sweep_temporary, write_table
from dataset_toolkits.engine.stage import Item, Stage, StageError
from dataset_toolkits.engine.workers import VISIBLE_GPUS, Outcome, Worker
from ss4d.data.format import INPUTS, RECORD_COLUMNS, Row, read_table, table_path
from ss4d.data.provenance import write_inputs
from ss4d.shard import Shard


@dataclass(frozen=True)
class Execution:
    """Where and how items are made; it does not change what is made."""

    workers: int | None = None  # processes; None: one per core, or per GPU where the stage computes on one
    executor: str = "local"  # or "ray"
    address: str = "auto"  # of the Ray cluster
    shard: Shard = Shard()
    time_limit: float | None = None  # seconds per item; None: that of the stage
    retry: bool = False  # make failed items again


def run_stage(stage: Stage, execution: Execution) -> int:
    """Make the items of this shard that are not done, and the table once all items of the stage have a record.

    Returns:
        The number of failed items of the shard, including those that failed in an earlier run.

    Raises:
        StageError: an earlier stage is not complete, two items share a name, or workers cannot start.
    """
    sweep_temporary(stage.root)
    items = stage.items()
    if twice := [name for name, count in Counter(item.name for item in items).items() if count > 1]:
        raise StageError(
            f"two items of {stage.name} share the name {twice[0]}: rename the asset or clip of one of them"
        )
    records = [stage.current_record(item) for item in items]
    pending = [
        item
        for item, record in execution.shard.of(list(zip(items, records, strict=True)))
        if record is None or (execution.retry and record.error is not None)
    ]
    if None in records or not _is_table_of(stage, items):
        table_path(stage.root, stage.name).unlink(missing_ok=True)
    try:
        _make(stage, pending, execution)
    finally:
        sweep_temporary(stage.root)

    records = [stage.current_record(item) for item in items]
    missing = records.count(None)
    if not missing:
        stage.finish()  # always: what it sums up may depend on more than the items, such as their split
    if not missing and (pending or not table_path(stage.root, stage.name).exists()):
        write_table(stage.root, stage.name, _rows([record for record in records if record is not None]))
    share = execution.shard.of(records)
    if lost := share.count(None):
        raise StageError(
            f"{stage.name}: {lost} of {len(share)} items left no record in {stage.root}: with --executor ray it must "
            "be a folder that all machines share"
        )
    failed = sum(record is not None and record.error is not None for record in share)
    state = f"the table waits for {missing} items of other shards" if missing else f"{len(items)} items in the table"
    print(f"{stage.name}: {len(pending)} made, {len(share) - len(pending)} were there, {failed} failed; {state}")
    return failed


def _make(stage: Stage, items: Sequence[Item], execution: Execution) -> None:
    from tqdm import tqdm

    interval = 0.2 if sys.stderr.isatty() else 30.0
    progress = tqdm(total=len(items), desc=stage.name, unit="item", mininterval=interval, disable=not items)
    failed = 0
    with progress, closing(_outcomes(stage, items, execution)) as outcomes:
        for outcome in outcomes:
            if outcome.error is not None:
                failed += 1
                progress.set_postfix(failed=failed, refresh=False)
                progress.write(f"FAILED {stage.name} {outcome.name}: {outcome.error}", file=sys.stderr)
            progress.update()


def _outcomes(stage: Stage, items: Sequence[Item], execution: Execution) -> Generator[Outcome, None, None]:
    time_limit = execution.time_limit or stage.time_limit
    if not items:
        return
    if execution.executor == "ray":
        from dataset_toolkits.engine.ray_executor import make_on_ray

        yield from make_on_ray(stage, items, time_limit, execution.address, execution.workers)
    else:
        yield from make_locally(stage, items, time_limit, execution.workers)


def make_locally(
    stage: Stage, items: Sequence[Item], time_limit: float, workers: int | None
) -> Generator[Outcome, None, None]:
    """Make items in a pool of worker processes; yields outcomes as they are ready."""
    cores, gpus = len(os.sched_getaffinity(0)), gpus_of(stage)
    count = min(workers or len(gpus) or cores, len(items))
    share = max(1, cores // count)
    crew = [Worker(stage, time_limit, share, gpus[i % len(gpus)] if gpus else None) for i in range(count)]
    idle: SimpleQueue[Worker] = SimpleQueue()
    for worker in crew:
        idle.put(worker)

    def make(item: Item) -> Outcome:
        worker = idle.get()
        try:
            return worker.make(item)
        finally:
            idle.put(worker)

    # A thread only waits for its worker. A worker dies with the thread that started it, so threads must last as long as
    # the pool.
    with ThreadPoolExecutor(count) as threads:
        futures = [threads.submit(make, item) for item in items]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            for future in futures:
                future.cancel()
            for worker in crew:
                worker.kill()
            raise
        for worker in crew:
            worker.close()


def gpus_of(stage: Stage) -> list[str | None]:
    """The GPUs that workers share out, as CUDA_VISIBLE_DEVICES names them; none for a stage on the CPU. None in their
    place stands for the one that the stage names itself."""
    if stage.device == "cpu":
        return []
    if ":" in stage.device:
        return [None]
    import torch

    visible = os.environ.get(VISIBLE_GPUS)
    return list(visible.split(",") if visible else map(str, range(torch.cuda.device_count()))) or [None]


def _is_table_of(stage: Stage, items: Sequence[Item]) -> bool:
    """Whether there is a table of these items, made from the current options and inputs."""
    if not table_path(stage.root, stage.name).exists():
        return False
    rows = read_table(stage.root, stage.name)
    listed = list(dict.fromkeys((row["name"], row["key"]) for row in rows))
    return listed == [(item.name, stage.key(item)) for item in items] and all(INPUTS in row for row in rows)


def _rows(records: Sequence[Record]) -> list[Row]:
    """The rows of a table: at least one per item; that of a failed item holds its error alone."""
    rows: list[Row] = []
    for record in records:
        status = "done" if record.error is None else "failed"
        values = record.name, record.key, status, record.error, write_inputs(record.inputs)
        head = dict(zip(RECORD_COLUMNS, values, strict=True))
        rows += [{**head, **row} for row in record.rows or [{}]]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return [{column: row.get(column) for column in columns} for row in rows]
