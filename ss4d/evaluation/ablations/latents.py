"""Whether the latents of a prepared set are those of a checkpoint's encoders: a flow learns latents that only the
decoders of the same VAE can decode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ss4d.data.artifact import collate_voxels
from ss4d.data.format import Cube
from ss4d.data.occupancy import occupancy_grid
from ss4d.data.prepared import PreparedSet
from ss4d.models.checkpoint import load_model
from ss4d.models.names import NAMES

ENCODERS = {kind: f"ckpts/{NAMES[f'{kind}_encoder'].key}" for kind in ("structure", "sparse")}
TOLERANCE = 0.02  # of the latents' own size: rounding to half precision makes 0.001, a fine-tuned sibling 0.08


def check_latents(kind: str, root: Path, resolution: int, checkpoint: Path) -> None:
    """Encode the first clip of the train split again and compare. A checkpoint without encoders is not checked.

    The toolkit records the SHA-256 of the encoder's files, but exported checkpoints hold the same encoder in half
    precision: only its latents can be compared.

    Args:
        kind: "structure" or "sparse".
        resolution: voxels along one side.

    Raises:
        ValueError: the set has no latents, or those of another encoder.
    """
    stem = checkpoint / ENCODERS[kind]
    clips = PreparedSet.open(root, resolution, ("features", "encode"), "train")
    if not stem.with_name(f"{stem.name}.json").exists():
        print(f"{checkpoint} has no {ENCODERS[kind]}: whether the latents of {root} are its own is not checked.")
        return
    frames = range(clips.clips[0].frames)
    file, cube = clips.artifact(0, "encode"), Cube(None if clips.clips[0].cubes is None else 0)
    encoder: Any = load_model(stem, dtype=torch.float32)
    with torch.inference_mode():
        if kind == "structure":
            stored = file.frames(cube.latents("structure"), frames)
            coords = clips.artifact(0, "features").coords(cube.coords(resolution), frames)
            encoded = encoder(occupancy_grid(coords, len(frames), resolution)[None]).mean[0]
        else:
            stored = file.voxels(cube.latent_coords, cube.latents("sparse"), frames).values
            voxels = clips.artifact(0, "features").voxels(cube.coords(resolution), cube.feats(resolution), frames)
            encoded = encoder(collate_voxels([voxels])).mean.feats
    difference = relative_difference(encoded, stored)
    if difference > TOLERANCE:
        raise ValueError(
            f"The {kind} latents of {root} were made by another encoder than {stem} (they differ by {difference:.0%}): "
            f"run `python -m dataset_toolkits encode --root {root} encode.structure_encoder={checkpoint} "
            f"encode.sparse_encoder={checkpoint}`, or name their own checkpoint with checkpoint=DIR."
        )


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """Root mean square of the difference over that of `expected`; infinite where shapes differ."""
    if found.shape != expected.shape:
        return float("inf")
    return float((found - expected).square().mean().sqrt() / expected.square().mean().sqrt())
