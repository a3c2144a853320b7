"""One forward pass of a model on torch's meta device, its FLOPs and what it keeps counted block by block.

FLOPs of products and convolutions are added up as they come by, and the bytes that autograd keeps for the backward
pass. Two of our operators depend on where voxels are: attention over segments and submanifold convolution. Formulas
stand in for them, evaluated on real voxels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ss4d.nn import attention_layers
from ss4d.segments import Segments
from ss4d.sparse import Geometry, SparseTensor, SubmanifoldConv, Unpacking, neighbour_map


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


class MetaGeometry(Geometry):
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
        return MetaGeometry(value)
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


class Tally(TorchFunctionMode):
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
        kernel, convolution = attention_layers.packed_attention, SubmanifoldConv.forward
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

        attention_layers.packed_attention, SubmanifoldConv.forward = attend, convolve  # type: ignore[method-assign,assignment]
        SubmanifoldConv.unpacked = convolve_unpacked  # type: ignore[method-assign,assignment]
        try:
            yield
        finally:
            attention_layers.packed_attention, SubmanifoldConv.forward = kernel, convolution  # type: ignore[method-assign]
            SubmanifoldConv.unpacked = unpacked  # type: ignore[method-assign]
