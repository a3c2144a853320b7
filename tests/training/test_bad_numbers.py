"""Bad numbers: an absent contribution leaves the loss finite, bad data are named with their clip, file and step."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from eval_sets import into_cubes_of_videos
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_runs import SMALL, fit, logged, overrides
from tiny import RESOLUTION

import train
from ss4d.training.objectives import Loss
from ss4d.training.objectives.structure_vae import StructureVAEObjective
from ss4d.training.optimization import MOST_SKIPPED, GradientClipper, LossScale

Tensors = dict[str, torch.Tensor]
ONE_CLIP_A_BATCH = ["frames=[1]", f"data.tokens_per_batch={RESOLUTION**3}"]


def change(path: Path, work: Callable[[Tensors], Tensors]) -> None:
    """Rewrite a safetensors file, its metadata kept."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = {name: value.contiguous() for name, value in work(load_file(path)).items()}
    save_file(tensors, path, metadata)


def without_frames(frames: list[int]) -> Callable[[Tensors], Tensors]:
    """Drops all voxels of these frames."""

    def work(tensors: Tensors) -> Tensors:
        rows = {len(value): value[:, 0] for name, value in tensors.items() if name.startswith("coords")}
        return {
            name: value[~torch.isin(rows[len(value)].long(), torch.tensor(frames))] if len(value) in rows else value
            for name, value in tensors.items()
        }

    return work


def broken(name: str, value: float) -> Callable[[Tensors], Tensors]:
    """Puts a value into every entry of a tensor."""
    return lambda tensors: {**tensors, name: torch.full_like(tensors[name], value)}


@pytest.fixture
def clips(clip_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(clip_folder, tmp_path / "clips")


@pytest.mark.parametrize("frames", [[1], [0, 1, 2, 3]], ids=["frame", "window"])
@pytest.mark.parametrize("experiment", SMALL)
def test_empty_frames_and_windows_leave_the_loss_finite(
    experiment: str, frames: list[int], clips: Path, tmp_path: Path
):
    """Frames of both clips lose their voxels; where all do, nothing is left to learn from."""
    if experiment == "sparse_flow":
        fit("structure_flow", clips, tmp_path, "train.steps=1", "frames=[1]")
    for stage, clip in [(stage, f"box{n}__slide") for stage in ("features", "encode") for n in (0, 1)]:
        change(clips / stage / f"{clip}.safetensors", without_frames(frames))
    run_dir = fit(experiment, clips, tmp_path, "train.steps=2", "frames=[4]")
    losses, norms = logged(run_dir), logged(run_dir, "gradient_norm")
    assert len(losses) == 2 and all(map(math.isfinite, losses + norms))
    nothing = experiment.startswith("sparse") and len(frames) == 4
    assert (losses == norms == [0, 0]) == nothing


@pytest.mark.parametrize(
    ("experiment", "file", "name", "workers"),
    [
        ("structure_flow", "encode", "structure_mean_0", 0),
        ("structure_flow", "encode", "structure_mean_0", 1),
        ("sparse_vae", "features", f"feats_{RESOLUTION}", 0),
    ],
)
def test_bad_data_are_named_with_step_clip_and_file(
    experiment: str, file: str, name: str, workers: int, clips: Path, tmp_path: Path
):
    path = clips / file / "box1__slide.safetensors"
    change(path, broken(name, math.nan if workers else math.inf))
    with pytest.raises(ValueError) as error:
        fit(experiment, clips, tmp_path, "train.steps=9", f"data.workers={workers}")
    message = str(error.value)
    assert message.startswith("step ") and int(message.split()[1].rstrip(",")) <= 9
    assert f", clip box1__slide: {path}: {name} has values that are not finite: delete it and run" in message
    assert "\n" not in message


def test_statistics_that_do_not_normalise_are_refused(clips: Path, tmp_path: Path):
    fit("structure_flow", clips, tmp_path, "train.steps=1", "frames=[1]")
    path = clips / "tables/latent_statistics.json"
    path.write_text(path.read_text().replace("2.0", "0.0"))
    with pytest.raises(ValueError, match=r"latent_statistics.json: mean and std of the sparse latents must be finite"):
        fit("sparse_flow", clips, tmp_path, "train.steps=1")
    assert not (tmp_path / "sparse_flow").exists()


def test_a_flow_in_the_frame_of_the_view_is_not_trained_on_another(clips: Path, tmp_path: Path):
    view = ["models.image_encoder.args.in_channels=4", "models.flow.args.projection={crop:0.8,distance:1.4}"]
    lines = ["train.steps=1", "frames=[1]", *view]
    refused = r"was not made with voxelize\.frame=view voxelize\.crop=0\.8 voxelize\.distance=1\.4: make such a set"
    with pytest.raises(ValueError, match=refused):
        fit("structure_flow", clips, tmp_path, *lines)
    into_cubes_of_videos(clips)
    (clips / "config.yaml").write_text("voxelize: {frame: view, crop: 0.7, distance: 1.4}\n")
    with pytest.raises(ValueError, match=refused):
        fit("structure_flow", clips, tmp_path, *lines)
    assert not (tmp_path / "structure_flow").exists()
    (clips / "config.yaml").write_text("voxelize: {frame: view, crop: 0.8, distance: 1.4}\n")
    assert len(logged(fit("structure_flow", clips, tmp_path, *lines))) == 1


def test_a_missing_render_archive_is_refused_before_anything_is_written(clips: Path, tmp_path: Path):
    (clips / "render/box1__slide.zip").unlink()
    with pytest.raises(ValueError, match=r"1 of 2 files of the render stage are missing, .*box1__slide\.zip first"):
        fit("structure_flow", clips, tmp_path, "train.steps=1")
    assert not (tmp_path / "structure_flow").exists()


def spoil(monkeypatch: pytest.MonkeyPatch, work: Callable[[Any, Loss, Any], torch.Tensor]) -> None:
    """Have `work(objective, loss, batch)` replace the loss of the structure VAE."""
    forward = StructureVAEObjective.forward

    def spoilt(self: Any, batch: Any, generator: torch.Generator) -> Loss:
        loss = forward(self, batch, generator)
        return Loss(work(self, loss, batch), loss.metrics)

    monkeypatch.setattr(StructureVAEObjective, "forward", spoilt)


def test_a_loss_that_is_not_finite_names_the_clip_and_the_step(
    clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    spoil(monkeypatch, lambda _, loss, batch: loss.total * (math.nan if batch.grid.sum() == 6**3 else 1))
    with pytest.raises(
        FloatingPointError, match=r"^step [12]: the loss is not finite on the clips box1__slide \(their"
    ):
        fit("structure_vae", clip_folder, tmp_path, "train.steps=2", "train.precision=fp32", *ONE_CLIP_A_BATCH)


@pytest.mark.slow
def test_the_clip_of_one_of_two_processes_is_named_by_both_and_both_leave(clip_folder: Path, tmp_path: Path):
    script = tmp_path / "start.py"
    script.write_text(
        "import math, os, sys\n"
        "from pathlib import Path\n"
        "from ss4d.training.objectives.objective import Loss\n"
        "from ss4d.training.objectives.structure_vae import StructureVAEObjective\n"
        "forward = StructureVAEObjective.forward\n"
        "def spoilt(self, batch, generator):\n"
        "    loss = forward(self, batch, generator)\n"
        "    return Loss(loss.total * (math.nan if batch.grid.sum() == 6**3 else 1), loss.metrics)\n"
        "StructureVAEObjective.forward = spoilt\n"
        "import train\n"
        "try:\n"
        "    train.main()\n"
        "except SystemExit as end:\n"
        "    Path(__file__).with_name(f'rank{os.environ[\"RANK\"]}').write_text(str(end.code))\n"
        "    raise\n"
    )
    lines = overrides("structure_vae", clip_folder, tmp_path / "run", "train.steps=5", "gpus=2", *ONE_CLIP_A_BATCH)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script), *lines]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(train.__file__).parent)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 1, result.stderr[-3000:]
    for rank in (0, 1):  # only one of them had the clip in its batch
        said = (tmp_path / f"rank{rank}").read_text()
        assert said.startswith("train.py: step 1: the loss is not finite on the clips box1__slide (their data are): ")


def test_gradients_that_are_not_finite_get_other_advice(
    clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    spoil(monkeypatch, lambda self, loss, _: loss.total + (0 * next(self.models.parameters()).sum()).sqrt())
    expected = (
        r"^step 1: the loss is finite and its gradients are not \(norm nan\): lower train\.learning_rate; started"
    )
    with pytest.raises(FloatingPointError, match=expected):
        fit("structure_vae", clip_folder, tmp_path, "train.steps=2", "train.precision=fp32", *ONE_CLIP_A_BATCH)


def test_fp16_that_skips_every_step_stops_also_when_it_is_resumed(
    clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    scale = LossScale.of("fp16").value
    monkeypatch.setattr(LossScale, "of", classmethod(lambda cls, _: cls(scale, fixed=False)))  # fp16 is slow on a CPU
    monkeypatch.setattr(GradientClipper, "clip", lambda *_: math.inf)
    lines = ["train.precision=fp32", "train.save_every=10", *ONE_CLIP_A_BATCH]
    run_dir = fit("structure_vae", clip_folder, tmp_path, "train.steps=30", *lines)
    scales = logged(run_dir, "loss_scale")
    assert scales[0] == 2.0**15 and scales[15:] == [1] * 15  # halved to its floor
    expected = (
        rf"^step {MOST_SKIPPED}: the {MOST_SKIPPED}th step in a row had to be skipped, even at a loss scale of 1: "
    )
    with pytest.raises(FloatingPointError, match=expected + r".*set train\.precision to bf16 or fp32"):
        fit("structure_vae", clip_folder, tmp_path, "train.steps=100", *lines)


def test_a_good_step_starts_the_count_of_skipped_ones_again():
    scale = LossScale.of("fp16")
    for finite in [False] * (MOST_SKIPPED - 1) + [True] + [False] * (MOST_SKIPPED - 1):
        scale.update(finite)
        assert not scale.gives_up
    scale.update(False)
    assert scale.gives_up


def test_a_bad_held_out_clip_does_not_keep_the_best_weights_from_being_written(clips: Path, tmp_path: Path):
    change(clips / "encode/box1__slide.safetensors", broken("structure_mean_0", math.nan))
    lines = ["data.objects=[box0]", "train.validate_every=1", "train.validate_split=train", "train.validate_batches=2"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run_dir = fit("structure_flow", clips, tmp_path, "train.steps=2", *lines)
    assert any("left out: clip box1__slide: " in str(warning.message) for warning in caught)
    assert len(logged(run_dir, "val_loss")) == 2 and all(map(math.isfinite, logged(run_dir, "val_loss")))
    assert (run_dir / "best/flow.safetensors").exists()


def test_a_held_out_batch_whose_loss_is_not_finite_is_left_out(
    clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def work(self: Any, loss: Loss, batch: Any) -> torch.Tensor:
        return loss.total * (math.nan if not self.training and batch.grid.sum() == 6**3 else 1)

    spoil(monkeypatch, work)
    lines = ["train.validate_every=1", "train.validate_split=train", "train.validate_batches=2", *ONE_CLIP_A_BATCH]
    with pytest.warns(UserWarning, match=r"held-out batch \d: the loss is not finite, the batch is left out"):
        run_dir = fit("structure_vae", clip_folder, tmp_path, "train.steps=1", "train.precision=fp32", *lines)
    assert (run_dir / "best/decoder.safetensors").exists()


def test_weights_to_start_from_that_are_not_finite_are_refused(clip_folder: Path, tmp_path: Path):
    source = fit("structure_vae", clip_folder, tmp_path, "train.steps=1", folder="source")
    change(source / "ckpts/decoder.safetensors", broken("input_layer.weight", math.nan))
    with pytest.raises(ValueError, match=r"decoder\.input_layer\.weight of init_from = .*source is not finite"):
        fit("structure_vae", clip_folder, tmp_path, "train.steps=1", f"init_from={source}", folder="run")
    assert not (tmp_path / "run").exists()
