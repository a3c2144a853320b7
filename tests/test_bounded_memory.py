"""`inference.py --memory`: the plan is kept, and a run that is cut short goes on from its finished stages."""

from __future__ import annotations

import gc
import json
import os
import re
import shutil
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from test_inference import frames, run, write_folder
from tiny import IMAGE_SIZE
from torch import nn

import inference
from ss4d import SS4DPipeline
from ss4d.flow import samplers
from ss4d.gaussians.ply import read_ply
from ss4d.memory import parse_bytes
from ss4d.models.folder import PipelineFolder
from ss4d.models.gaussian_decoder import GaussianDecoder
from ss4d.plan import Job, plan_memory

ROOT = Path(inference.__file__).parent
SMALL = ["--size", 32, "--backend", "rasterizer=torch"]
OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    KeyboardInterrupt(),
]


def points(folder: Path) -> list[np.ndarray]:
    return [read_ply(path).xyz.numpy() for path in sorted((folder / "frames").iterdir())]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "in", frames(3))


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The flows that were sampled."""
    names: list[str] = []
    steps = samplers.sample

    def sample(model, *arguments):
        names.append(type(model).__name__)
        return steps(model, *arguments)

    monkeypatch.setattr("ss4d.sampling.sample", sample)
    return names


def break_off(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(GaussianDecoder, "frames", fail)


def test_the_plan_is_printed_and_kept(pipeline_folder: Path, tmp_path: Path, source: Path):
    command = [sys.executable, ROOT / "inference.py", source, "--model", pipeline_folder, *SMALL, "--window", 4]
    command += ["--memory", "1GB", "--out", tmp_path / "out"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    first = done.stdout.splitlines()[0]
    needed = re.match(r"plan for 1\.00GB: (\d\.\d\dGB)", first)
    assert needed is not None, first
    stages = [line.split()[0] for line in done.stdout.splitlines()[1:7]]
    assert stages == ["conditioning", "structure", "occupancy", "latents", "gaussians", "writing"]
    report = json.loads((tmp_path / "out/result.json").read_text())
    peak = max(stage["peak_memory_mb"] for stage in report["stages"]) * 2**20
    assert peak < parse_bytes(needed[1])
    assert not list((tmp_path / "out").glob(".ss4d*"))


def test_the_shipped_checkpoint_runs_and_refines_within_a_budget(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = [ROOT / "assets/demo.mp4", "--num-frames", 2, "--steps", 1, "--out", tmp_path / "out", "--size", 32]
    assert run(*arguments, "--memory", "1GB", "--refine") == 0
    stages = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:] if line.startswith("  ")]
    assert stages[1:3] == ["estimate", "its"] and stages[-3:] == ["to", "to", "writing"]
    report = json.loads((tmp_path / "out/result.json").read_text())
    assert [stage["name"] for stage in report["stages"]].count("Gaussian refinement") == 1


@pytest.mark.parametrize("name", PipelineFolder.open(ROOT / "checkpoints/ss4d-tiny").generators())
def test_shipped_models_mapped_from_their_files_compute_the_same(name: str):
    """Also those with layers of classes of their own."""
    folder = PipelineFolder.open(ROOT / "checkpoints/ss4d-tiny")
    plain, stored = (folder.load_generator(name, as_stored=as_stored) for as_stored in (False, True))
    assert any(value.dtype == torch.float16 for value in stored.state_dict().values())
    for layer, other in zip(plain.modules(), stored.modules(), strict=True):
        if isinstance(layer, nn.Conv2d | nn.Conv3d | nn.Linear):
            channels = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
            x = torch.randn(1, channels, *[16] * (layer.weight.ndim - 2))
            torch.testing.assert_close(layer(x), other(x))


def test_another_run_keeps_its_stages(pipeline_folder: Path, tmp_path: Path, source: Path, capsys):
    """Two commands with the same --out: the one that ends first takes nothing from the other."""
    kept = tmp_path / "out/.ss4d-kept"
    kept.mkdir(parents=True)
    (kept / "clip.npy").write_bytes(b"of the other run")
    lock = "fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", f"import fcntl, os, sys; {lock}", str(kept)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdin is not None and other.stdout is not None
        other.stdout.readline()
        assert run(source, "--model", pipeline_folder, "--out", tmp_path / "out", *SMALL) == 0
        other.stdin.close()
    assert "another run uses" in capsys.readouterr().err
    assert [path.name for path in kept.iterdir()] == ["clip.npy"]
    assert (kept / "clip.npy").read_bytes() == b"of the other run"
    assert (tmp_path / "out/result.json").is_file()


def test_within_a_budget_one_model_is_there_at_a_time_and_each_is_loaded_once(
    pipeline_folder: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
):
    loaded: list[tuple[str, list[weakref.ref]]] = []
    load = PipelineFolder.load_generator

    def load_and_note(folder: PipelineFolder, name: str, as_stored: bool = False) -> torch.nn.Module:
        # No layer is left, also where no garbage is collected: its weights would count.
        assert [earlier for earlier, layers in loaded if any(layer() is not None for layer in layers)] == []
        model = load(folder, name, as_stored)
        loaded.append((name, [weakref.ref(layer) for layer in model.modules()]))
        return model

    monkeypatch.setattr(PipelineFolder, "load_generator", load_and_note)
    gc.disable()
    request.addfinalizer(gc.enable)
    pipeline = SS4DPipeline.from_pretrained(pipeline_folder, "cpu", memory="2GB")
    result = pipeline.run(frames(3), seed=1)
    assert len(result.gaussians) == 3
    order = ["image_encoder", "structure_flow", "structure_decoder", "sparse_flow", "gaussian_decoder"]
    assert [name for name, _ in loaded] == order


def test_a_budget_changes_where_weights_lie_and_not_the_result(pipeline_folder: Path, tmp_path: Path, source: Path):
    for name, arguments in {"plain": [], "bounded": ["--memory", "2GB"]}.items():
        assert run(source, "--model", pipeline_folder, "--out", tmp_path / name, *SMALL, *arguments) == 0
    for a, b in zip(points(tmp_path / "plain"), points(tmp_path / "bounded"), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_models_of_a_budget_keep_the_type_of_their_file(pipeline_folder: Path):
    pipeline = SS4DPipeline.from_pretrained(pipeline_folder, "cpu", memory="2GB")
    with pipeline.models.use("structure_flow") as flow:
        assert flow.blocks[0].mlp.mlp[0].weight.dtype == torch.float16 and flow.norm.eps == 1e-5
        assert flow.blocks[0].mlp.mlp[0].bias.dtype == torch.float32


def test_a_budget_that_is_too_small_names_the_smallest(pipeline_folder: Path, tmp_path: Path, source: Path, capsys):
    arguments = [source, "--model", pipeline_folder, "--out", tmp_path / "out", *SMALL, "--memory"]
    assert run(*arguments, "100MB") == 1
    error = capsys.readouterr().err.strip()
    least = re.fullmatch(r"error: --memory 0\.1GB is too little for 3 frames: the least that works is (\S+GB)", error)
    assert least is not None, error
    assert not (tmp_path / "out").exists()
    assert run(*arguments, least[1]) == 0


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_a_run_that_was_cut_short_goes_on(
    error: BaseException, pipeline_folder: Path, tmp_path: Path, source: Path, sampled: list[str], capsys
):
    assert run(source, "--model", pipeline_folder, "--out", tmp_path / "whole", *SMALL) == 0
    sampled.clear()
    arguments = [source, "--model", pipeline_folder, "--out", tmp_path / "out", *SMALL]
    with pytest.MonkeyPatch.context() as patch:
        break_off(patch, error)
        assert run(*arguments) == (130 if isinstance(error, KeyboardInterrupt) else 1)
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: ") and "structure and latents are kept: the same command goes on from there" in said
    assert "interrupted" in said or "set --memory to what is free (" in said
    assert sampled == ["StructureFlow", "SparseFlow"]
    assert run(*arguments) == 0
    assert sampled == ["StructureFlow", "SparseFlow"]  # neither was sampled again
    assert not list((tmp_path / "out").glob(".ss4d*"))
    for a, b in zip(points(tmp_path / "whole"), points(tmp_path / "out"), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("change", "again"),
    [
        (["--seed", 7], ["StructureFlow", "SparseFlow"]),
        (["--steps", 1], ["StructureFlow", "SparseFlow"]),
        (["--num-frames", 2], ["StructureFlow", "SparseFlow"]),
        (["--size", 64], []),
        (["--memory", "2GB"], []),  # windows that are longer than the clip make no difference
        (["--window", 16], []),
    ],
)
def test_only_the_same_run_goes_on(
    change: list[object], again: list[str], pipeline_folder: Path, tmp_path: Path, source: Path, sampled: list[str]
):
    arguments = [source, "--model", pipeline_folder, "--out", tmp_path / "out", *SMALL]
    with pytest.MonkeyPatch.context() as patch:
        break_off(patch, MemoryError())
        assert run(*arguments) == 1
    sampled.clear()
    assert run(*arguments, *change) == 0
    assert sampled == again


def test_what_another_run_kept_is_not_said_to_be_ours(
    pipeline_folder: Path, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    arguments = [source, "--model", pipeline_folder, "--out", tmp_path / "out", *SMALL]
    with pytest.MonkeyPatch.context() as patch:
        break_off(patch, MemoryError())
        assert run(*arguments) == 1
    capsys.readouterr()
    steps = samplers.sample

    def fail(model, *arguments):
        if type(model).__name__ == "SparseFlow":
            raise KeyboardInterrupt
        return steps(model, *arguments)

    monkeypatch.setattr("ss4d.sampling.sample", fail)
    assert run(*arguments, "--seed", 7) == 130
    assert "; structure is kept: the same command" in capsys.readouterr().err
    monkeypatch.setattr("ss4d.sampling.sample", lambda *_: break_now())
    assert run(*arguments, "--seed", 8) == 130
    assert "kept" not in capsys.readouterr().err
    monkeypatch.undo()
    assert run(*arguments, "--seed", 7) == 0


def break_now() -> None:
    raise KeyboardInterrupt


def test_a_plan_counts_what_is_held(pipeline_folder: Path):
    """The Gaussians of a clip unless they lie on disk, and no more keys and values than there are."""
    folder = PipelineFolder.open(pipeline_folder)
    voxels, per_voxel = 1000, 2
    plans = {
        on_disk: plan_memory(folder, Job(30, 64**2, voxels, on_disk=on_disk), 30, 10**10) for on_disk in (True, False)
    }
    bytes_of = {on_disk: {stage.name: stage.working for stage in plan.stages} for on_disk, plan in plans.items()}
    for name in ("gaussians", "writing"):
        assert bytes_of[False][name] - bytes_of[True][name] == 30 * voxels * per_voxel * 14 * 4
    tokens, channels, blocks = (IMAGE_SIZE // 8) ** 2, 24, 1
    least = 30 * tokens * channels * blocks * 2 * 4
    assert least <= plans[True].keep < 1.3 * least
    one = plan_memory(folder, Job(1, 64**2), 30, 10**10)
    assert {stage.frames for stage in one.stages} == {1}


def test_models_of_other_arguments_do_not_go_on(
    pipeline_folder: Path, tmp_path: Path, source: Path, sampled: list[str]
):
    """What a model computes is said by its JSON file as well as by its weights."""
    models = shutil.copytree(pipeline_folder, tmp_path / "models")
    arguments = [source, "--model", models, "--out", tmp_path / "out", *SMALL]
    with pytest.MonkeyPatch.context() as patch:
        break_off(patch, MemoryError())
        assert run(*arguments) == 1
    sampled.clear()
    file = models / "ckpts/slat_flow_model.json"
    spec = json.loads(file.read_text())
    spec["args"]["rope_base"] = 100.0
    file.write_text(json.dumps(spec))
    assert run(*arguments) == 0
    assert sampled == ["StructureFlow", "SparseFlow"]


def test_a_run_that_fails_before_any_stage_is_finished_leaves_nothing_to_go_on_from(
    pipeline_folder: Path, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("ss4d.sampling.sample", fail)
    assert run(source, "--model", pipeline_folder, "--out", tmp_path / "out", *SMALL) == 1
    assert "are kept" not in capsys.readouterr().err
    assert not list((tmp_path / "out").glob(".ss4d*"))
