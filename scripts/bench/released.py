"""One forward of each large model against one of the released code, with the same weights and inputs.

    python -m scripts.bench released --checkout ../SS4D --out RELEASED

On the CPU, one thread, float32, alternating in one process; seconds are those of the processor. The checkout is that
of github.com/Lizb6626/SS4D with its submodules; its convolutions need spconv (`pip install spconv`), whose CPU build is
right with one thread alone. Where flash-attn is missing, torch's fused attention stands in for it, a segment at a time.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from scripts.bench.flash import stand_in_for_flash
from scripts.bench.sizes import SIZES, Size
from ss4d.gaussians.gaussians import Gaussians
from ss4d.models.registry import create_model
from ss4d.nn import Memo
from ss4d.plan import KEPT_BYTES
from ss4d.sparse import SparseTensor
from ss4d.training.counting import synthetic_clip

TOLERANCE = 1e-4  # of the two outputs, in standard deviations
GOALS = {"structure flow": 0.9, "sparse flow": 0.75, "Gaussian decoder": 0.75}
FURTHER = "a further step"
FRAMES = {"structure flow": 16, "sparse flow": 8, "Gaussian decoder": 8}


@dataclass
class Pair:
    """The two sides of a row of the table, each from inputs to one tensor; what they took in turn."""

    released: Callable[[], Tensor]
    ours: Callable[[], Tensor]
    seconds: dict[str, list[float]] = field(default_factory=lambda: {"released": [], "ours": []})

    def median(self, side: str) -> float:
        return statistics.median(self.seconds[side])

    @property
    def ratio(self) -> float:
        """Of the medians."""
        return self.median("ours") / self.median("released")

    def difference(self) -> float:
        """Largest difference of the outputs, in standard deviations of the same entry of the last axis (but at least
        0.01: the first number of a quaternion is close to 1 throughout)."""
        released, ours = (side().flatten(0, -2) for side in (self.released, self.ours))
        return float(((released - ours).abs().amax(0) / released.std(0).clamp(min=0.01)).max())


def run(options: Namespace) -> None:
    torch.set_num_threads(1)
    find_released(options.checkout)
    size, report = SIZES[options.size](), {}
    torch.manual_seed(0)
    with torch.no_grad():
        for stage in options.stages:
            for label, pair in pairs(stage, size, FRAMES[stage]).items():
                difference = pair.difference()  # also a first call of both, which does not count
                if not difference < TOLERANCE:
                    raise SystemExit(f"error: {label}: the two outputs differ by {difference:.1e} standard deviations")
                for _ in range(options.repeats):
                    for side in pair.seconds:
                        pair.seconds[side].append(processor_seconds(getattr(pair, side)))
                report[label] = {
                    **{"released": pair.median("released"), "ours": pair.median("ours"), "ratio": pair.ratio},
                    **{"goal": GOALS[stage], "difference": difference, "seconds": pair.seconds},
                }
                print(f"{label}: {pair.seconds}", file=sys.stderr, flush=True)
    print(markdown(report))
    if options.out:
        options.out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
        options.out.with_suffix(".md").write_text(markdown(report) + "\n")


def pairs(stage: str, size: Size, frames: int) -> dict[str, Pair]:
    """Rows of a stage: the first step of sampling, and for the flows a further one, for which ours keeps the keys and
    values of the image; what works on voxels has the geometry of the call before, and one more row with voxels that
    are new to both sides."""
    memo = Memo(KEPT_BYTES)
    name, args = size.models[stage]
    args = {**args, "expand_self_attn": True}  # where the released class has another default
    ours = create_model(name, **args).eval()
    for parameter in ours.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    # In training mode, since spconv's layers on the CPU do not run in the other; nothing else depends on it.
    theirs: Any = getattr(import_module("trellis.models"), name)(**args).train()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    if stage == "structure flow":
        x = torch.randn(1, frames, args["in_channels"], *[args["resolution"]] * 3)
        times, tokens = condition(size, frames)

        def released_dense() -> Tensor:
            return theirs(x[0], times[0], tokens[0], num_frames=frames)

        return {
            stage: Pair(released_dense, lambda: ours(x, times, tokens)[0]),
            f"{stage}, {FURTHER}": Pair(released_dense, lambda: ours(x, times, tokens, memo=memo)[0]),
        }
    coords = synthetic_clip(frames, size.voxels, size.resolution)
    feats = torch.randn(len(coords), 8)
    their_coords = coords[:, 1:].contiguous()
    their_tensor = import_module("trellis.modules.sparse").SparseTensor
    new = (lambda: their_tensor(feats, their_coords), lambda: SparseTensor(feats, coords, num_frames=frames))
    kept = tuple(build() for build in new)
    further: dict[str, Pair] = {}
    if stage == "sparse flow":
        times, tokens = condition(size, frames)

        def released(x: Any) -> Tensor:
            return theirs(x, times[0], tokens[0], num_frames=frames).feats

        def this(x: SparseTensor) -> Tensor:
            return ours(x, times, tokens).feats

        further[f"{stage}, {FURTHER}"] = Pair(
            lambda: released(kept[0]), lambda: ours(kept[1], times, tokens, memo=memo).feats
        )
    else:

        def released(x: Any) -> Tensor:
            return torch.cat([activated(frame) for frame in theirs(x, num_frames=frames)])

        def this(x: SparseTensor) -> Tensor:
            return torch.cat([values(frame) for frame in ours(x)[0]])

    return {
        stage: Pair(lambda: released(kept[0]), lambda: this(kept[1])),
        f"{stage}, new voxels": Pair(lambda: released(new[0]()), lambda: this(new[1]())),
        **further,
    }


def condition(size: Size, frames: int) -> tuple[Tensor, Tensor]:
    """Times [1, T] and image tokens [1, T, L, D]."""
    return torch.full((1, frames), 500.0), torch.randn(1, frames, size.image_tokens, size.cond_channels)


def values(frame: Gaussians) -> Tensor:
    """What a renderer takes of each Gaussian, [N, 14]."""
    return torch.cat([frame.xyz, frame.scale, frame.rotation, frame.opacity, frame.sh[:, 0]], dim=1)


def activated(frame: Any) -> Tensor:
    """The same of a frame of the released code, which computes it when a renderer asks, [N, 14]."""
    colours = frame.get_features[:, 0]
    return torch.cat([frame.get_xyz, frame.get_scaling, frame.get_rotation, frame.get_opacity, colours], dim=1)


def processor_seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def markdown(report: dict[str, dict[str, Any]]) -> str:
    """The table of docs/benchmarks.md."""
    lines = ["| one forward | released, s | ours, s | ratio | goal | difference |", "|---|---:|---:|---:|---:|---:|"]
    for label, row in report.items():
        times = f"{row['released']:.3f} | {row['ours']:.3f} | **{row['ratio']:.3f}**"
        lines.append(f"| {label} | {times} | {row['goal']} | {row['difference']:.0e} |")
    return "\n".join(lines)


def find_released(checkout: Path) -> None:
    """Make the models of the checkout importable as `trellis.models`.

    Raises:
        SystemExit: if they are not there, or need what is not installed.
    """
    if not (checkout / "trellis/models").is_dir():
        raise SystemExit(
            f"error: --checkout {checkout} has no trellis/models: pass the root of a clone of Lizb6626/SS4D"
        )
    package = ModuleType("trellis")  # in place of its own __init__, which imports renderers and pipelines for CUDA
    package.__path__ = [str(checkout / "trellis")]
    sys.modules["trellis"] = package
    if find_spec("flash_attn") is None:
        sys.modules["flash_attn"] = stand_in_for_flash()
    try:
        import_module("trellis.modules.sparse.conv")
        models = import_module("trellis.models")
        for name, _ in (SIZES["mid"]().models[stage] for stage in GOALS):
            getattr(models, name)
    except ImportError as error:
        raise SystemExit(f"error: the released code in {checkout} does not load here: {error}") from error
