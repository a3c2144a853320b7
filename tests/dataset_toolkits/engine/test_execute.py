from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import fake_stage
import pytest
import torch
from fake_stage import FakeOptions, FakeStage, names, snapshot

from dataset_toolkits.encode import EncodeOptions, EncodeStage
from dataset_toolkits.engine.execute import Execution, gpus_of, run_stage
from dataset_toolkits.engine.records import read_record
from dataset_toolkits.engine.stage import Item, Stage, StageError
from dataset_toolkits.engine.workers import Worker
from dataset_toolkits.features.stage import FeaturesOptions, FeaturesStage
from dataset_toolkits.render import RenderOptions, RenderStage
from ss4d.data.format import Row, read_table, table_path
from ss4d.shard import Shard

COUNT = 30
LOCAL = Execution(workers=2)


class FinishingStage(FakeStage):
    name = "finishing"

    def finish(self) -> None:
        (self.root / "finished").write_text(f"table there: {table_path(self.root, self.name).exists()}")


class BrokenStage(FakeStage):
    def __setstate__(self, state: object) -> None:
        raise ImportError("no such library")


def start_driver(root: Path, count: int = COUNT, shard: str = "0/1") -> subprocess.Popen[str]:
    repository = Path(__file__).parents[3]
    return subprocess.Popen(
        [sys.executable, fake_stage.__file__, str(root), str(count), shard],
        env=os.environ | {"PYTHONPATH": str(repository)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def gone(pid: int, seconds: float = 5.0) -> bool:
    """Whether the process ends soon; one that only waits for its parent to notice has ended."""
    deadline = time.monotonic() + seconds
    status = Path(f"/proc/{pid}/status")
    while time.monotonic() < deadline:
        if not status.exists() or "State:\tZ" in status.read_text():
            return True
        time.sleep(0.02)
    return False


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    root = tmp_path_factory.mktemp("uninterrupted")
    assert run_stage(FakeStage(root, FakeOptions(delay=0.02), names(COUNT)), LOCAL) == 2
    return snapshot(root)


def test_table_and_artifacts(tmp_path: Path) -> None:
    root = tmp_path / "a folder with spaces and ünïcödé 動"
    stage = FakeStage(root, FakeOptions(scale=3), ["b", "raises", "long name", "a"])

    assert run_stage(stage, LOCAL) == 1

    rows = read_table(root, "fake")
    assert [(row["name"], row["half"]) for row in rows] == [
        *[("b", 0), ("b", 1)],
        ("raises", None),
        *[("long name", 0), ("long name", 1), ("a", 0), ("a", 1)],
    ]
    assert list(rows[0])[:5] == ["name", "key", "status", "error", "inputs"]
    assert rows[2] | {"key": ""} == {
        "name": "raises",
        "key": "",
        "status": "failed",
        "error": "raises is not what it should be: artifact.txt",
        "inputs": '{"length":6}',
        "half": None,
        "length": None,
    }
    assert (root / "fake" / "b.txt").read_text() == "b 3\n"
    assert not (root / "fake" / "raises.txt").exists()
    record = read_record(root, "fake", "raises")
    assert record is not None
    assert 'raise ValueError(f"{item.name} is not' in (record.traceback or "")
    assert not list((root / "tmp").iterdir())


def test_an_item_that_hangs_is_killed_with_its_children(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    stage = FakeStage(tmp_path, FakeOptions(), ["hangs", "item1", "item2"])
    start = time.monotonic()

    assert run_stage(stage, Execution(workers=1, time_limit=0.5)) == 1

    assert time.monotonic() - start < 15
    assert gone(int((tmp_path / "child.pid").read_text()))
    assert [row["error"] for row in read_table(tmp_path, "fake")] == ["took longer than 0.5 s", None, None, None, None]
    record = read_record(tmp_path, "fake", "hangs")
    assert record is not None
    assert "in process" in (record.traceback or "")  # where it hung
    assert "FAILED fake hangs: took longer than 0.5 s" in capfd.readouterr().err


def test_an_item_that_kills_its_process_costs_itself_alone(tmp_path: Path) -> None:
    stage = FakeStage(tmp_path, FakeOptions(), ["dies", "exits", "item"])

    assert run_stage(stage, Execution(workers=1)) == 2

    errors = {row["name"]: row["error"] for row in read_table(tmp_path, "fake")}
    assert errors == {
        "dies": "the worker process died of SIGSEGV",
        "exits": "the worker process exited with status 3",
        "item": None,
    }
    record = read_record(tmp_path, "fake", "dies")
    assert record is not None
    assert "Segmentation fault" in (record.traceback or "")


def test_killed_from_outside_looks_like_out_of_memory(tmp_path: Path) -> None:
    stage = KillingStage(tmp_path, FakeOptions(), ["item"])
    assert run_stage(stage, Execution(workers=1)) == 1
    [row] = read_table(tmp_path, "fake")
    assert row["error"] == "the worker process died of SIGKILL (out of memory?)"


class KillingStage(FakeStage):
    def process(self, item: Item, path: Path | None) -> list[Row]:
        os.kill(os.getpid(), signal.SIGKILL)
        return []


def test_resume_makes_only_what_is_missing_and_retry_the_failed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    stage = FakeStage(tmp_path, FakeOptions(), ["item1", "raises", "item2"])
    run_stage(stage, LOCAL)
    stage.artifact("item2").unlink()
    capsys.readouterr()

    assert run_stage(stage, LOCAL) == 1
    assert "fake: 1 made, 2 were there, 1 failed; 3 items in the table" in capsys.readouterr().out
    before = snapshot(tmp_path)
    assert run_stage(stage, LOCAL) == 1
    assert "fake: 0 made" in capsys.readouterr().out
    assert run_stage(stage, Execution(workers=1, retry=True)) == 1
    assert "fake: 1 made, 2 were there" in capsys.readouterr().out
    assert snapshot(tmp_path) == before


def test_an_option_makes_everything_again_an_input_its_item(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run_stage(FakeStage(tmp_path, FakeOptions(), ["one", "three"]), LOCAL)
    run_stage(FakeStage(tmp_path, FakeOptions(scale=2), ["one", "three"]), LOCAL)
    assert "fake: 2 made" in capsys.readouterr().out
    assert (tmp_path / "fake" / "three.txt").read_text() == "three 10\n"

    run_stage(OtherInputStage(tmp_path, FakeOptions(scale=2), ["one", "three"]), LOCAL)
    assert "fake: 1 made, 1 were there" in capsys.readouterr().out


class OtherInputStage(FakeStage):
    def items(self) -> list[Item]:
        return [Item(name, {"length": 3}) for name in self.names]


def test_a_table_that_is_out_of_date_goes_first(tmp_path: Path) -> None:
    run_stage(FakeStage(tmp_path, FakeOptions(), ["item1", "item2"]), LOCAL)
    stage = FakeStage(tmp_path, FakeOptions(scale=2), ["item1", "item2"])

    run_stage(stage, Execution(workers=1, shard=Shard(0, 2)))
    assert not table_path(tmp_path, "fake").exists()
    run_stage(stage, Execution(workers=1, shard=Shard(1, 2)))
    assert len(read_table(tmp_path, "fake")) == 4

    run_stage(FakeStage(tmp_path, FakeOptions(scale=2), ["item2"]), LOCAL)  # nothing to make, but fewer items
    assert [row["name"] for row in read_table(tmp_path, "fake")] == ["item2", "item2"]


def test_a_failure_removes_what_older_options_made(tmp_path: Path) -> None:
    run_stage(FakeStage(tmp_path, FakeOptions(), ["item"]), LOCAL)
    run_stage(KillingStage(tmp_path, FakeOptions(scale=2), ["item"]), LOCAL)
    assert not (tmp_path / "fake" / "item.txt").exists()


def test_finish_runs_once_all_items_are_there_and_before_the_table(tmp_path: Path) -> None:
    stage = FinishingStage(tmp_path, FakeOptions(), ["item1", "item2"])
    run_stage(stage, Execution(workers=1, shard=Shard(0, 2)))
    assert not (tmp_path / "finished").exists()
    run_stage(stage, Execution(workers=1, shard=Shard(1, 2)))
    assert (tmp_path / "finished").read_text() == "table there: False"


def test_a_worker_that_cannot_start_stops_the_stage(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"(?s)a worker process of fake cannot start.*no such library"):
        run_stage(BrokenStage(tmp_path, FakeOptions(), ["item1", "item2", "item3"]), LOCAL)
    assert not (tmp_path / "records").exists()


def test_workers_are_long_lived_and_limit_their_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)
    worker = Worker(EnvironmentStage(tmp_path, FakeOptions(), []), time_limit=30, threads=3)
    items = [Item(name, {"length": 1}) for name in ("a", "b", "c")]
    for item in items:
        assert worker.make(item).error is None
    worker.close()

    records = [read_record(tmp_path, "environment", item.name) for item in items]
    [row] = {tuple(sorted(record.rows[0].items())) for record in records if record is not None}
    assert dict(row) == {"pid": dict(row)["pid"], "omp": "3", "numba": "3"}
    assert gone(int(dict(row)["pid"]))
    assert (tmp_path / "closed").read_text() == str(dict(row)["pid"])  # in the worker, not here


class GpuStage(FakeStage):
    name = "gpu"
    device = "cuda"  # type: ignore[assignment]

    def process(self, item: Item, path: Path | None) -> list[Row]:
        super().process(item, path)
        return [{"pid": os.getpid(), "gpu": os.environ["CUDA_VISIBLE_DEVICES"]}]


@pytest.mark.parametrize(("workers", "processes"), [(None, 2), (4, 4)])
def test_every_worker_has_a_gpu_of_its_own(
    workers: int | None, processes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-8a")
    items = [f"item{number}" for number in range(12)]
    run_stage(GpuStage(tmp_path, FakeOptions(), items), Execution(workers=workers))
    rows = {(row["pid"], row["gpu"]) for row in read_table(tmp_path, "gpu")}
    assert len(rows) == len({pid for pid, _ in rows}) <= processes and {gpu for _, gpu in rows} == {"5", "GPU-8a"}


@pytest.mark.parametrize(("device", "gpus"), [("cpu", []), ("cuda:3", [None]), ("cuda", ["0", "1", "2"])])
def test_the_gpus_of_a_stage(
    device: str, gpus: list[str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(FakeStage, "device", device)
    assert gpus_of(FakeStage(tmp_path, FakeOptions(), [])) == gpus


class EnvironmentStage(FakeStage):
    name = "environment"

    def process(self, item: Item, path: Path | None) -> list[Row]:
        super().process(item, path)
        return [{"pid": os.getpid(), "omp": os.environ["OMP_NUM_THREADS"], "numba": os.environ["NUMBA_NUM_THREADS"]}]

    def close(self) -> None:
        (self.root / "closed").write_text(str(os.getpid()))


def test_two_shards_give_what_one_process_gives(tmp_path: Path, uninterrupted: dict[str, bytes]) -> None:
    stage = FakeStage(tmp_path, FakeOptions(delay=0.02), names(COUNT))
    failed = [run_stage(stage, Execution(workers=2, shard=Shard.parse(text))) for text in ("1/2", "0/2")]
    assert failed == [1, 1]
    assert snapshot(tmp_path) == uninterrupted


def test_two_drivers_at_once(tmp_path: Path, uninterrupted: dict[str, bytes]) -> None:
    drivers = [start_driver(tmp_path) for _ in range(2)]
    assert all("32 items in the table" in driver.communicate(timeout=60)[0] for driver in drivers)
    assert [driver.returncode for driver in drivers] == [0, 0]
    assert snapshot(tmp_path) == uninterrupted


def test_kill_at_ten_random_moments(tmp_path: Path, uninterrupted: dict[str, bytes]) -> None:
    moments = random.Random(0)
    finished = 0
    for _ in range(10):
        driver = start_driver(tmp_path)
        deadline = time.monotonic() + 10
        records = len(list(tmp_path.glob("records/fake/*")))
        while len(list(tmp_path.glob("records/fake/*"))) == records and time.monotonic() < deadline:
            if driver.poll() is not None:
                break
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.05))
        workers = _children(driver.pid)
        driver.kill()
        driver.wait()
        finished += driver.returncode == 0
        assert all(gone(pid) for pid in workers)
    assert finished < 10
    driver = start_driver(tmp_path)
    driver.communicate(timeout=60)
    assert driver.returncode == 0
    assert snapshot(tmp_path) == uninterrupted
    assert not list((tmp_path / "tmp").iterdir())


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def test_interrupt_stops_the_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> Iterator[object]:
        raise KeyboardInterrupt

    stage = FakeStage(tmp_path, FakeOptions(), ["item", "hangs", "item3", "item4"])
    monkeypatch.setattr("concurrent.futures.Future.result", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_stage(stage, Execution(workers=2, time_limit=60))
    assert read_record(tmp_path, "fake", "hangs") is None  # it did not fail
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize("text", ["2/2", "-1/2", "a/b", "1", "0/0", "1/"])
def test_bad_shards(text: str) -> None:
    with pytest.raises(ValueError, match="is not of the form i/n"):
        Shard.parse(text)


def test_items_that_share_a_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="share the name twin"):
        run_stage(FakeStage(tmp_path, FakeOptions(), ["twin", "other", "twin"]), LOCAL)
    assert not (tmp_path / "fake").exists()


@pytest.mark.parametrize(
    ("stage", "device"),
    [
        (RenderStage(Path(), RenderOptions()), "cpu"),
        (RenderStage(Path(), RenderOptions(device="GPU")), "cuda"),
        (RenderStage(Path(), RenderOptions(device="GPU", engine="BLENDER_WORKBENCH")), "cpu"),
        (FeaturesStage(Path(), FeaturesOptions(device="cuda")), "cpu"),  # the small extractor has no network
        (FeaturesStage(Path(), FeaturesOptions(device="cuda", extractor="dinov2")), "cuda"),
        (EncodeStage(Path(), EncodeOptions(device="cuda:1")), "cuda:1"),
    ],
)
def test_what_a_stage_computes_on(stage: Stage, device: str) -> None:
    assert stage.device == device
