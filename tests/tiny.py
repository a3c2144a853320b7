"""Small stand-ins for what is large: a checkpoint folder with random models, and a prepared data set of boxes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from dataset_toolkits.engine.records import write_table
from ss4d.cameras import hammersley_sphere, orbit_camera
from ss4d.data.format import CHANNELS as CHANNELS_KEY
from ss4d.data.format import LATENT_KINDS, Cube, artifact_path, at_resolution, statistics_path
from ss4d.data.turns import turn_coords
from ss4d.data.views import View, ViewArchiveWriter, ViewIndex
from ss4d.flow import SamplerSettings
from ss4d.models import create_model
from ss4d.models import folder as folder_of_models
from ss4d.models.checkpoint import save_model
from ss4d.models.names import NAMES
from ss4d.models.structure_vae import StructureDecoder

RESOLUTION, IMAGE_SIZE = 16, 32
CHANNELS = ["red", "green", "blue", "normal_x", "normal_y", "normal_z", "offset_x", "offset_y", "offset_z"]
FEATURES = len(CHANNELS)
LATENT_CHANNELS, LATENT_SIDE = 8, 8
QUARTER_TURNS = (0, 1)
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
            if isinstance(model, StructureDecoder):  # a new one decodes to nothing
                final: Any = model.out_layer[-1]
                torch.nn.init.zeros_(final.bias)
        save_model(model, folder / "ckpts" / stem, name, args, torch.float16)
    settings = SamplerSettings(steps=2, cfg_strength=1.0)
    names = [name.ours for name in NAMES.values() if name.key in MODELS]
    statistics = {"mean": torch.zeros(4), "std": torch.ones(4)}
    folder_of_models.write_pipeline(folder, names, settings, settings, statistics)
    return folder


def write_clips(root: Path, frames: int = 4, views: int = 2) -> Path:
    """Two clips of a box that slides along x, laid out as docs/data.md says.

    Pictures are of one colour each (`picture`), latents of one turn and frame of one value (`latent`), plus noise.
    """
    for folder in ("features", "encode", "render"):
        (root / folder).mkdir(parents=True)
    tables: dict[str, list[dict[str, Any]]] = {"curate": [], "render": [], "features": [], "encode": []}
    for index, side in enumerate((4, 6)):
        name = f"box{index}__slide"
        done = {"key": "k", "status": "done", "error": None, "clip_name": name}
        coords = box_voxels(side, frames)
        _write_pictures(artifact_path(root, "render", name), frames, views)
        _write_features(artifact_path(root, "features", name), coords)
        _write_latents(artifact_path(root, "encode", name), coords, frames)
        tables["curate"].append(
            {
                **{"clip_name": name, "asset_id": f"box{index}", "clip": "slide", "split": "train", "accepted": True},
                **{"category": ("cube", "crate")[index], "group": "boxes", "reasons": ""},
            }
        )
        tables["render"].append({**done, "name": name, "frames": frames})
        tables["features"].append({**done, "name": name, at_resolution("seen", RESOLUTION): len(coords) / frames})
        tables["encode"].append({**done, "name": name})
    for stage, rows in tables.items():
        write_table(root, stage, rows)
    statistics = {"mean": [0.5] * LATENT_CHANNELS, "std": [2.0] * LATENT_CHANNELS}
    content = json.dumps({"structure": statistics, "sparse": statistics})
    statistics_path(root).write_text(content)
    return root


def box_voxels(side: int, frames: int) -> torch.Tensor:
    """int16 [N, 4], a solid box of `side` voxels that starts at (2, 5, 5) and moves one voxel a frame along x."""
    coords = []
    for frame in range(frames):
        occupied = torch.zeros(*[RESOLUTION] * 3, dtype=torch.bool)
        occupied[2 + frame : 2 + frame + side, 5 : 5 + side, 5 : 5 + side] = True
        coords.append(torch.nn.functional.pad(occupied.nonzero(), (1, 0), value=frame))
    return torch.cat(coords).short()


def picture(kind: int, view: int, frame: int) -> np.ndarray:
    """RGBA uint8: red tells view (0) from conditioning video (100) and their number, green the frame; the upper
    quarter is empty."""
    image = np.zeros((IMAGE_SIZE, IMAGE_SIZE, 4), np.uint8)
    image[IMAGE_SIZE // 4 :] = (100 * kind + 10 * view, 10 * frame, 200, 255)
    return image


def _write_pictures(path: Path, frames: int, views: int) -> None:
    """Views all around; conditioning videos of yaw 0 and 270, which quarter turns 0 and 1 bring to the front."""
    around = [_view(view.azimuth_deg, view.elevation_deg) for view in hammersley_sphere(views)]
    cond = [_view(5.0, 10.0, yaw=0), _view(265.0, 10.0, yaw=270)]
    index = ViewIndex(frames, IMAGE_SIZE, IMAGE_SIZE, 1.0, [0.0] * 3, [1.0, 3.0], around, cond)
    with ViewArchiveWriter(path, index) as archive:
        for frame in range(frames):
            for view in range(views):
                archive.add_view(view, frame, picture(0, view, frame), np.full((IMAGE_SIZE, IMAGE_SIZE), 2.0))
            for view in range(len(cond)):
                archive.add_cond(view, frame, picture(1, view, frame))


def _view(azimuth: float, elevation: float, yaw: int = 0) -> View:
    camera = orbit_camera(azimuth, elevation)
    return View(camera.extrinsics.tolist(), camera.intrinsics.tolist(), azimuth, elevation, 40.0, 2.0, yaw)


def _write_features(path: Path, coords: torch.Tensor) -> None:
    tensors = {
        Cube().coords(RESOLUTION): coords,
        Cube().feats(RESOLUTION): torch.rand(len(coords), FEATURES).half(),
        Cube().view_counts(RESOLUTION): torch.ones(len(coords), dtype=torch.uint8),
    }
    save_file(tensors, path, {CHANNELS_KEY: json.dumps(CHANNELS)})


def latent(turns: int, frame: int) -> float:
    """The value around which latents of a turn and frame lie."""
    return turns + frame / 4


def _write_latents(path: Path, coords: torch.Tensor, frames: int) -> None:
    tensors = {}
    for turns in QUARTER_TURNS:
        centre = torch.tensor([latent(turns, frame) for frame in range(frames)])
        dense = 0.01 * torch.randn(frames, LATENT_CHANNELS, *[LATENT_SIDE] * 3) + centre[:, None, None, None, None]
        sparse = 0.01 * torch.randn(len(coords), LATENT_CHANNELS) + centre[coords[:, 0].long(), None]
        cube = Cube(turns=turns)
        tensors[cube.latent_coords] = turn_coords(coords, turns, RESOLUTION)
        for kind, mean in zip(LATENT_KINDS, (dense, sparse), strict=True):
            tensors[cube.latents(kind)] = mean.half()
            tensors[cube.latents(kind, "logvar")] = torch.zeros_like(mean).half()
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)
