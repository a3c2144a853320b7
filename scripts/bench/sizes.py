"""Model sizes that are timed: ss4d-tiny, one between, and the paper's."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TINY = Path(__file__).parents[2] / "checkpoints/ss4d-tiny/ckpts"
VIT_LARGE = {
    **{"image_size": 518, "patch_size": 14, "hidden_size": 1024, "num_hidden_layers": 24},
    **{"num_attention_heads": 16, "num_register_tokens": 4},
}


@dataclass(frozen=True)
class Size:
    """Models by stage, as `create_model` takes them, and a frame of the clip they work on."""

    models: dict[str, tuple[str, dict[str, Any]]]
    resolution: int  # voxels along one side
    voxels: int  # occupied in a frame
    image_tokens: int
    cond_channels: int
    image_size: int


def tiny() -> Size:
    """The models of checkpoints/ss4d-tiny."""
    files = {
        "image encoder": "image_encoder",
        "structure flow": "sparse_structure_flow_model",
        "structure decoder": "sparse_structure_decoder",
        "sparse flow": "slat_flow_model",
        "Gaussian decoder": "slat_decoder_gs",
    }
    specs = {stage: json.loads((TINY / f"{file}.json").read_text()) for stage, file in files.items()}
    models = {stage: (spec["name"], spec["args"]) for stage, spec in specs.items()}
    return Size(models, resolution=32, voxels=1542, image_tokens=64, cond_channels=192, image_size=128)


def mid() -> Size:
    """256 channels, 6 blocks; what conditions them is as large as at full size."""
    models = _models(channels=256, blocks=6, resolution=32, side=8, narrow=64, grids=(128, 64, 32), decoder=(256, 6))
    return Size(models, resolution=32, voxels=983, image_tokens=1374, cond_channels=1024, image_size=518)


def full() -> Size:
    """The paper's models."""
    models = _models(
        channels=1024, blocks=24, resolution=64, side=16, narrow=128, grids=(512, 128, 32), decoder=(768, 12)
    )
    models["image encoder"] = ("DinoImageEncoder", {"config": VIT_LARGE})
    return Size(models, resolution=64, voxels=6394, image_tokens=1374, cond_channels=1024, image_size=518)


SIZES: dict[str, Callable[[], Size]] = {"tiny": tiny, "mid": mid, "full": full}


def _models(
    channels: int,
    blocks: int,
    resolution: int,
    side: int,
    narrow: int,
    grids: tuple[int, ...],
    decoder: tuple[int, int],
) -> dict[str, tuple[str, dict[str, Any]]]:
    """The paper's models with other numbers: `side` of the structure latents, `narrow` channels of CompNet's ends,
    `grids` channels of the structure decoder, channels and blocks of the Gaussian `decoder`."""
    flow = {
        **{"in_channels": 8, "out_channels": 8, "model_channels": channels, "cond_channels": 1024},
        **{"num_blocks": blocks, "num_head_channels": 64, "pe_mode": "rope_t", "qk_rms_norm": True},
    }
    gaussians = {
        "lr": {"_xyz": 1.0, "_features_dc": 1.0, "_opacity": 1.0, "_scaling": 1.0, "_rotation": 0.1},
        **{"perturb_offset": True, "voxel_size": 1.5, "num_gaussians": 32, "2d_filter_kernel_size": 0.1},
        **{"3d_filter_kernel_size": 0.0009, "scaling_bias": 0.004, "opacity_bias": 0.1},
        "scaling_activation": "softplus",
    }
    return {
        "structure flow": (
            "SparseStructureFlow4DModel",
            {**flow, "resolution": side, "patch_size": 1, "window_size": 8},
        ),
        "structure decoder": (
            "SparseStructureDecoder",
            {"out_channels": 1, "latent_channels": 8, "num_res_blocks": 2, "channels": list(grids)},
        ),
        "sparse flow": (
            "SLatFlow4DModel",
            {
                **flow,
                **{"resolution": resolution, "patch_size": 2, "num_io_res_blocks": 2, "num_io_res4d_blocks": 2},
                **{"io_block_channels": [narrow], "io_block_channels_t": [channels], "conv_type": "3D_1D"},
            },
        ),
        "Gaussian decoder": (
            "SLatGaussianDecoder",
            {
                **{"resolution": resolution, "model_channels": decoder[0], "num_blocks": decoder[1]},
                **{"latent_channels": 8, "num_head_channels": 64, "window_size": 8, "pe_mode": "rope_t"},
                **{"use_fp16": False, "use_checkpoint": False, "representation_config": gaussians},
            },
        ),
    }
