"""The shipped checkpoint shows the colours it is given: its first sparse VAE had no green."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ss4d import SS4DPipeline, load_video
from ss4d.data.artifact import Artifact
from ss4d.data.format import CHANNELS, COLOUR_MIDDLE, COLOUR_SPREAD, Cube
from ss4d.gaussians import Gaussians
from ss4d.models.checkpoint import load_model
from ss4d.sparse import SparseTensor

ROOT = Path(__file__).parent.parent
CHECKPOINT, CLIPS = ROOT / "checkpoints/ss4d-tiny", ROOT / "assets/four_clips"
COLOURS = {
    "red": (0.8, 0.1, 0.1),
    "green": (0.2, 0.7, 0.1),
    "blue": (0.1, 0.2, 0.8),
    "yellow": (0.9, 0.8, 0.1),
    "purple": (0.6, 0.1, 0.7),
    "grey": (0.5, 0.5, 0.5),
}


@pytest.fixture(scope="module")
def pipeline() -> SS4DPipeline:
    return SS4DPipeline.from_pretrained(CHECKPOINT, "cpu")


def mean_colour(gaussians: Gaussians) -> torch.Tensor:
    """[3], weighted by what each Gaussian covers: opacity times the area of a ball of its volume."""
    weight = gaussians.opacity.flatten() * gaussians.scale.prod(1) ** (2 / 3)
    return (weight[:, None] * gaussians.rgb).sum(0) / weight.sum()


@pytest.mark.parametrize("name", COLOURS)
@torch.inference_mode()
def test_the_sparse_vae_keeps_a_colour(name: str):
    encoder, decoder = (load_model(CHECKPOINT / "ckpts" / stem).float() for stem in ("slat_encoder", "slat_decoder_gs"))
    file = Artifact(CLIPS, "features", "quaternius_ultimate_monsters__Orc__Bite_Front")
    cube = Cube(view=0)
    voxels = file.voxels(cube.coords(32), cube.feats(32), [0])
    channels = [channel.partition("_")[0] for channel in json.loads(file.metadata()[CHANNELS])]
    for colour, value in zip(("red", "green", "blue"), COLOURS[name], strict=True):
        columns = [index for index, channel in enumerate(channels) if channel == colour]
        voxels.values[:, columns] = (value - COLOUR_MIDDLE) / COLOUR_SPREAD
    coords = torch.nn.functional.pad(voxels.coords, (1, 0))
    latents = encoder(SparseTensor(voxels.values, coords, num_frames=[1])).mean
    shown = mean_colour(decoder(latents)[0][0]).tolist()
    assert shown == pytest.approx(COLOURS[name], abs=0.1)


@pytest.mark.parametrize("name", COLOURS)
def test_an_object_painted_in_a_colour_comes_out_in_it(name: str, pipeline: SS4DPipeline):
    clip = load_video(ROOT / "assets/demo.mp4", num_frames=1)
    clip.frames[..., :3] = (255 * torch.tensor(COLOURS[name])).byte().numpy()
    assert mean_colour(pipeline.run(clip).gaussians[0]).tolist() == pytest.approx(COLOURS[name], abs=0.2)
