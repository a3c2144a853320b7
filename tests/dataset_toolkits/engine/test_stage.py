from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest
from fake_stage import FakeOptions, FakeStage

from dataset_toolkits.engine.records import read_record, sweep_temporary, temporary_folder, write_table
from dataset_toolkits.engine.stage import Item
from ss4d.data.format import Row, read_table

ITEM = Item("item", {"length": 4})


def test_an_item_is_done_while_options_inputs_and_artifact_stay(tmp_path: Path) -> None:
    stage = FakeStage(tmp_path, FakeOptions(scale=2), [])
    assert stage.current_record(ITEM) is None
    stage.run(ITEM)
    assert stage.current_record(ITEM) is not None
    assert stage.artifact("item").read_text() == "item 8\n"
    assert stage.current_record(Item("item", {"length": 5})) is None
    assert FakeStage(tmp_path, FakeOptions(scale=3), []).current_record(ITEM) is None
    assert NewerStage(tmp_path, FakeOptions(scale=2), []).current_record(ITEM) is None
    stage.artifact("item").unlink()
    assert stage.current_record(ITEM) is None


class NewerStage(FakeStage):
    version = 2


def test_payload_and_name_do_not_decide_the_key(tmp_path: Path) -> None:
    stage = FakeStage(tmp_path, FakeOptions(), [])
    assert stage.key(ITEM) == stage.key(Item("other", {"length": 4}, {"path": "/elsewhere"}))


def test_a_record_that_is_damaged_is_none(tmp_path: Path) -> None:
    stage = FakeStage(tmp_path, FakeOptions(), [])
    stage.run(ITEM)
    record = tmp_path / "records" / "fake" / "item.json"
    for content in ("", '{"name": "item"', '{"name": "item"}'):
        record.write_text(content)
        assert read_record(tmp_path, "fake", "item") is None
        assert stage.current_record(ITEM) is None


def test_a_process_that_ends_between_artifact_and_record_leaves_no_wrong_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made with one option; made with another and stopped before the record; then back to the first option."""
    first, second = (FakeStage(tmp_path, FakeOptions(scale=scale), []) for scale in (2, 3))
    first.run(ITEM)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("dataset_toolkits.engine.stage.write_record", stop)
        with pytest.raises(KeyboardInterrupt):
            second.run(ITEM)
    assert first.current_record(ITEM) is None


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    stage = FakeStage(tmp_path, FakeOptions(), [])
    with pytest.raises(ValueError, match="raises is not what it should be"):
        stage.run(Item("raises", {"length": 6}))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert not list((tmp_path / "tmp").iterdir())


def test_a_failure_is_recorded_without_what_changes_from_run_to_run(tmp_path: Path) -> None:
    stage = FakeStage(tmp_path, FakeOptions(), [])
    stage.run(ITEM)
    stage.fail(ITEM, f"cannot write {tmp_path}/tmp/host-12-ab_c/artifact.txt", "at 0x7f00aa11bb22 in line 3")
    record = read_record(tmp_path, "fake", "item")
    assert record is not None
    assert record.error == "cannot write artifact.txt"
    assert record.traceback == "at 0x... in line 3"
    assert stage.current_record(ITEM) is not None  # it is not tried again
    assert not stage.artifact("item").exists()


def test_tables(tmp_path: Path) -> None:
    rows: list[Row] = [{"name": "a", "values": [1, 2], "error": None}, {"name": "b", "values": [], "error": "it is"}]
    write_table(tmp_path, "fake", rows)
    content = (tmp_path / "tables" / "fake.parquet").read_bytes()
    assert read_table(tmp_path, "fake") == rows
    write_table(tmp_path, "fake", rows)
    assert (tmp_path / "tables" / "fake.parquet").read_bytes() == content
    write_table(tmp_path, "fake", [])
    assert read_table(tmp_path, "fake") == []
    with pytest.raises(ValueError, match=r"run `python -m dataset_toolkits other --root .*` to its end first"):
        read_table(tmp_path, "other")


def test_sweeping_spares_the_living_and_other_hosts(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    zombie = subprocess.Popen(["true"])
    os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)  # it has ended, but is still listed
    host = socket.gethostname()
    kept = [f"{host}-{os.getpid()}-a", f"elsewhere-{dead.pid}-b", f"{host}-2-{dead.pid}-c"]
    for name in [*kept, f"{host}-{dead.pid}-d", f"{host}-{zombie.pid}-e"]:
        (tmp_path / "tmp" / name).mkdir(parents=True)
    with temporary_folder(tmp_path) as folder:
        sweep_temporary(tmp_path)
        assert sorted(path.name for path in (tmp_path / "tmp").iterdir()) == sorted([*kept, folder.name])
    assert not folder.exists()
    zombie.wait()


def test_options_of_speed_do_not_count(tmp_path: Path) -> None:
    stage, slower, larger = (
        FakeStage(tmp_path, options, []) for options in (FakeOptions(), FakeOptions(delay=0.1), FakeOptions(scale=2))
    )
    assert slower.key(ITEM) == stage.key(ITEM) != larger.key(ITEM)
    assert slower.record(ITEM).options == {"scale": 1}
