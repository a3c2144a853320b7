"""A warm start: a 4D model that starts from a per-frame one says what that one says."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_runs import fit, logged
from tiny import FLOW, VAE, box_voxels

from ss4d.data.format import statistics_path
from ss4d.models import create_model
from ss4d.models.checkpoint import CheckpointError, save_model
from ss4d.models.compnet import pair_means
from ss4d.sparse import SparseTensor, pack, unpack
from ss4d.training.export import LATENT_STATISTICS
from ss4d.training.positional_init import start_attention_at_positions
from ss4d.training.warm_start import check_same_latents, source_statistics, warm_start

STRUCTURE: dict[str, Any] = {**FLOW, "resolution": 8}
SPARSE: dict[str, Any] = {**FLOW, "resolution": 16, "io_block_channels": [12], "num_io_res_blocks": 1}
TIME: dict[str, Any] = {"io_block_channels_t": [24], "num_io_res4d_blocks": 2, "conv_type": "3D_1D"}


def random_model(name: str, args: dict[str, Any]) -> torch.nn.Module:
    """No weight is zero, so that nothing passes because it is silent."""
    model = create_model(name, **args)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def trellis_folder(folder: Path, key: str, model: torch.nn.Module, name: str, args: dict[str, Any]) -> Path:
    """A released folder of one model."""
    save_model(model, folder / "ckpts/model", name, args, torch.float32)
    (folder / "pipeline.json").write_text(json.dumps({"args": {"models": {key: "ckpts/model"}}}))
    return folder


def voxels(frames: int, channels: int = 4) -> SparseTensor:
    coords = torch.nn.functional.pad(box_voxels(4, frames).int(), (1, 0))
    return SparseTensor(torch.randn(len(coords), channels), coords, num_frames=[frames])


def test_structure_flow_starts_as_trellis_on_single_frames(tmp_path: Path):
    trellis = random_model("SparseStructureFlowModel", STRUCTURE)
    source = trellis_folder(tmp_path, "sparse_structure_flow_model", trellis, "SparseStructureFlowModel", STRUCTURE)
    flow = create_model("SparseStructureFlow4DModel", **STRUCTURE, window_size=8).eval()
    report = warm_start({"flow": flow}, str(source), "structure_flow")
    assert f"{len(trellis.state_dict())} weights from {source}/ckpts/model" in report
    x, t, cond = torch.randn(3, 1, 4, 8, 8, 8), torch.full((3, 1), 500.0), torch.randn(3, 1, 5, 24)
    torch.testing.assert_close(flow(x, t, cond), trellis(x, t, cond))
    # Over several frames the aligned model looks across them, the other cannot.
    x, t, cond = x.transpose(0, 1), t.transpose(0, 1), cond.transpose(0, 1)
    assert not torch.allclose(flow(x, t, cond), trellis(x, t, cond), atol=1e-3)


def test_sparse_vae_starts_as_trellis_on_single_frames(tmp_path: Path):
    per_frame = {**VAE, "expand_self_attn": False, "pe_mode": "ape", "in_channels": 4}
    trellis = random_model("SLatEncoder", per_frame)
    # TRELLIS' pipeline.json does not name its encoders, which lie beside the other models.
    save_model(trellis, tmp_path / "ckpts/slat_enc_swin8_B_64l8_fp16", "SLatEncoder", per_frame, torch.float32)
    source = tmp_path
    (source / "pipeline.json").write_text(json.dumps({"args": {"models": {}}}))
    encoder = create_model("SLatEncoder", **{**VAE, "in_channels": 4}).eval()
    warm_start({"encoder": encoder}, str(source), "sparse_vae")
    x = voxels(1)
    torch.testing.assert_close(encoder(x).mean.feats, trellis(x).mean.feats)


def test_temporal_blocks_that_trellis_lacks_start_as_packing(tmp_path: Path):
    """The aligned flow is TRELLIS' own with frames packed before and unpacked after its torso, nothing else."""
    torch.manual_seed(3)
    trellis: Any = random_model("SLatFlowModel", SPARSE)
    source = trellis_folder(tmp_path, "slat_flow_model", trellis, "SLatFlowModel", SPARSE)
    flow = create_model("SLatFlow4DModel", **SPARSE, **TIME, pe_mode="ape").eval()
    report = warm_start({"flow": flow}, str(source), "sparse_flow")
    assert "of CompNet's temporal blocks start as pure packing" in report
    x, t, cond = voxels(2), torch.full((1, 2), 500.0), torch.randn(1, 2, 5, 24)
    made = flow(x, t, cond)

    compress, restore = trellis.compress, trellis.restore

    def packed(h: SparseTensor, time: Any) -> Any:
        h, skips, fine = compress(h, time)
        time.levels.append(pair_means(time.levels[0], [2]))
        trellis.unpacked = h.geometry
        return pack(h, "time"), skips, fine

    def unpacked(h: SparseTensor, time: Any, skips: Any, fine: Any) -> Any:
        return restore(unpack(h, trellis.unpacked, "time"), time, skips, fine)

    trellis.compress, trellis.restore, trellis.expand_self_attn = packed, unpacked, True
    type(trellis).temporal_levels, kept = property(lambda self: 1), type(trellis).temporal_levels
    try:
        torch.testing.assert_close(made.feats, trellis(x, t, cond).feats, rtol=1e-4, atol=1e-4)
    finally:
        type(trellis).temporal_levels = kept


def test_cross_attention_starts_at_the_patches_in_front_of_a_token():
    flow: Any = create_model("StructureFlow", **{**STRUCTURE, "model_channels": 96, "cond_channels": 96})
    encoder: Any = create_model(
        "PatchImageEncoder", image_size=64, patch_size=16, channels=96, num_blocks=1, num_heads=2
    )
    start_attention_at_positions(flow, encoder)
    nearest = (flow.pos_emb @ encoder.position.T).argmax(1)
    for token, patch in enumerate(nearest.tolist()):  # 4^3 tokens, 4^2 patches
        x, z = token // 16, token % 4
        assert (patch // 4, patch % 4) == (3 - z, x)
    attention = flow.blocks[0].cross_attn
    assert torch.equal(attention.to_kv.weight[:96], attention.to_q.weight)


def test_widths_that_cannot_positional_init_are_named():
    flow = create_model("StructureFlow", **{**STRUCTURE, "model_channels": 96, "cond_channels": 48})
    encoder = create_model("PatchImageEncoder", image_size=64, patch_size=16, channels=48, num_blocks=1, num_heads=2)
    with pytest.raises(ValueError, match="model_channels is 96 and channels is 48: make them equal"):
        start_attention_at_positions(flow, encoder)


def test_what_does_not_fit_is_named(tmp_path: Path):
    trellis = random_model("SparseStructureFlowModel", STRUCTURE)
    source = trellis_folder(tmp_path, "sparse_structure_flow_model", trellis, "SparseStructureFlowModel", STRUCTURE)
    wider = create_model("SparseStructureFlow4DModel", **{**STRUCTURE, "in_channels": 8})
    with pytest.raises(CheckpointError, match=r"input_layer.weight has shape \[24, 32\] instead of \[24, 64\]"):
        warm_start({"flow": wider}, str(source), "structure_flow")
    normed = create_model("SparseStructureFlow4DModel", **{**STRUCTURE, "qk_rms_norm": False})
    with pytest.raises(CheckpointError, match=r"q_rms_norm.gamma is not part of the model"):
        warm_start({"flow": normed}, str(source), "structure_flow")


def test_a_source_that_lacks_a_part_of_the_temporal_blocks_is_refused(tmp_path: Path):
    flow = create_model("SLatFlow4DModel", **SPARSE, **TIME, pe_mode="ape")
    tensors = {key: value.clone() for key, value in flow.state_dict().items()}
    lost = next(key for key in tensors if key.startswith("input_blocks_t."))
    save_file({key: value for key, value in tensors.items() if key != lost}, tmp_path / "flow.safetensors")
    with pytest.raises(CheckpointError, match=f"{re.escape(lost)} is missing"):
        warm_start({"flow": flow}, str(tmp_path), "sparse_flow")


def test_training_starts_from_a_run(tmp_path: Path, clip_folder: Path):
    first = fit("structure_vae", clip_folder, tmp_path, "train.steps=30", "train.learning_rate=5e-3")
    started = fit("structure_vae", clip_folder, tmp_path, "train.steps=1", f"init_from={first}", folder="started")
    fresh = fit("structure_vae", clip_folder, tmp_path, "train.steps=1", folder="fresh")
    assert logged(started)[0] < logged(fresh)[0]


def test_a_sparse_flow_goes_on_with_the_statistics_of_its_weights(tmp_path: Path, clip_folder: Path):
    fit("structure_flow", clip_folder, tmp_path, "train.steps=1")  # the image encoder
    lines = ["train.steps=1", "train.save_every=1"]
    first = fit("sparse_flow", clip_folder, tmp_path, *lines, folder="first")
    statistics = load_file(first / "ckpts" / LATENT_STATISTICS)
    clips = shutil.copytree(clip_folder, tmp_path / "clips")
    path = statistics_path(clips)
    content = json.loads(path.read_text())
    content["sparse"]["std"] = [2 * value for value in content["sparse"]["std"]]
    path.write_text(json.dumps(content))  # as another set, or more clips, would have them
    again = fit("sparse_flow", clips, tmp_path, *lines, f"init_from={first}", folder="again")
    resumed = fit("sparse_flow", clips, tmp_path, "train.steps=2", "train.save_every=1", folder="own")
    assert torch.equal(load_file(again / "ckpts" / LATENT_STATISTICS)["std"], statistics["std"])
    own = load_file(resumed / "ckpts" / LATENT_STATISTICS)["std"]
    torch.testing.assert_close(own, 2 * statistics["std"])
    path.write_text(json.dumps({**content, "sparse": {**content["sparse"], "std": statistics["std"].tolist()}}))
    fit("sparse_flow", clips, tmp_path, "train.steps=3", "train.save_every=1", folder="own")
    assert torch.equal(load_file(resumed / "ckpts" / LATENT_STATISTICS)["std"], own)


def test_every_source_of_weights_has_its_statistics(tmp_path: Path, clip_folder: Path):
    fit("structure_flow", clip_folder, tmp_path, "train.steps=1")  # the image encoder
    run_dir = fit("sparse_flow", clip_folder, tmp_path, "train.steps=1", folder="run")
    expected = load_file(run_dir / "ckpts" / LATENT_STATISTICS)
    step = next((run_dir / "checkpoints").glob("step_*"))
    for source in (run_dir, run_dir / "ckpts", step):
        found = source_statistics(str(source))
        assert found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in expected)
    (tmp_path / "empty").mkdir()
    assert source_statistics(str(tmp_path / "empty")) == {}
    (tmp_path / "folder").mkdir()
    write = {"args": {"models": {}, "slat_normalization": {"mean": [1.0, 2.0], "std": [3.0, 4.0]}}}
    (tmp_path / "folder/pipeline.json").write_text(json.dumps(write))
    assert source_statistics(str(tmp_path / "folder"))["std"].tolist() == [3.0, 4.0]
    (tmp_path / "folder/pipeline.json").write_text(json.dumps({"args": {"models": {}}}))
    assert source_statistics(str(tmp_path / "folder")) == {}


@pytest.mark.parametrize(("mean", "std", "warns"), [(0.5, 1.5, False), (3.0, 1.0, True), (0.0, 0.01, True)])
def test_latents_of_another_encoder_are_noticed(mean: float, std: float, warns: bool):
    given, own = ({"mean": torch.full((2,), m), "std": torch.full((2,), s)} for m, s in ((0.0, 1.0), (mean, std)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_same_latents("SOURCE", given, own)
    assert bool(caught) == warns
