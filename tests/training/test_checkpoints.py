"""Checkpoints: which are read, which are kept, and what a run can start from."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_runs import fit, logged, overrides, resolve, same_weights

from ss4d.models import create_model
from ss4d.training.checkpointing import find_fault
from ss4d.training.run import run
from ss4d.training.warm_start import warm_start

FLAT = ["train.learning_rate=1e-3", "train.final_learning_rate=1e-3"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, clip_folder: Path) -> Path:
    """A run of three steps, with three checkpoints and the best weights."""
    lines = ["train.steps=3", "train.save_every=1", "train.validate_every=3", "train.validate_split=train", *FLAT]
    return fit("structure_vae", clip_folder, tmp_path_factory.mktemp("source"), *lines)


@pytest.fixture
def copied(source: Path, tmp_path: Path) -> Path:
    return shutil.copytree(source, tmp_path / "structure_vae")


def go_on(clips: Path, copied: Path, *changes: str) -> Path:
    return fit("structure_vae", clips, copied.parent, "train.save_every=1", *FLAT, *changes)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_best_weights_are_those_of_the_phase(clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    losses = iter([0.1, 0.2, 0.9, 0.8, 0.85, 2.0])
    monkeypatch.setattr("ss4d.training.trainer.mean_metrics", lambda *_: {"loss": next(losses)})
    lines = ["train.validate_every=1", "train.validate_split=train", "train.save_every=4"]
    phases = ["+phases.a={train:{steps:2}}", "+phases.b={frames:[4],train:{steps:%d}}"]
    config = overrides("structure_vae", clip_folder, tmp_path / "run", "train.steps=???", *lines)
    run(resolve([*config, phases[0], phases[1] % 2]))
    second_best = load_file(tmp_path / "run/best/decoder.safetensors")
    last = load_file(tmp_path / "run/ckpts/decoder.safetensors")
    assert all(torch.equal(second_best[key], last[key]) for key in last)  # 0.8, though phase a had 0.1
    run(resolve([*config, phases[0], phases[1] % 3]))  # resumed: 0.85 is no better than 0.8
    kept = load_file(tmp_path / "run/best/decoder.safetensors")
    assert all(torch.equal(second_best[key], kept[key]) for key in kept)
    run(resolve([*config, phases[0], phases[1] % 4, "train.validate_batches=1"]))  # a loss of fewer clips
    best, last = (load_file(tmp_path / f"run/{folder}/decoder.safetensors") for folder in ("best", "ckpts"))
    assert all(torch.equal(best[key], last[key]) for key in last)


@pytest.mark.parametrize("place", ["", "ckpts", "best", "checkpoints/step_00000003"])
def test_every_part_of_a_run_can_be_started_from(place: str, source: Path):
    spec: Any = resolve(["experiment=structure_vae/tiny", "models.decoder.args.channels=[8,4]"]).models.decoder
    decoder = create_model(spec.name, **spec.args)
    warm_start({"decoder": decoder}, str(source / place), "structure_vae")
    expected = load_file(source / ("best" if place == "best" else "ckpts") / "decoder.safetensors")
    assert all(torch.equal(value, expected[key]) for key, value in decoder.state_dict().items())


def test_an_earlier_step_can_be_started_from(source: Path):
    spec: Any = resolve(["experiment=structure_vae/tiny", "models.decoder.args.channels=[8,4]"]).models.decoder
    models = [create_model(spec.name, **spec.args) for _ in range(2)]
    for step, model in zip((1, 3), models, strict=True):
        warm_start({"decoder": model}, str(source / f"checkpoints/step_{step:08d}"), "structure_vae")
    first, third = (model.state_dict() for model in models)
    assert not all(torch.equal(first[key], third[key]) for key in first)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (
            "checkpoints",
            r"init_from = .*checkpoints has no weights of flow: give a run folder RUN of structure_flow, RUN/",
        ),
        (
            "",
            r"init_from = .* has no weights of flow, only of (de|en)coder, (de|en)coder: give a run folder",
        ),
        ("checkpoints/step_00000003", r"step_00000003 has no model flow, only encoder, decoder"),
        ("nowhere", r"there is no model folder .*nowhere: pass an existing folder, or a Hub id"),
    ],
)
def test_what_cannot_be_started_from_says_what_to_give(place: str, message: str, source: Path):
    with pytest.raises(ValueError, match=message):
        warm_start({"flow": torch.nn.Linear(1, 1)}, str(source / place), "structure_flow")


def test_a_run_that_has_begun_needs_what_it_started_from_no_longer(source: Path, clip_folder: Path, tmp_path: Path):
    first = shutil.copytree(source, tmp_path / "first")
    lines = [*FLAT, f"init_from={first}"]
    whole = fit("structure_vae", clip_folder, tmp_path, "train.steps=2", *lines, folder="whole")
    parts = fit("structure_vae", clip_folder, tmp_path, "train.steps=1", *lines, folder="parts")
    shutil.rmtree(first)
    fit("structure_vae", clip_folder, tmp_path, "train.steps=2", *lines, folder="parts")
    assert same_weights(whole, parts)


def test_where_every_checkpoint_is_damaged_the_run_is_refused(clip_folder: Path, copied: Path):
    for path in (copied / "checkpoints").glob("step_*/*.distcp"):
        path.write_bytes(path.read_bytes()[:-1])
    before = contents(copied)
    with pytest.warns(UserWarning, match="is damaged"), pytest.raises(ValueError) as error:
        go_on(clip_folder, copied, "train.steps=5")
    assert f"all checkpoints in {copied / 'checkpoints'} are damaged (the first: " in str(error.value)
    assert contents(copied) == before


def test_a_manifest_of_another_form_is_one_warning(clip_folder: Path, copied: Path):
    newest = copied / "checkpoints/step_00000003"
    for content in ("[]", "{}", "null", '{"a": {"size": "x", "crc32": 0}}', "{", '{"a": 1}'):
        (newest / "manifest.json").write_text(content)
        assert "manifest.json" in str(find_fault(newest))
    with pytest.warns(
        UserWarning, match=r"step_00000003 is damaged \(manifest\.json .*\): resuming from the one before"
    ):
        go_on(clip_folder, copied, "train.steps=3")
    assert len(logged(copied)) == 3


def progress_changed(work: Callable[[dict[str, Any]], Any], folder: Path) -> None:
    """Rewrite progress.json, and its line in the manifest."""
    import zlib

    path, manifest = folder / "progress.json", json.loads((folder / "manifest.json").read_text())
    path.write_text(json.dumps(work(json.loads(path.read_text()))))
    manifest["progress.json"] = {"size": path.stat().st_size, "crc32": zlib.crc32(path.read_bytes())}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_progress_of_another_version_is_one_sentence(clip_folder: Path, copied: Path):
    progress_changed(lambda progress: {**progress, "moons": 2}, copied / "checkpoints/step_00000003")
    with pytest.raises(ValueError, match=r"progress\.json in .* is of another version: .*moons"):
        go_on(clip_folder, copied, "train.steps=4")


def test_strangers_in_the_folder_of_checkpoints(clip_folder: Path, copied: Path):
    """What a killed process left is cleared away; foreign names are neither read, counted nor removed."""
    folder = copied / "checkpoints"
    (folder / ".step_00000009").mkdir()
    foreign = ["step_backup", "step_00000002.bak", "step_9 (copy)", "mine"]
    for name in foreign:
        (folder / name).mkdir()
    (folder / "step_00000099").write_text("a file")
    go_on(clip_folder, copied, "train.steps=5", "train.keep=2")
    names = {path.name for path in folder.iterdir()}
    assert names == {*foreign, "step_00000099", "step_00000004", "step_00000005"}


def test_a_damaged_newest_checkpoint_does_not_push_out_good_ones(clip_folder: Path, copied: Path):
    folder = copied / "checkpoints"
    (folder / "step_00000003").rename(folder / "step_00000009")
    (folder / "step_00000009/manifest.json").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = overrides("structure_vae", clip_folder, copied, "train.save_every=1", "train.keep=1", *FLAT)
        run(resolve([*config, "train.steps=9", "train.validate_every=0"]))
    names = [path.name for path in sorted(folder.iterdir())]
    assert names == ["damaged_step_00000009", "step_00000009"] and len(logged(copied)) == 9
