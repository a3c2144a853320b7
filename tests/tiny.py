"""Small stand-ins for what is large: a checkpoint folder with random models, and a prepared data set of boxes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ss4d.cameras import hammersley_sphere, orbit_camera
from ss4d.models import create_model
from ss4d.models.checkpoint import save_model

RESOLUTION, IMAGE_SIZE, FEATURES = 16, 32, 12
TRANSFORMER: dict[str, Any] = {"model_channels": 24, "num_blocks": 1, "num_heads": 2}
FLOW = {**TRANSFORMER, "in_channels": 4, "out_channels": 4, "cond_channels": 24, "patch_size": 2, "qk_rms_norm": True}
VAE = {**TRANSFORMER, "resolution": RESOLUTION, "latent_channels": 4, "pe_mode": "rope_t", "use_fp16": False}
GAUSSIANS = {
    "lr": {"_xyz": 1.0, "_features_dc": 1.0, "_opacity": 1.0, "_scaling": 1.0, "_rotation": 0.1},
    "perturb_offset": True,
    "voxel_size": 1.5,
    "num_gaussians": 2,
    "2d_filter_kernel_size": 0.1,
    "3d_filter_kernel_size": 0.0009,
    "scaling_bias": 0.02,
    "opacity_bias": 0.1,
    "scaling_activation": "softplus",
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "image_encoder": (
        "PatchImageEncoder",
        {"image_size": IMAGE_SIZE, "patch_size": 8, "channels": 24, "num_blocks": 1, "num_heads": 2},
    ),
    "sparse_structure_decoder": (
        "SparseStructureDecoder",
        {
            "out_channels": 1,
            "latent_channels": 4,
            "num_res_blocks": 1,
            "num_res_blocks_middle": 1,
            "channels": [8, 4],
        },
    ),
    "sparse_structure_flow_model": (
        "SparseStructureFlow4DModel",
        {**FLOW, "resolution": 8, "window_size": 4},
    ),
    "slat_flow_model": (
        "SLatFlow4DModel",
        {**FLOW, "resolution": RESOLUTION, "io_block_channels": [12], "io_block_channels_t": [24]},
    ),
    "slat_decoder_gs": ("SLatGaussianDecoder", {**VAE, "representation_config": GAUSSIANS}),
}


def write_pipeline(folder: Path) -> Path:
    """Random models and a pipeline.json; structures come out about half full."""
    for stem, (name, args) in MODELS.items():
        model = create_model(name, **args)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        save_model(model, folder / "ckpts" / stem, name, args, torch.float16)
    sampler = {"params": {"steps": 2, "cfg_strength": 1.0, "cfg_interval": [0.5, 1.0], "rescale_t": 3.0}}
    args = {
        "models": {stem: f"ckpts/{stem}" for stem in MODELS},
        "sparse_structure_sampler": sampler,
        "slat_sampler": sampler,
        "slat_normalization": {"mean": [0.0] * 4, "std": [1.0] * 4},
    }
    (folder / "pipeline.json").write_text(json.dumps({"name": "SS4DPipeline", "args": args}))
    return folder


def write_clips(root: Path, frames: int = 4, views: int = 2) -> Path:
    """Two clips of a box that slides along x, laid out as docs/data.md says."""
    (root / "clips").mkdir(parents=True)
    cameras = [orbit_camera(view.azimuth_deg, view.elevation_deg) for view in hammersley_sphere(views)]
    front = orbit_camera(0, 0)
    for index, side in enumerate((4, 6)):
        coords = []
        for frame in range(frames):
            occupied = torch.zeros(*[RESOLUTION] * 3, dtype=torch.bool)
            occupied[2 + frame : 2 + frame + side, 5 : 5 + side, 5 : 5 + side] = True
            coords.append(torch.nn.functional.pad(occupied.nonzero(), (1, 0), value=frame))
        voxels = torch.cat(coords).short()
        image = torch.full((IMAGE_SIZE, IMAGE_SIZE, 4), 200, dtype=torch.uint8)
        image[:8] = 0
        tensors = {
            "coords": voxels,
            "feats": torch.rand(len(voxels), FEATURES).half(),
            "views": image.expand(frames, views, -1, -1, -1).contiguous(),
            "extrinsics": torch.stack([camera.extrinsics for camera in cameras]),
            "intrinsics": torch.stack([camera.intrinsics for camera in cameras]),
            "cond": image.expand(1, frames, -1, -1, -1).contiguous(),
            "cond_extrinsics": front.extrinsics[None],
            "cond_intrinsics": front.intrinsics[None],
        }
        file = f"clips/box{index}.safetensors"
        record = {"object_id": f"box{index}", "clip": "slide", "file": file, "split": "train"}
        record["parameters"] = {"resolution": RESOLUTION}  # type: ignore[assignment]
        save_file(tensors, root / file, {"clip": json.dumps(record)})
    return root
