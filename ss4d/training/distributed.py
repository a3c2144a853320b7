"""One process or many: torchrun and SLURM, DDP and FSDP2."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")
PATIENCE = timedelta(hours=1)  # of processes while the first one writes or checks a checkpoint on a slow disk


@dataclass(frozen=True)
class World:
    """This process among all that train together."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0


@contextmanager
def joined_world(gpus: int | None) -> Iterator[World]:
    """Join the processes that torchrun or SLURM started; alone where neither did.

    Args:
        gpus: how many processes the config expects, one a GPU (or a CPU process); None takes what was started.

    Raises:
        ValueError: another number was started.
    """
    _variables_of_slurm()
    size = int(os.environ.get("WORLD_SIZE", 1))
    if gpus is not None and gpus != size:
        raise ValueError(
            f"gpus = {gpus}, but {size} process{'es were' * (size > 1) or ' was'} started: "
            f"run `torchrun --nproc-per-node {gpus} train.py ...`, or set gpus=null"
        )
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", _own_gpu(torch.cuda.device_count())) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    if "WORLD_SIZE" not in os.environ:
        yield World(0, 1, device)
        return
    dist.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE)
    try:
        yield World(dist.get_rank(), size, device)
        dist.barrier()  # none leaves while another still talks to it, or to the store, which the first process holds
    finally:
        if not cuda:
            _keep_alive(dist.group.WORLD)
        dist.destroy_process_group()


def _own_gpu(count: int) -> int:
    """The number of this process's GPU among those that it sees: SLURM may show each task its own alone.

    Raises:
        ValueError: there are fewer GPUs than processes on this machine.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    if count == 1 and "SLURM_JOB_ID" in os.environ:
        return 0
    if local_rank >= count:
        raise ValueError(
            f"process {local_rank} of this machine has no GPU, there are {count}: start one process a GPU "
            f"(`torchrun --nproc-per-node {count} train.py ...`)"
        )
    return local_rank


def _keep_alive(group: dist.ProcessGroup | None) -> None:
    """Never run the destructor of a Gloo group: the process may hang in it.

    It waits for Gloo's threads while Python's lock is held, and one of these may be waiting for that lock, to free the
    tensor of the last exchange (torch 2.13; whatever drops the last reference, often DDP, then never returns).
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(group))


def _variables_of_slurm() -> None:
    """torchrun's variables for a task that hydra's submitit launcher started.

    Raises:
        ValueError: one of several tasks that SLURM started by itself, of which each would take itself for the only one.
    """
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    if tasks != "1" and not {"SUBMITIT_EXECUTOR", "WORLD_SIZE"} & set(os.environ):
        raise ValueError(
            f"SLURM started {tasks} tasks that do not know of each other: start one a node, with torchrun in it, or "
            "let train.py ask SLURM (hydra/launcher=submitit_slurm; docs/training.md)"
        )
    if "SUBMITIT_EXECUTOR" in os.environ and "WORLD_SIZE" not in os.environ:
        from submitit.helpers import TorchDistributedEnvironment

        TorchDistributedEnvironment().export(set_cuda_visible_devices=False)


def distribute(objective: nn.Module, models: Iterable[nn.Module], world: World, strategy: str) -> nn.Module:
    """The objective as it is to be called: gradients come out averaged over all processes.

    "ddp" copies the models to every process. "fsdp" cuts weights, gradients, optimiser state and average into one
    part a process, block by block (torch's fully_shard).

    Raises:
        ValueError: FSDP without a process group.
    """
    if strategy == "fsdp":
        if not dist.is_initialized():
            raise ValueError("train.strategy = fsdp needs processes: start with `torchrun --nproc-per-node N train.py`")
        mesh = init_device_mesh(world.device.type, (world.size,))
        for model in models:
            for block in getattr(model, "blocks", []):
                fully_shard(block, mesh=mesh)
            fully_shard(model, mesh=mesh)
        return objective
    return DistributedDataParallel(objective) if world.size > 1 else objective


@contextmanager
def gradients_kept_local(wrapped: nn.Module, models: Iterable[nn.Module], active: bool) -> Iterator[None]:
    """While `active`, backward passes add up gradients without exchanging them (all but the last of a step)."""
    sharded = [model for model in models if isinstance(model, FSDPModule)]
    for model in sharded:
        model.set_requires_gradient_sync(not active)
    if active and isinstance(wrapped, DistributedDataParallel):
        with wrapped.no_sync():
            yield
    else:
        yield


def full_tensor(tensor: Tensor) -> Tensor:
    """A tensor that may be sharded over processes, gathered on each (all must call this)."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """This process' part of a tensor, sharing its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def gathered(value: Any, world: World) -> list[Any]:
    """The value of every process, in order of rank."""
    if world.size == 1:
        return [value]
    values: list[Any] = [None] * world.size
    dist.all_gather_object(values, value)
    return values


def from_first(value: Any, world: World) -> Any:
    """What the first process holds."""
    if world.size == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def by_first(work: Callable[[], T], world: World) -> T:
    """What `work` returns to the first process, which alone calls it.

    Raises:
        ValueError: on all processes, where it does on the first.
    """
    result, refusal = None, None
    if world.is_first:
        try:
            result = work()
        except ValueError as error:
            refusal = str(error)
    result, refusal = from_first((result, refusal), world)
    if refusal is not None:
        raise ValueError(refusal)
    return result  # type: ignore[return-value]


def wait_for_all(world: World) -> None:
    """Return when every process has come here."""
    if world.size > 1:
        dist.barrier()


def highest(value: int | None, world: World) -> int | None:
    """The highest value that any process holds, None where all hold None."""
    if world.size == 1:
        return value
    tensor = torch.tensor(-1 if value is None else value, device=world.device)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    result = int(tensor)
    return None if result < 0 else result
