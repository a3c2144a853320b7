from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_stage import FakeOptions, FakeStage, NodeStage, names, snapshot

from dataset_toolkits.engine.execute import Execution, run_stage
from dataset_toolkits.engine.stage import StageError
from ss4d.data.format import read_table


@pytest.fixture
def no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said where there is none. Before there is one, not in a test of its own: "auto" finds the cluster of a
    test that runs at the same time."""
    pytest.importorskip("ray")
    with monkeypatch.context() as patch, pytest.raises(StageError, match="no Ray cluster at address auto"):
        patch.setenv("RAY_TMPDIR", str(tmp_path))  # no trace there of a cluster that ran on this machine
        patch.delenv("RAY_ADDRESS", raising=False)
        run_stage(FakeStage(tmp_path, FakeOptions(), ["item"]), Execution(executor="ray"))


@pytest.fixture
def cluster() -> Iterator[str]:
    """Address of a Ray cluster of two nodes, with one core each, in processes of this machine."""
    pytest.importorskip("ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    from ray.cluster_utils import Cluster

    arguments: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
    nodes = Cluster(initialize_head=True, head_node_args=arguments)
    nodes.add_node(**arguments)
    yield nodes.address
    nodes.shutdown()


@pytest.mark.slow
def test_two_nodes_give_what_one_process_gives(no_cluster: None, cluster: str, tmp_path: Path) -> None:
    items = [*names(12), "hangs"]
    roots = [tmp_path / "ray", tmp_path / "local"]
    executions = [
        Execution(executor="ray", address=cluster, time_limit=1.5),
        Execution(executor="local", workers=1, time_limit=1.5),
    ]
    failed = [
        run_stage(FakeStage(root, FakeOptions(), items), execution)
        for root, execution in zip(roots, executions, strict=True)
    ]

    assert failed == [3, 3]
    ray_files, local_files = (snapshot(root, leave_out=("child.pid", "hangs.json")) for root in roots)
    assert ray_files == local_files
    assert len(local_files) == 12 + 14 + 1  # artifacts, records, table
    child = int((roots[0] / "child.pid").read_text())
    assert not Path(f"/proc/{child}").exists()

    # Both nodes work: each actor keeps its own worker process, which the items name.
    stage = NodeStage(tmp_path / "nodes", FakeOptions(delay=0.2), names(10)[:10])
    run_stage(stage, executions[0])
    assert len({row["parent"] for row in read_table(stage.root, stage.name)}) == 2
