"""Parameters, FLOPs and activations of a model, without data, a GPU, or memory for the weights.

The model runs once on torch's meta device, where tensors have a shape and no content. FLOPs of products and
convolutions are added up as they come by, and the bytes that autograd keeps for the backward pass. Two of our operators
depend on where voxels are: attention over segments and submanifold convolution. Formulas stand in for them, evaluated
on the voxels of a synthetic clip.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ss4d.models.base import TorsoModel
from ss4d.models.image_encoder import DINO_HUB_IDS, DinoImageEncoder, PatchImageEncoder
from ss4d.models.registry import create_model
from ss4d.models.sparse_flow import SparseFlow
from ss4d.models.sparse_vae import SparseTransformer
from ss4d.models.structure_flow import StructureFlow
from ss4d.models.structure_vae import StructureDecoder, StructureEncoder, Upsample3d
from ss4d.nn import blocks as attention_blocks
from ss4d.segments import Segments
from ss4d.sparse import Geometry, SparseTensor, SubmanifoldConv, Unpacking, neighbour_map

FLOAT32 = 4  # bytes
# Parameters of DINOv2 with registers, and FLOPs for an image: its library builds it from a download alone.
DINO_COST = {
    "dinov2_vits14_reg": (22_058_112, 93.8e9),
    "dinov2_vitb14_reg": (86_583_552, 304.2e9),
    "dinov2_vitl14_reg": (304_372_736, 1017.1e9),
    "dinov2_vitg14_reg": (1_136_486_912, 3578.4e9),
}


def _product_flops(_: Tensor, weight: Tensor, output: Tensor) -> int:
    return 2 * math.prod(weight.shape[1:]) * output.numel()


# What has FLOPs worth counting, from its first two operands and its output: 2 for a multiply-add.
FLOPS: dict[Any, Callable[[Tensor, Tensor, Tensor], int]] = {
    functional.linear: _product_flops,
    functional.conv2d: _product_flops,
    functional.conv3d: _product_flops,
    functional.scaled_dot_product_attention: lambda q, k, _: 4 * q.numel() * k.shape[-2],
}


@dataclass
class Part:
    """Forward FLOPs of some layers; bytes kept for their backward pass, and those of their input alone."""

    flops: float = 0
    kept: float = 0
    entry: float = 0

    def times(self, count: int) -> Part:
        return Part(*(count * getattr(self, item.name) for item in fields(self)))


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

    What a flow with `projection` adds from the pixels of the input is small, and left out. Of a model whose inputs are
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
    tally = _Tally(model, blocks, torch.float16 if element < FLOAT32 else None)
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
    if isinstance(model, SparseFlow | SparseTransformer):
        geometry = _MetaGeometry(SparseTensor(torch.zeros(len(coords), 1), coords, num_frames=frames).geometry)
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


class _MetaGeometry(Geometry):
    """Voxels on the meta device; whatever is derived from them is computed on the real ones, then moved there."""

    def __init__(self, real: Geometry):
        _ = real.video_segments  # computed and cached in the instance
        self.__dict__.update(real.__dict__)
        self.real, self.coords, self._cache = real.coords, real.coords.to("meta"), {}

    def cached(self, key: Any, build: Any) -> Any:
        if key not in self._cache:
            on_meta, self.coords = self.coords, self.real
            try:
                self._cache[key] = _to_meta(build())
            finally:
                self.coords = on_meta
        return self._cache[key]


def _to_meta(value: Any) -> Any:
    """A plan with its tensors and voxels on the meta device."""
    if isinstance(value, Tensor):
        return value.to("meta")
    if isinstance(value, Geometry):
        return _MetaGeometry(value)
    if isinstance(value, list):
        return [_to_meta(item) for item in value]
    if isinstance(value, Segments) or not hasattr(value, "__dict__"):
        return value
    moved = copy(value)
    moved.__dict__.update({name: _to_meta(item) for name, item in vars(value).items()})
    return moved


class _Kept(torch.autograd.Function):
    """The output of an operator of ours, and what it keeps: its inputs, attention its output as well."""

    @staticmethod
    def forward(ctx: Any, channels: int, keep_output: bool, *inputs: Tensor) -> Tensor:  # type: ignore[override]
        output = inputs[0].new_empty(*inputs[0].shape[:-1], channels)
        ctx.save_for_backward(*inputs, *([output] if keep_output else []))
        return output


class _Tally(TorchFunctionMode):
    """Counts one forward pass of a model, block by block.

    torch has no autocast for the meta device: as a mode, it gives products their operands in `dtype`.
    """

    def __init__(self, model: nn.Module, blocks: list[nn.Module], dtype: torch.dtype | None):
        super().__init__()
        self.model, self.dtype, self.flops = model, dtype, 0.0
        self.ends, self.parts = Part(), [Part() for _ in blocks]
        self.current, self.started = self.ends, 0.0
        self.casts: dict[Tensor, Tensor] = {}  # of weights, done once
        # Storages that are counted already, or not to be; held, so that no other one gets their id.
        self.storages: dict[int, Any] = {}
        for weight in [*model.parameters(), *model.buffers()]:
            self.ignore(weight)
        model.use_checkpoint = False  # type: ignore[assignment]
        for block, part in zip(blocks, self.parts, strict=True):
            block.register_forward_pre_hook(lambda _, args, part=part: self.enter(part, args[0]))
            block.register_forward_hook(lambda *_: self.leave())

    def run(self, inputs: tuple[Any, ...]) -> None:
        hooks = torch.autograd.graph.saved_tensors_hooks(self.keep, lambda kept: kept)
        with self.operators(), hooks, self:
            outputs = self.model(*inputs)  # what it keeps lives as long as its outputs
        assert outputs is not None
        self.ends.flops = self.flops - sum(part.flops for part in self.parts)

    def enter(self, part: Part, x: Any) -> None:
        feats = x.feats if isinstance(x, SparseTensor) else x
        part.entry = feats.numel() * feats.element_size()
        self.current, self.started = part, self.flops

    def leave(self) -> None:
        self.current.flops = self.flops - self.started
        self.current = self.ends

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in FLOPS:
            return func(*args, **(kwargs or {}))
        output = func(*map(self.cast, args), **{name: self.cast(value) for name, value in (kwargs or {}).items()})
        self.flops += FLOPS[func](args[0], args[1], output)
        return output

    def cast(self, value: Any) -> Any:
        if self.dtype is None or not isinstance(value, Tensor):
            return value
        if not isinstance(value, nn.Parameter):
            return value.to(self.dtype)
        if value not in self.casts:
            self.casts[value] = self.ignore(value.to(self.dtype))
        return self.casts[value]

    def ignore(self, tensor: Tensor) -> Tensor:
        self.storages[id(tensor.untyped_storage())] = tensor.untyped_storage()
        return tensor

    def keep(self, tensor: Tensor) -> Tensor:
        """Called with every tensor that autograd keeps: each storage counts once, weights and their casts do not."""
        storage = tensor.untyped_storage()
        if tensor.is_floating_point() and id(storage) not in self.storages:
            self.storages[id(storage)] = storage
            self.current.kept += storage.nbytes()
        return tensor

    @contextmanager
    def operators(self) -> Iterator[None]:
        """The formulas in place of our own operators."""
        kernel, convolution = attention_blocks.packed_attention, SubmanifoldConv.forward
        unpacked = SubmanifoldConv.unpacked

        def attend(q: Tensor, k: Tensor, v: Tensor, q_segments: Segments, k_segments: Segments) -> Tensor:
            pairs = sum(a * b for a, b in zip(q_segments.lengths, k_segments.lengths, strict=True))
            self.flops += 4 * pairs * q.shape[1] * q.shape[2]  # scores and weighted sum
            return _Kept.apply(q.shape[-1], True, *map(self.cast, (q, k, v)))

        def convolve(layer: SubmanifoldConv, x: SparseTensor) -> SparseTensor:
            weight = layer.conv.weight
            pairs = len(x) + neighbour_map(x.geometry, (1, *weight.shape[1:-1])[-4:]).num_pairs  # type: ignore[arg-type]
            self.flops += 2 * pairs * weight.shape[0] * weight.shape[-1]
            return x.replace(_Kept.apply(weight.shape[0], False, *map(self.cast, (x.feats, weight))))

        def convolve_unpacked(layer: SubmanifoldConv, x: SparseTensor, unpacking: Unpacking) -> SparseTensor:
            weight = layer.conv.weight
            pairs = neighbour_map(unpacking.fine, (1, *weight.shape[1:-1])[-4:]).num_pairs  # type: ignore[arg-type]
            before, after = len(x) * math.prod(weight.shape[1:-1]), pairs + len(unpacking.parent)
            if before >= after:
                return convolve(layer, unpacking(x))
            self.flops += 2 * before * weight.shape[0] * weight.shape[-1]
            product = x.replace(_Kept.apply(weight.shape[0], False, *map(self.cast, (x.feats, weight))))
            return unpacking(product)

        attention_blocks.packed_attention, SubmanifoldConv.forward = attend, convolve  # type: ignore[method-assign,assignment]
        SubmanifoldConv.unpacked = convolve_unpacked  # type: ignore[method-assign,assignment]
        try:
            yield
        finally:
            attention_blocks.packed_attention, SubmanifoldConv.forward = kernel, convolution  # type: ignore[method-assign]
            SubmanifoldConv.unpacked = unpacked  # type: ignore[method-assign]
