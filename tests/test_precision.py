"""Precisions of models that generate: what a name comes to on a device, and whole runs in bfloat16."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from test_inference import frames, run, write_folder

from ss4d import SS4DPipeline, precision
from ss4d.precision import generation_dtype

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_a_cpu_is_fast_where_torch_has_kernels(monkeypatch: pytest.MonkeyPatch):
    supported = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    precision.is_fast_at_bfloat16.cache_clear()
    assert precision.is_fast_at_bfloat16(CPU) == supported
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    precision.is_fast_at_bfloat16.cache_clear()
    assert not precision.is_fast_at_bfloat16(CPU)
    precision.is_fast_at_bfloat16.cache_clear()


def test_a_gpu_is_asked_by_its_number(monkeypatch: pytest.MonkeyPatch):
    """A Turing and an Ampere card in one machine."""
    precision.is_fast_at_bfloat16.cache_clear()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: {0: (7, 5), 1: (8, 6)}[device.index])
    assert [precision.is_fast_at_bfloat16(torch.device("cuda", index)) for index in (0, 1)] == [False, True]
    precision.is_fast_at_bfloat16.cache_clear()


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor that is fast at bfloat16, whatever this one is."""
    monkeypatch.setattr(precision, "is_fast_at_bfloat16", lambda device: True)


def test_a_cpu_computes_in_float32_and_cuda_as_the_settings_say():
    assert generation_dtype(None, CPU) is torch.float32
    assert generation_dtype(None, CUDA) is None


@pytest.mark.usefixtures("fast")
def test_a_named_precision_goes_before_that():
    assert generation_dtype("bf16", CPU) is torch.bfloat16
    assert generation_dtype("fp16", CUDA) is torch.float16
    assert generation_dtype("fp32", CUDA) is torch.float32


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("int8", "precision 'int8': choose one of fp32, bf16, fp16"),
        ("fp16", "precision fp16 is slow on a CPU: use fp32, or bf16 where the processor has it"),
        ("bf16", "precision bf16: this machine's cpu is slower at it than at fp32: use fp32"),
    ],
)
def test_what_a_cpu_is_slow_at_is_refused(name: str, message: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(precision, "is_fast_at_bfloat16", lambda device: False)
    with pytest.raises(ValueError) as error:
        SS4DPipeline.from_pretrained("checkpoints/ss4d-tiny", "cpu", precision=name)
    assert str(error.value) == message


@pytest.mark.usefixtures("fast")
def test_bfloat16_comes_near_to_float32_and_a_budget_changes_nothing(pipeline_folder: Path):
    runs = {
        (name, memory): SS4DPipeline.from_pretrained(pipeline_folder, "cpu", memory, precision=name).run(frames(2))
        for name, memory in [("fp32", None), ("bf16", None), ("bf16", "2GB")]
    }
    exact, half, stored = runs.values()
    assert (exact.precision, half.precision, stored.precision) == ("fp32", "bf16", "bf16")
    assert sum(half.gaussians.num_gaussians) == pytest.approx(sum(exact.gaussians.num_gaussians), rel=0.1)
    for a, b in zip(half.gaussians, stored.gaussians, strict=True):
        torch.testing.assert_close(a.xyz, b.xyz)
        assert a.xyz.dtype == torch.float32
    assert not torch.equal(exact.gaussians[0].opacity[:9], half.gaussians[0].opacity[:9])


@pytest.mark.usefixtures("fast")
def test_the_command_line_says_in_the_result_what_it_computed_in(pipeline_folder: Path, tmp_path: Path):
    source = write_folder(tmp_path / "in", frames(1))
    assert run(source, "--model", pipeline_folder, "--out", tmp_path / "out", "--size", 32, "--precision", "bf16") == 0
    assert json.loads((tmp_path / "out" / "result.json").read_text())["precision"] == "bf16"
