"""Parameters, FLOPs and activations of a model, without data, a GPU, or memory for the weights.

The model runs once on torch's meta device, where tensors have a shape and no content (`tally.py`), on the voxels of a
synthetic clip.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ss4d.models.base import TorsoModel
from ss4d.models.image_encoder import DINO_HUB_IDS, DinoImageEncoder, PatchImageEncoder
from ss4d.models.projection import PIXEL_CHANNELS
from ss4d.models.registry import create_model
from ss4d.models.sparse_flow import SparseFlow
from ss4d.models.sparse_vae import SparseTransformer
from ss4d.models.structure_estimator import StructureEstimator
from ss4d.models.structure_flow import StructureFlow
from ss4d.models.structure_vae import StructureDecoder, StructureEncoder, Upsample3d
from ss4d.sparse import SparseTensor
from ss4d.training.tally import MetaGeometry, Part, Tally

FLOAT32 = 4  # bytes
# Parameters of DINOv2 with registers, and FLOPs for an image: its library builds it from a download alone.
DINO_COST = {
    "dinov2_vits14_reg": (22_058_112, 93.8e9),
    "dinov2_vitb14_reg": (86_583_552, 304.2e9),
    "dinov2_vitl14_reg": (304_372_736, 1017.1e9),
    "dinov2_vitg14_reg": (1_136_486_912, 3578.4e9),
}


@dataclass(frozen=True)
class ModelCost:
    """Cost of a forward pass. `blocks` can be recomputed in the backward pass, `ends` are what is around them."""

    parameters: int
    ends: Part
    blocks: tuple[Part, ...] = ()
    still: int = 0  # of the parameters, those that do not learn (train.freeze)

    @property
    def flops(self) -> float:
        return self.ends.flops + sum(block.flops for block in self.blocks)

    def step_flops(self, recomputed: int = 0) -> float:
        """Of a training step: the backward pass costs two forward passes, and what is recomputed another.

        One of the two is of the weights' gradients, taken to be shared evenly among them; a model that does not learn
        at all has no backward pass.
        """
        if self.still == self.parameters:
            return self.flops
        backward = 2 - self.still / self.parameters
        return (1 + backward) * self.flops + sum(block.flops for block in self.blocks[:recomputed])

    def activation_bytes(self, recomputed: int = 0) -> float:
        """Peak bytes kept where the first `recomputed` blocks keep their input alone; one at a time has all back."""
        light, heavy = self.blocks[:recomputed], self.blocks[recomputed:]
        kept = self.ends.kept + sum(block.kept for block in heavy) + sum(block.entry for block in light)
        return kept + max((block.kept for block in light), default=0)


def model_cost(
    name: str,
    args: Mapping[str, Any],
    clips: int,
    coords: Tensor,
    resolution: int,
    image_tokens: int,
    element: int,
    learns: Callable[[str], bool] = lambda parameter: True,
) -> ModelCost:
    """Cost of the model that `create_model(name, **args)` builds, on equally large clips.

    What a flow with `projection` adds from the pixels of the input is left out. Of a model whose inputs are
    not known here the parameters alone are counted, with a warning.

    Args:
        coords: voxels of one clip, int32 [N, 5]; its last frame holds some.
        resolution: voxels along a side of the grid.
        image_tokens: of the conditioning image of a frame; flows.
        element: bytes in autocast's type, 2, or 4 for no autocast.
        learns: whether the parameter of this name does.
    """
    frames = int(coords[:, 1].max()) + 1
    if name == "DinoImageEncoder" and "config" not in args:
        parameters, flops = _dino_cost(args["name"])
        return ModelCost(parameters, Part(clips * frames * flops))
    with torch.device("meta"):
        model = create_model(name, **args)
    sizes = {parameter: value.numel() for parameter, value in model.named_parameters()}
    parameters, still = sum(sizes.values()), sum(size for key, size in sizes.items() if not learns(key))
    inputs = _inputs(model, coords, frames, resolution, image_tokens)
    if inputs is None:
        warnings.warn(
            f"FLOPs and activations of {type(model).__name__} are not counted: ss4d/training/counting.py does not know "
            "what it takes (_inputs)",
            stacklevel=2,
        )
        return ModelCost(parameters, Part(), still=still)
    blocks = model.blocks_in_order() if isinstance(model, TorsoModel) else []
    tally = Tally(model, blocks, torch.float16 if element < FLOAT32 else None)
    tally.run(inputs)
    return ModelCost(parameters, tally.ends.times(clips), tuple(part.times(clips) for part in tally.parts), still)


def _dino_cost(name: str) -> tuple[int, float]:
    for released, hub_id in DINO_HUB_IDS.items():
        if name in (released, hub_id):
            return DINO_COST[released]
    raise ValueError(f"the size of the image encoder '{name}' is not known: name one of {', '.join(DINO_HUB_IDS)}")


def _inputs(
    model: nn.Module, coords: Tensor, frames: int, resolution: int, image_tokens: int
) -> tuple[Any, ...] | None:
    """What a model takes for one clip, on the meta device; None: nobody has said so."""

    def empty(*shape: int) -> Tensor:
        return torch.empty(*shape, device="meta")

    if isinstance(model, PatchImageEncoder | DinoImageEncoder):
        return (empty(frames, getattr(model, "in_channels", 3), model.image_size, model.image_size),)
    if isinstance(model, StructureEstimator):
        return (empty(frames, PIXEL_CHANNELS, model.image_size, model.image_size),)
    if isinstance(model, SparseFlow | SparseTransformer):
        geometry = MetaGeometry(SparseTensor(torch.zeros(len(coords), 1), coords, num_frames=frames).geometry)
        x: Any = SparseTensor.on(geometry, empty(len(coords), model.input_layer.in_features))
    elif isinstance(model, StructureFlow):
        x = empty(1, frames, model.in_channels, *[model.resolution] * 3)
    elif isinstance(model, StructureEncoder):
        x = empty(1, frames, model.input_layer.in_channels, *[resolution] * 3)
    elif not isinstance(model, StructureDecoder):
        return None
    else:
        side = resolution // 2 ** sum(isinstance(block, Upsample3d) for block in model.modules())
        x = empty(1, frames, model.input_layer.in_channels, *[side] * 3)
    if isinstance(model, StructureFlow | SparseFlow):
        cond_channels: Any = model.blocks[0].cross_attn.to_kv.in_features  # type: ignore[union-attr]
        return x, empty(1, frames), empty(1, frames, image_tokens, cond_channels)
    return (x,)


def synthetic_clip(frames: int, voxels: float, resolution: int) -> Tensor:
    """int32 [N, 5]: the surface of a ball that drifts to and fro, `voxels` a frame.

    Its voxels lie as those of training clips do (450 clips of the toolkit's assets at 32 and 64 voxels a side): as
    many neighbours under the kernels and in a window, and as many left after packing, to a few percent.
    """
    thickness = 1.5
    radius = math.sqrt(voxels / (4 * math.pi * thickness))
    axis = torch.arange(resolution) + 0.5
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    direction = nn.functional.normalize(torch.tensor([1.0, 0.7, 0.4]), dim=0)
    room, rows = max(resolution / 2 - radius - 1, 1), []
    for frame in range(frames):
        way = 0.55 * resolution / 32 * frame
        offset = abs((way + room) % (4 * room) - 2 * room) - room  # to and fro in [-room, room]
        distance = (grid - resolution / 2 - offset * direction).norm(dim=-1)
        cells = ((distance - radius).abs() < thickness / 2).nonzero()
        rows.append(torch.cat([torch.tensor([[0, frame]]).expand(len(cells), 2), cells], dim=1))
    return torch.cat(rows).int()
