"""A stage whose items do what their names say; `python fake_stage.py ROOT COUNT SHARD` drives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dataset_toolkits.engine.execute import Execution, run_stage
from dataset_toolkits.engine.stage import Item, Stage, speed_option
from ss4d.data.format import Row
from ss4d.shard import Shard


@dataclass(frozen=True)
class FakeOptions:
    scale: int = 1
    delay: float = speed_option(0.0)  # seconds an item


class FakeStage(Stage):
    name = "fake"
    suffix = ".txt"
    time_limit = 60.0

    def __init__(self, root: Path, options: FakeOptions, names: Sequence[str]):
        super().__init__(root, options)
        self.names = names

    def items(self) -> list[Item]:
        return [Item(name, {"length": len(name)}) for name in self.names]

    def process(self, item: Item, path: Path | None) -> list[Row]:
        assert path is not None
        path.write_text("half of it")
        time.sleep(self.options.delay)
        if item.name.startswith("raises"):
            raise ValueError(f"{item.name} is not what it should be: {path}")
        if item.name.startswith("dies"):
            os.kill(os.getpid(), signal.SIGSEGV)
        if item.name.startswith("exits"):
            os._exit(3)
        if item.name.startswith("hangs"):
            child = subprocess.Popen(["sleep", "600"])
            (self.root / "child.pid").write_text(str(child.pid))
            child.wait()
        path.write_text(f"{item.name} {item.inputs['length'] * self.options.scale}\n")
        return [{"length": item.inputs["length"], "half": half} for half in range(2)]


class NodeStage(FakeStage):
    """Its rows tell the processes apart that own the workers."""

    name = "nodes"

    def process(self, item: Item, path: Path | None) -> list[Row]:
        super().process(item, path)
        return [{"parent": os.getppid()}]


def names(count: int) -> list[str]:
    """Good items, then one that fails and one that ends its process."""
    return [f"item{i}" for i in range(count)] + ["raises", "exits"]


def snapshot(root: Path, leave_out: Sequence[str] = ()) -> dict[str, bytes]:
    """The content of every file of a data set, by path. Temporary files count."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file() and path.name not in leave_out)
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def drive(root: str, count: str, shard: str) -> None:
    """What a driver process of the tests runs."""
    run_stage(FakeStage(Path(root), FakeOptions(delay=0.02), names(int(count))), Execution(2, shard=Shard.parse(shard)))


if __name__ == "__main__":
    from fake_stage import drive as imported  # so that the stage is not of __main__, which workers do not import

    imported(*sys.argv[1:])
