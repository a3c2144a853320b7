"""What a model is called where: in code, in pipeline.json, in the released folders and in runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelName:
    """What one model is called."""

    ours: str  # in code
    key: str  # in pipeline.json, and its file in our own folders: ckpts/KEY.json and .safetensors
    released: str | None  # its file in the released folders (encoders: in TRELLIS'), which pipeline.json may not name
    run: str  # experiment that trains it ...
    trained_as: str  # ... and its file in the run folder: ckpts/TRAINED_AS.json and .safetensors
    optional: bool = False  # whether there are checkpoints without it


NAMES = {
    name.ours: name
    for name in (
        ModelName("image_encoder", "image_encoder", None, "structure_flow", "image_encoder"),
        ModelName(
            "structure_encoder",
            "sparse_structure_encoder",
            "ckpts/ss_enc_conv3d_16l8_fp16",
            "structure_vae",
            "encoder",
        ),
        ModelName(
            "structure_decoder",
            "sparse_structure_decoder",
            "ckpts/ss_dec_conv3d_16l8_fp16",
            "structure_vae",
            "decoder",
        ),
        ModelName("structure_flow", "sparse_structure_flow_model", "ckpts/ss_flow_video_4d", "structure_flow", "flow"),
        ModelName(
            "structure_estimator", "structure_estimator", None, "structure_estimator", "estimator", optional=True
        ),
        ModelName("sparse_encoder", "slat_encoder", "ckpts/slat_enc_swin8_B_64l8_fp16", "sparse_vae", "encoder"),
        ModelName("gaussian_decoder", "slat_decoder_gs", "ckpts/slat_dec_gs_4d", "sparse_vae", "decoder"),
        ModelName("sparse_flow", "slat_flow_model", "ckpts/slat_flow_video_4d", "sparse_flow", "flow"),
    )
}
