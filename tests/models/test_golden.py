"""Every model reproduces the released code's numbers from the released parameter names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from einops import rearrange
from golden import GOLDEN, Golden, assert_golden

from ss4d.models import create_model
from ss4d.models.checkpoint import load_model, save_model, save_model_weights
from ss4d.sparse import SparseTensor


def build(golden: Golden) -> torch.nn.Module:
    model = create_model(golden.info["class"].rsplit(".", 1)[1], **golden.info["args"])
    model.load_state_dict(golden.weights, strict=True)
    return model.eval()


def voxels(inputs: dict[str, torch.Tensor], frames: int, feats: torch.Tensor | None = None) -> SparseTensor:
    """Released coords (video * frames + frame, x, y, z) as ours."""
    row = inputs["coords"][:, :1]
    coords = torch.cat([row // frames, row % frames, inputs["coords"][:, 1:]], dim=1).int()
    videos = int(coords[:, 0].max()) + 1
    return SparseTensor(inputs["feats"] if feats is None else feats, coords, num_frames=frames, num_videos=videos)


@torch.no_grad()
def test_structure_encoder():
    golden = Golden.load("a_ss_encoder")
    posterior = build(golden)(golden.inputs("main")["x"][None])
    assert_golden(posterior.mean[0], golden.outputs("main")["mean"])
    assert_golden(posterior.logvar[0], golden.outputs("main")["logvar"])


@torch.no_grad()
def test_structure_decoder():
    golden = Golden.load("a_ss_decoder")
    logits = build(golden)(golden.inputs("main")["z"][None])
    assert_golden(logits[0], golden.outputs("main")["logits"])


@torch.no_grad()
@pytest.mark.parametrize("run", ["f8v1", "f6v1", "f8v2", "f6v2", "f1v1"])
def test_structure_flow(run: str):
    golden = Golden.load("b_ss_flow4d_win4")
    frames = golden.scalar(run, "num_frames")
    x, t, cond = (golden.inputs(run)[name].unflatten(0, (-1, frames)) for name in ("x", "t", "cond"))
    assert_golden(build(golden)(x, t, cond).flatten(0, 1), golden.outputs(run)["y"])


@torch.no_grad()
@pytest.mark.parametrize("run", ["f8v1", "f6v1", "f4v2", "f2v1"])
def test_sparse_flow(run: str):
    golden = Golden.load("d_slat_flow4d_3D_1D")
    frames, inputs = golden.scalar(run, "num_frames"), golden.inputs(run)
    t, cond = (inputs[name].unflatten(0, (-1, frames)) for name in ("t", "cond"))
    out = build(golden)(voxels(inputs, frames), t, cond)
    assert_golden(out.feats, golden.outputs(run)["feats"])


@torch.no_grad()
def test_sparse_encoder():
    golden = Golden.load("e_enc_win8")
    model = build(golden)
    for run in ("f12v1", "f6v2_second_alone"):
        posterior = model(voxels(golden.inputs(run), golden.scalar(run, "num_frames")))
        assert_golden(posterior.mean.feats, golden.outputs(run)["mean"])
        assert_golden(posterior.logvar.feats, golden.outputs(run)["logvar"])
    # The released windows of a second video depend on its place in the batch; ours are those of the video alone.
    both = model(voxels(golden.inputs("f6v2"), 6)).mean
    first = both.coords[:, 0] == 0
    assert_golden(both.feats[first], golden.outputs("f6v2")["mean"][first])
    assert_golden(both.feats[~first], golden.outputs("f6v2_second_alone")["mean"])


@torch.no_grad()
@pytest.mark.parametrize("run", ["f12v1", "f8v1", "f6v2_second_alone"])
def test_gaussian_decoder(run: str):
    golden = Golden.load("e_dec_gs_win8")
    frames, out = golden.scalar(run, "num_frames"), golden.outputs(run)
    model: Any = build(golden)
    x = voxels(golden.inputs(run), frames)
    assert_golden(model.features(x).feats, out["raw_feats"])
    sequence = model(x)[0]
    assert sequence.num_gaussians == out["gaussians_per_frame"].tolist()
    names = {
        "xyz": "xyz",
        "scale": "scaling",
        "rotation": "rotation",
        "opacity": "opacity",
        "sh": "features_dc",
    }
    for ours, released in names.items():
        assert_golden(torch.cat([getattr(frame, ours) for frame in sequence]), out[released])


@torch.no_grad()
def test_gaussian_decoder_batch_equals_each_video_alone():
    golden = Golden.load("e_dec_gs_win8")
    first, second = build(golden)(voxels(golden.inputs("f6v2"), 6))
    split = len(torch.cat([frame.xyz for frame in first]))
    assert_golden(torch.cat([frame.xyz for frame in first]), golden.outputs("f6v2")["xyz"][:split])
    assert_golden(torch.cat([frame.xyz for frame in second]), golden.outputs("f6v2_second_alone")["xyz"])


@torch.no_grad()
def test_trellis_structure_flow():
    golden = Golden.load("f_trellis_ss_flow")
    inputs = golden.inputs("main")
    model = build(golden)
    for shape in ((3, 1), (1, 3)):  # images as videos of one frame, or as frames of one video
        out = model(*(inputs[name].unflatten(0, shape) for name in ("x", "t", "cond")))
        assert_golden(out.flatten(0, 1), golden.outputs("main")["y"])


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 3])
def test_trellis_sparse_flow(frames: int):
    golden = Golden.load("f_trellis_slat_flow")
    inputs = golden.inputs("main")
    t, cond = (inputs[name].unflatten(0, (-1, frames)) for name in ("t", "cond"))
    out = build(golden)(voxels(inputs, frames), t, cond)
    assert_golden(out.feats, golden.outputs("main")["feats"])


@pytest.mark.parametrize("entry", json.loads((GOLDEN / "released_param_shapes.json").read_text()).items())
def test_full_size_names_and_shapes(entry: tuple):
    title, spec = entry
    name = title.split("(")[1].rstrip(")").split()[0]
    with torch.device("meta"):
        model = create_model(name, **spec["args"])
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == spec["shapes"]
    assert sum(parameter.numel() for parameter in model.parameters()) == spec["num_params"]


def test_a_released_sparse_flow_with_more_blocks_on_the_way_in_has_its_weights():
    """Without skips the released class counts the temporal blocks on the way in by num_io_res_blocks: with 3 and 1
    there are input_blocks_t.0, .1 and .2, but out_blocks_t.0 alone."""
    spec = json.loads((GOLDEN / "released_param_shapes.json").read_text())["slat_flow (SLatFlow4DModel 3D_1D)"]
    args = spec["args"] | {"num_io_res_blocks": 3, "num_io_res4d_blocks": 1, "use_skip_connection": False}
    with torch.device("meta"):
        weights = create_model("SLatFlow4DModel", **args).state_dict()
    found = {
        key.removesuffix(".conv1.conv.weight"): list(value.shape)
        for key, value in weights.items()
        if key.endswith(".conv1.conv.weight")
    }
    assert found == {
        "input_blocks.0": [128, 3, 3, 3, 128],
        "input_blocks.1": [128, 3, 3, 3, 128],
        "input_blocks.2": [1024, 3, 3, 3, 128],
        "input_blocks_t.0": [1024, 3, 1, 1, 1, 1024],
        "input_blocks_t.1": [1024, 3, 1, 1, 1, 1024],
        "input_blocks_t.2": [1024, 3, 1, 1, 1, 1024],
        "out_blocks_t.0": [1024, 3, 1, 1, 1, 1024],
        "out_blocks.0": [128, 3, 3, 3, 1024],
        "out_blocks.1": [128, 3, 3, 3, 128],
        "out_blocks.2": [128, 3, 3, 3, 128],
    }
    assert [key for key in weights if "_t." in key and "skip_connection" in key] == []


@torch.no_grad()
def test_such_a_sparse_flow_runs_and_loads_strictly(tmp_path: Path):
    golden = Golden.load("d_slat_flow4d_3D_1D")
    args = {**golden.info["args"], "num_io_res_blocks": 3, "num_io_res4d_blocks": 1, "use_skip_connection": False}
    save_model(create_model("SLatFlow4DModel", **args), tmp_path / "flow", "SLatFlow4DModel", args, torch.float32)
    model: Any = load_model(tmp_path / "flow")
    inputs = golden.inputs("f8v1")
    out = model(voxels(inputs, 8), inputs["t"][None], inputs["cond"][None])
    assert out.feats.shape == inputs["feats"].shape


def test_a_released_decoder_without_perturbation_keeps_its_buffer(tmp_path: Path):
    golden = Golden.load("e_dec_gs_win8")
    args = {**golden.info["args"]}
    args["representation_config"] = args["representation_config"] | {"perturb_offset": False}
    weights = golden.weights
    assert "offset_perturbation" in weights
    save_model_weights(weights, tmp_path / "decoder", "SLatGaussianDecoder", args, torch.float32)
    plain: Any = load_model(tmp_path / "decoder")
    perturbed: Any = build(golden)
    inputs = golden.inputs("f6v2")
    with torch.no_grad():
        out = perturbed.features(voxels(inputs, 6))
        count = plain.config["num_gaussians"]
        raw = rearrange(out.feats[:, : 3 * count], "n (g c) -> (n g) c", c=3)
        gain, reach = plain.config["lr"]["_xyz"], 0.5 * plain.config["voxel_size"] / plain.resolution
        centre = ((out.coords[:, 2:] + 0.5) / plain.resolution - 0.5).repeat_interleave(
            plain.config["num_gaussians"], 0
        )
        torch.testing.assert_close(plain.to_gaussians(out).xyz, centre + reach * torch.tanh(gain * raw))


def test_loading_takes_the_tensors_of_the_file_and_draws_nothing(tmp_path: Path):
    """No random number is drawn; weights stored in half precision come out in the model's own."""
    golden = Golden.load("a_ss_decoder")
    save_model(build(golden), tmp_path / "decoder", "StructureDecoder", golden.info["args"], torch.float16)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    loaded = load_model(tmp_path / "decoder")
    args = {"image_size": 16, "patch_size": 8, "channels": 8, "num_blocks": 1, "num_heads": 2}
    save_model(create_model("PatchImageEncoder", **args), tmp_path / "e", "PatchImageEncoder", args, torch.float16)
    torch.set_rng_state(state)
    load_model(tmp_path / "e")
    assert torch.equal(torch.get_rng_state(), state)
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(value, golden.weights[name].half().float(), rtol=0, atol=0)
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in loaded.parameters())
