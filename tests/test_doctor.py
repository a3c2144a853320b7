"""What `python -m ss4d.doctor` finds on this machine, and what it says where something is wrong."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from ss4d.backend import IMPLEMENTATIONS, BackendError
from ss4d.doctor import next_run, packages
from ss4d.doctor.__main__ import main
from ss4d.doctor.finding import BROKEN, MISSING, OK, Finding
from ss4d.doctor.machine import CGROUPS, machine, main_memory
from ss4d.doctor.self_test import self_test
from ss4d.memory import in_gigabytes


def by_name(findings) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Self-tests and imports answer at once."""
    monkeypatch.setattr(packages, "isolated", lambda script: "imports" if "import " in script[:7] else "error 0 on cpu")


def test_the_report_covers_everything_and_the_status_is_that_of_the_next_run(
    quick: None, pipeline_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--model", str(pipeline_folder), "--out", str(tmp_path / "out"), "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    assert said.strip().endswith("Ready.")
    for part, names in IMPLEMENTATIONS.items():
        assert all(f"{part}={name}" in said for name in names)
    for words in ("memory", "cpu", "rembg", "SHA-256", "GiB free", "--out out"):
        assert words in said
    assert not (tmp_path / "out").exists()


def test_what_the_next_run_would_stumble_over_is_named(
    quick: None, pipeline_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("mine")
    arguments = ["--out", str(tmp_path / "out"), "--device", "cuda:99", "--num-frames", "1000000"]
    for model, fault in ((tmp_path / "none", "--model none"), (pipeline_folder, "memory")):
        assert main([*arguments, "--model", str(model)]) == 1
        last = capsys.readouterr().out.strip().splitlines()[-1]
        assert last == f"The next run would fail: cuda:99, {fault}, --out out"


def test_a_mistyped_folder_is_no_name_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    assert next_run.loadable("checkpoints/typo").state == next_run.BROKEN
    assert next_run.loadable("somebody/model").state == next_run.NOTE


def test_memory_is_what_the_plan_counts(pipeline_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = next_run.plan_of(str(pipeline_folder), frames=8)
    assert plan is not None
    needed, least = int(plan.bytes), int(plan.least)
    options = argparse.Namespace(model=str(pipeline_folder), num_frames=8, device="cpu")
    bounded = f"--memory {in_gigabytes(least + 1)}"
    advised = {needed + 1: "", least + 1: bounded, least - 1: "take fewer frames: --num-frames"}
    for free, advice in advised.items():
        monkeypatch.setattr(next_run, "main_memory", lambda free=free: (free, free))
        (found,) = next_run.memory(options)
        assert found.state == (BROKEN if advice else OK) and found.advice == advice
        assert f"about {needed / 2**30:.1f} GiB for 8 frames" in found.detail


def test_the_json_is_for_bug_reports(quick: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["--json", "--model", str(tmp_path / "none"), "--out", str(tmp_path / "private/out")])
    text = capsys.readouterr().out
    findings = json.loads(text)
    assert status == 1 and {"section", "name", "state", "detail", "advice"} == set(findings[0])
    assert str(tmp_path) not in text and str(Path.home()) + "/" not in text and "private" not in text


def test_what_is_not_installed_comes_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    found = by_name(packages.extras())
    assert found["rembg"].state == MISSING and found["rembg"].advice == "pip install -e '.[matting]'"
    (required,) = packages.required_packages()
    assert required.state == BROKEN and required.advice.startswith("pip install torch numpy")


@pytest.mark.parametrize(("part", "name"), [("attention", "sdpa"), ("convolution", "ours"), ("rasterizer", "numba")])
def test_the_self_tests_run(part: str, name: str) -> None:
    assert self_test(part, name, "cpu").endswith("on cpu")


def test_a_wrong_implementation_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from ss4d.nn import attention

    kernel = attention._KERNELS["sdpa"]
    monkeypatch.setitem(attention._KERNELS, "sdpa", lambda *inputs: kernel(*inputs) * 1.1)
    with pytest.raises(BackendError, match="attention = sdpa differs from torch by"):
        self_test("attention", "sdpa", "cpu")


@pytest.mark.parametrize("version", [1, 2])
def test_memory_of_a_container_counts_what_gives_way(tmp_path: Path, version: int) -> None:
    names = CGROUPS[2 - version]
    statistics = f"rss 5\n{'total_' * (2 - version)}inactive_file 700\n"
    for name, content in zip(names, (2**20, 2**20 - 1000, statistics), strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(str(content))
    assert main_memory(tmp_path) == (2**20, 1700)


def test_memory_within_a_container_is_positive() -> None:
    total, free = main_memory()
    assert 0 < free <= total
    assert by_name(machine())["memory"].state == OK
