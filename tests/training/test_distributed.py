"""Two processes do what one does that accumulates twice as much, copied (DDP) or cut up (FSDP2): to the bit.

The mean over two is the same sum in any order, and the gradients here are shorter than the clip: their norm, which
FSDP sums in parts, changes nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from small_runs import fit, logged, overrides, same_weights

import train
from ss4d.training.distributed import World, _own_gpu, joined_world

STEPS = 20
COMMON = [f"train.steps={STEPS}", "train.precision=fp32", "train.learning_rate=1e-3", "train.save_every=10"]
CONSTANT = ["train.final_learning_rate=1e-3"]  # whatever the number of steps


# Several command lines of train.py in the same processes, for they import torch once; each has its own part of
# torchrun's store. In the last one, SIGTERM comes to the second process between its second step and the exchange.
SCRIPT = """
import json, os, signal, sys
import torch.distributed as dist
import train
from ss4d.training import stopping

join = dist.init_process_group
address, port, rank, size = (os.environ[name] for name in ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE"))

def join_apart(backend, timeout):
    store = dist.PrefixStore(f"run {number}", dist.TCPStore(address, int(port), is_master=False))
    join(backend, store=store, rank=int(rank), world_size=int(size), timeout=timeout)

dist.init_process_group = join_apart
exchange, calls = stopping.highest, []

def interrupted(value, world):
    calls.append(value)
    if len(calls) == 2 and world.rank == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    return exchange(value, world)

command_lines = json.loads(sys.argv[1])
for number, line in enumerate(command_lines):
    if number == len(command_lines) - 1:
        stopping.highest = interrupted
    sys.argv[1:] = line
    try:
        train.main()
    except SystemExit as end:
        print(f"status of {number}: {end.code}")
"""


@dataclass(frozen=True)
class Runs:
    """Runs of two processes, and what they printed."""

    folder: Path
    printed: str


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, clip_folder: Path) -> Runs:
    """`torchrun` with two processes: DDP, FSDP, the first half of a run with FSDP, and one that is stopped."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "start.py").write_text(SCRIPT)

    def line(experiment: str, name: str, *changes: str) -> list[str]:
        return overrides(experiment, clip_folder, folder / name, *changes, "gpus=2")

    command_lines = [
        line("structure_flow", "ddp", *COMMON, "train.strategy=ddp"),
        line("structure_flow", "fsdp", *COMMON, "train.strategy=fsdp"),
        line("structure_flow", "changing", *COMMON, *CONSTANT, "train.steps=10", "train.strategy=fsdp"),
        line("structure_vae", "stopped", "train.steps=500"),
    ]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(train.__file__).parent)}
    result = subprocess.run(
        [*command, str(folder / "start.py"), json.dumps(command_lines)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return Runs(folder, result.stdout)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """As the two processes have: more threads may add up in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, clip_folder: Path) -> Path:
    """One process that accumulates two batches a step."""
    folder = tmp_path_factory.mktemp("alone")
    return fit("structure_flow", clip_folder, folder, *COMMON, "accumulation=2", "gpus=1")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_equal_one_with_accumulation(strategy: str, alone: Path, two: Runs):
    run_dir = two.folder / strategy
    assert same_weights(run_dir, alone)
    assert logged(run_dir) == pytest.approx(logged(alone), rel=1e-5)  # means of two or of one, with six digits
    norms = logged(alone, "gradient_norm")
    assert logged(run_dir, "gradient_norm") == pytest.approx(norms, rel=1e-5) and max(norms) < 1


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(two: Runs, tmp_path: Path, clip_folder: Path):
    schedule = [*COMMON, *CONSTANT, "accumulation=2"]
    whole = fit("structure_flow", clip_folder, tmp_path, *schedule, folder="whole")
    assert len(logged(two.folder / "changing")) == 10
    changing = fit("structure_flow", clip_folder, two.folder, *schedule, folder="changing")
    assert same_weights(changing, whole) and logged(changing) == logged(whole)


@pytest.mark.slow
def test_a_signal_to_one_of_two_processes_during_the_exchange_stops_both(two: Runs):
    assert "stopped by signal 15 after step 3;" in two.printed
    assert two.printed.count("status of 3: 143") == 2 and two.printed.count("status of") == 2
    stopped = two.folder / "stopped"
    assert (stopped / "checkpoints/step_00000003").is_dir() and len(logged(stopped)) == 3


def test_the_number_of_processes_must_be_the_expected_one():
    wrong = pytest.raises(ValueError, match=r"gpus = 8, but 1 process was started: run `torchrun --nproc-per-node 8")
    with wrong, joined_world(8):
        pass
    with joined_world(None) as world:
        assert world == World(0, 1, torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu"))


ENDS_AT_ONCE = """
import sys
import torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from ss4d.training.distributed import highest, joined_world, World

sys.setswitchinterval(1000)  # the main thread keeps Python's lock, as it may on a busy machine
for _ in range(30):
    with joined_world(1) as world:
        model = DistributedDataParallel(torch.nn.Linear(2, 2))
        model(torch.ones(1, 2)).sum().backward()
        highest(1, World(0, 2, world.device))  # exchanged, though this process is alone
    del model
"""


def test_a_group_of_processes_ends_while_its_threads_still_free_tensors():
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "RANK": "0", "WORLD_SIZE": "1"}
    subprocess.run([sys.executable, "-c", ENDS_AT_ONCE], env=environment, check=True, timeout=100)


def test_fsdp_needs_processes(tmp_path: Path, clip_folder: Path):
    with pytest.raises(ValueError, match=r"train\.strategy = fsdp needs processes: start with `torchrun"):
        fit("structure_flow", clip_folder, tmp_path, "train.steps=1", "train.strategy=fsdp")


@pytest.mark.slow
def test_hydras_submitit_launcher_starts_two_tasks(tmp_path: Path):
    pytest.importorskip("submitit", reason="needs hydra-submitit-launcher")
    script = Path(train.__file__)
    launcher = ["hydra/launcher=submitit_local", "hydra.launcher.tasks_per_node=2", "hydra.launcher.timeout_min=5"]
    lines = ["experiment=structure_vae/tiny", f"data.root={script.parent}/assets/four_clips", f"run_dir={tmp_path}/run"]
    small = ["models.encoder.args.channels=[4,4,4]", "models.decoder.args.channels=[4,4,4]", "batch_size=1"]
    small += ["train.validate_every=0", "train.preview_every=0"]  # four clips hold none out
    rest = ["phases=null", "train.steps=2", "train.log_every=1", "gpus=2", f"hydra.sweep.dir={tmp_path}/sweep", *small]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), "-m", *launcher, *lines, *rest]
    started = time.monotonic()
    result = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    seconds = time.monotonic() - started  # submitit kills tasks at its timeout, and says nothing of it
    assert result.returncode == 0, f"{result.stderr[-3000:]}\n{seconds:.0f} s; {logs_of_tasks(tmp_path / 'sweep')}"
    assert len(logged(tmp_path / "run")) == 2


def logs_of_tasks(sweep: Path) -> str:
    """The ends of what submitit's tasks printed, and which of them wrote a result."""
    results = sorted(path.name for path in sweep.rglob("*_result.pkl*"))
    logs = [f"{path.name}:\n{path.read_text()[-2000:]}" for path in sorted(sweep.rglob("*_log.*"))]
    return "\n".join([f"results: {results}", *logs])


@pytest.mark.parametrize(
    ("local_rank", "count", "slurm", "own"),
    [("3", 8, False, 3), ("0", 1, False, 0), ("3", 1, True, 0), ("3", 2, True, None), ("1", 1, False, None)],
)
def test_each_process_has_a_gpu_of_those_it_sees(
    local_rank: str, count: int, slurm: bool, own: int | None, monkeypatch: pytest.MonkeyPatch
):
    """SLURM may show a task its own GPU alone, whatever its rank."""
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    if slurm:
        monkeypatch.setenv("SLURM_JOB_ID", "1")
    if own is not None:
        assert _own_gpu(count) == own
    else:
        with pytest.raises(ValueError, match=f"process {local_rank} of this machine has no GPU, there are {count}"):
            _own_gpu(count)
