from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scenes import run

from dataset_toolkits.encode import EncodeOptions, EncodeStage
from dataset_toolkits.engine.records import write_table
from dataset_toolkits.engine.stage import StageError
from ss4d.data.format import INPUTS, read_table
from ss4d.data.provenance import write_inputs
from ss4d.data.recolor import Recoloring
from ss4d.models import create_model
from ss4d.models.base import TorsoModel
from ss4d.models.checkpoint import load_model, save_model
from ss4d.sparse import SparseTensor

CHANNELS = ["red", "normal_x", "normal_y", "normal_z"]
FRAMES = {"a": 3, "b": 2, "held_out": 2}
RESOLUTION = 8
STRUCTURE = {"in_channels": 1, "latent_channels": 3, "num_res_blocks": 1, "channels": [4, 8]}
SPARSE = {
    **{"resolution": RESOLUTION, "in_channels": 4, "model_channels": 16, "latent_channels": 5, "num_blocks": 1},
    **{"num_heads": 2, "pe_mode": "rope_t", "use_fp16": True},
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Features of three clips, and a pipeline's folder with the two encoders."""
    done = {"status": "done", "error": None}
    (tmp_path / "features").mkdir()
    for clip, frames in FRAMES.items():
        # The last frame has no voxel.
        cells = torch.randperm((frames - 1) * RESOLUTION**3)[:40].sort().values
        coords = torch.stack(torch.unravel_index(cells, (frames - 1, *[RESOLUTION] * 3)), dim=1).short()
        tensors = {f"coords_{RESOLUTION}": coords, f"feats_{RESOLUTION}": torch.randn(40, 4).half()}
        save_file(tensors, tmp_path / "features" / f"{clip}.safetensors", {"channels": json.dumps(CHANNELS)})
    write_table(tmp_path, "features", [{"name": clip, "key": f"f{clip}", **done, "clip_name": clip} for clip in FRAMES])
    rows = [{"name": clip, "key": "r", **done, "clip_name": clip, "frames": n} for clip, n in FRAMES.items()]
    write_table(tmp_path, "render", rows)
    splits = {"a": "train", "b": "train", "held_out": "val"}
    write_table(tmp_path, "curate", [{"clip_name": clip, "split": split} for clip, split in splits.items()])
    for stem, name, args in (
        ("sparse_structure_encoder", "SparseStructureEncoder", STRUCTURE),
        ("slat_encoder", "SLatEncoder", SPARSE),
    ):
        model = create_model(name, **args)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        save_model(model, tmp_path / "model" / "ckpts" / stem, name, args, torch.float32)
    return tmp_path


@pytest.fixture
def options(root: Path) -> EncodeOptions:
    folder = str(root / "model")
    return EncodeOptions(folder, folder, resolution=RESOLUTION, quarter_turns=[0, 1])


def test_latents_are_those_of_the_encoders(root, options):
    run(EncodeStage(root, options))
    features = load_file(root / "features" / "a.safetensors")
    latents = load_file(root / "encode" / "a.safetensors")
    coords = features["coords_8"].int()
    assert torch.equal(latents["coords_0"].int(), coords) and latents["coords_0"].dtype == torch.int16

    grid = torch.zeros(1, 3, 1, 8, 8, 8)
    grid[0, coords[:, 0], 0, coords[:, 1], coords[:, 2], coords[:, 3]] = 1
    with torch.no_grad():
        structure = load_model(root / "model/ckpts/sparse_structure_encoder")(grid)
        encoder = load_model(root / "model/ckpts/slat_encoder")
        assert isinstance(encoder, TorsoModel)
        encoder.set_dtype(torch.float32)
        rows = torch.nn.functional.pad(coords, (1, 0))
        sparse = encoder(SparseTensor(features["feats_8"].float(), rows, num_frames=[3]))
    assert latents["structure_mean_0"].shape == (3, 3, 4, 4, 4)
    for name, expected in (
        ("structure_mean_0", structure.mean[0]),
        ("structure_logvar_0", structure.logvar[0]),
        ("sparse_mean_0", sparse.mean.feats),
        ("sparse_logvar_0", sparse.logvar.feats),
    ):
        assert latents[name].dtype == torch.float16 and expected.std() > 1e-3
        torch.testing.assert_close(latents[name].float(), expected, rtol=2e-3, atol=1e-3)


def test_a_quarter_turn_encodes_the_turned_world(root, options):
    """(x, y) becomes (-y, x), voxels and normals alike: the same as encoding a clip made of the turned object."""
    run(EncodeStage(root, options))
    features = load_file(root / "features" / "a.safetensors")
    frame, x, y, z = features["coords_8"].unbind(1)
    red, normal_x, normal_y, normal_z = features["feats_8"].unbind(1)
    turned = {
        "coords_8": torch.stack([frame, RESOLUTION - 1 - y, x, z], dim=1),
        "feats_8": torch.stack([red, -normal_y, normal_x, normal_z], dim=1),
    }
    once = load_file(root / "encode" / "a.safetensors")
    save_file(turned, root / "features" / "a.safetensors", {"channels": json.dumps(CHANNELS)})
    run(EncodeStage(root, replace(options, quarter_turns=[0, 3])))
    again = load_file(root / "encode" / "a.safetensors")
    for name in ("coords", "structure_mean", "structure_logvar", "sparse_mean", "sparse_logvar"):
        assert torch.equal(once[f"{name}_1"], again[f"{name}_0"])
        assert torch.equal(once[f"{name}_0"], again[f"{name}_3"])  # and back
    assert not torch.equal(once["sparse_mean_0"], once["sparse_mean_1"])


def test_statistics_are_over_the_train_split(root, options):
    run(EncodeStage(root, options))
    statistics = json.loads((root / "tables" / "latent_statistics.json").read_text())
    clips = [load_file(root / "encode" / f"{clip}.safetensors") for clip in ("a", "b")]
    for kind, width in (("structure", 3), ("sparse", 5)):
        values = [
            np.moveaxis(clip[f"{kind}_mean_{turns}"].double().numpy(), 1, -1).reshape(-1, width)
            for clip in clips
            for turns in (0, 1)
        ]
        np.testing.assert_allclose(statistics[kind]["mean"], np.concatenate(values).mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(statistics[kind]["std"], np.concatenate(values).std(axis=0), atol=1e-12)


@pytest.mark.parametrize("kind", ["structure", "sparse"])
def test_an_encoder_that_is_left_out_changes_nothing_of_the_other(root, options, kind):
    """Whoever trains the structure flow alone needs no sparse VAE, and the other way round."""
    run(EncodeStage(root, options))
    both = load_file(root / "encode" / "a.safetensors")
    statistics = json.loads((root / "tables" / "latent_statistics.json").read_text())
    other = {"structure": "sparse", "sparse": "structure"}[kind]
    run(EncodeStage(root, replace(options, **{f"{other}_encoder": ""})))
    alone = load_file(root / "encode" / "a.safetensors")
    assert set(alone) == {name for name in both if not name.startswith(other)}
    assert all(torch.equal(alone[name], both[name]) for name in alone)
    assert json.loads((root / "tables" / "latent_statistics.json").read_text()) == {kind: statistics[kind]}


def test_without_training_clips_there_are_no_statistics(root, options):
    run(EncodeStage(root, options))
    write_table(root, "curate", [{"clip_name": clip, "split": "val"} for clip in FRAMES])
    EncodeStage(root, options).finish()
    assert not (root / "tables" / "latent_statistics.json").exists()


def test_other_weights_make_other_items(root, options):
    stage = EncodeStage(root, options)
    before = [stage.key(item) for item in stage.items()]
    assert before == [stage.key(item) for item in stage.items()]
    path = root / "model/ckpts/slat_encoder.safetensors"
    weights = load_file(path)
    weights["input_layer.bias"] += 1
    save_file(weights, path)
    assert not set(before) & {stage.key(item) for item in stage.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"structure_encoder": "", "sparse_encoder": ""}, r"encode\.structure_encoder nor encode\.sparse_enc"),
        ({"sparse_encoder": "", "resolution": 16}, r"no features for encode\.resolution = 16"),
        ({"sparse_encoder": "no/where/slat"}, r"encode\.sparse_encoder = no/where/slat.*no no/where/slat\.json"),
        ({"resolution": 16}, r"8 voxels per side.*encode\.resolution is 16"),
        ({"quarter_turns": [0, 4]}, r"quarter_turns are some of 0, 1, 2 and 3, not \[0, 4\]"),
        ({"quarter_turns": []}, r"quarter_turns are some of 0, 1, 2 and 3, not \[\]"),
        ({"device": "gpu"}, "'gpu' is no device"),
    ],
)
def test_options_that_cannot_be_met_are_named(root, options, change, message):
    with pytest.raises(ValueError, match=message):
        EncodeStage(root, replace(options, **change)).items()


def test_encoders_of_the_hub_and_of_a_downloaded_folder(root, options, tmp_path, monkeypatch):
    """TRELLIS' pipeline.json does not name its encoders, whose files have names of their own."""
    run(EncodeStage(root, options))
    ours = load_file(root / "encode" / "a.safetensors")
    trellis = tmp_path / "trellis"
    (trellis / "ckpts").mkdir(parents=True)
    (trellis / "pipeline.json").write_text(json.dumps({"args": {"models": {}}}))
    for key, released in (
        ("sparse_structure_encoder", "ss_enc_conv3d_16l8_fp16"),
        ("slat_encoder", "slat_enc_swin8_B_64l8_fp16"),
    ):
        for ending in (".json", ".safetensors"):
            shutil.copy(root / f"model/ckpts/{key}{ending}", trellis / f"ckpts/{released}{ending}")

    def hub(source: str, file: str) -> Path:
        if source != "microsoft/TRELLIS-image-large":
            raise OSError(f"no repository {source}")
        return trellis / file

    monkeypatch.setattr("huggingface_hub.hf_hub_download", hub)
    for source in ("microsoft/TRELLIS-image-large", str(trellis)):
        shutil.rmtree(root / "encode")
        run(EncodeStage(root, replace(options, structure_encoder=source, sparse_encoder=source)))
        again = load_file(root / "encode" / "a.safetensors")
        assert again.keys() == ours.keys() and all(torch.equal(again[name], ours[name]) for name in ours)
    with pytest.raises(StageError, match=r"encode.sparse_encoder = nobody/nothing .* fetched from the Hub"):
        EncodeStage(root, replace(options, sparse_encoder="nobody/nothing")).items()


def test_an_encoder_for_other_features_is_refused(root, options):
    model = create_model("SLatEncoder", **{**SPARSE, "in_channels": 12})
    save_model(model, root / "other", "SLatEncoder", {**SPARSE, "in_channels": 12}, torch.float32)
    with pytest.raises(StageError, match=r"takes 12 channels per voxel, but features have 4"):
        EncodeStage(root, replace(options, sparse_encoder=str(root / "other"))).items()


def test_some_cubes_are_encoded_in_other_colours_and_say_so(root, options):
    """Their latents are those of the recoloured features; structure and the other cubes stay."""
    channels = ["red", "green", "blue", "normal_x"]
    for clip in FRAMES:
        path = root / "features" / f"{clip}.safetensors"
        save_file(load_file(path), path, {"channels": json.dumps(channels)})
    options = replace(options, quarter_turns=[0, 1, 2, 3])
    run(EncodeStage(root, options))
    plain = load_file(root / "encode" / "a.safetensors")
    run(EncodeStage(root, replace(options, recolor=0.5)))
    with safe_open(root / "encode" / "a.safetensors", "pt") as file:
        mixed, recolored = load_file(root / "encode" / "a.safetensors"), file.metadata()
    changed = [
        turns for turns in range(4) if not torch.equal(plain[f"sparse_mean_{turns}"], mixed[f"sparse_mean_{turns}"])
    ]
    assert 0 < len(changed) < 4 and set(recolored) == {f"recoloring_{turns}" for turns in changed}
    assert all(torch.equal(plain[f"structure_mean_{turns}"], mixed[f"structure_mean_{turns}"]) for turns in range(4))

    recoloring = Recoloring.from_json(recolored[f"recoloring_{changed[0]}"])
    for clip in FRAMES:
        path = root / "features" / f"{clip}.safetensors"
        tensors = load_file(path)
        feats = recoloring.features(tensors["feats_8"].float(), channels).half()
        save_file(tensors | {"feats_8": feats}, path, {"channels": json.dumps(channels)})
    shutil.rmtree(root / "encode")
    run(EncodeStage(root, replace(options, quarter_turns=changed[:1])))
    name = f"sparse_mean_{changed[0]}"
    torch.testing.assert_close(load_file(root / "encode" / "a.safetensors")[name], mixed[name], rtol=1e-2, atol=5e-3)
    with pytest.raises(ValueError, match=r"recolor is a chance from 0 to 1, not 1\.5"):
        replace(options, recolor=1.5)


def test_statistics_follow_another_split(root, options):
    run(EncodeStage(root, options))
    before = (root / "tables" / "latent_statistics.json").read_text()
    splits = {"a": "train", "b": "val", "held_out": "train"}
    write_table(root, "curate", [{"clip_name": clip, "split": split} for clip, split in splits.items()])
    run(EncodeStage(root, options))  # no clip is encoded again
    assert (root / "tables" / "latent_statistics.json").read_text() != before


def test_features_that_another_rendering_has_outdated_are_not_encoded(root, options):
    rows = read_table(root, "features")
    write_table(root, "features", [{**row, INPUTS: write_inputs({"render": "another"})} for row in rows])
    with pytest.raises(ValueError, match=r"features made a before its render changed: run .* features --root"):
        EncodeStage(root, options).items()
