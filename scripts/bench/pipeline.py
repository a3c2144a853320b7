"""Time the stages of generation with random weights: seconds, FLOPs, memory, and the share of a plain product's rate.

    PYTHONPATH=. python scripts/bench/pipeline.py --size mid --frames 8 --out after
    PYTHONPATH=. python scripts/bench/pipeline.py --compare before.json after.json
    PYTHONPATH=. python scripts/bench/pipeline.py --size mid --against ../older-checkout

On a CPU seconds are those of the process, on one thread, so that other jobs on the machine count little; on CUDA they
are wall time. `--against` measures another checkout of this repository in the same process, the two in turn.
"""

from __future__ import annotations

import argparse
import ctypes
import inspect
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from sizes import SIZES, Size

HERE = "this"
KEPT_BYTES = 2**30  # as in ss4d.plan; not imported, since other checkouts are measured too
PRODUCT_SIDE = 1024  # of the square matrices whose product is the measure


@dataclass
class Measurement:
    """One stage of one checkout."""

    seconds: list[float] = field(default_factory=list)
    flops: float = 0.0
    bytes: float = 0.0  # of weights, and of activations written once
    product_rate: float = 0.0  # FLOP/s of a float32 product, measured between the calls
    peak_memory: int = 0  # bytes above what was held before the first call

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def share(self) -> float:
        """Of the product's rate."""
        return self.flops / self.median / self.product_rate if self.flops else 0.0


class Checkout:
    """The package `ss4d` of a checkout, beside that of another in one process: each with its own modules."""

    def __init__(self, root: Path | None):
        self.root, self.modules = root, dict[str, Any]()

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Let `import ss4d` mean this checkout."""
        others = _take_modules()
        sys.modules.update(self.modules)
        if self.root is not None:
            sys.path.insert(0, str(self.root))
        try:
            yield
        finally:
            if self.root is not None:
                sys.path.remove(str(self.root))
            self.modules = _take_modules()
            sys.modules.update(others)


def _take_modules() -> dict[str, Any]:
    names = [name for name in sys.modules if name == "ss4d" or name.startswith("ss4d.")]
    return {name: sys.modules.pop(name) for name in names}


@dataclass
class StageCall:
    """What to time, with the FLOPs and bytes it stands for."""

    run: Callable[[], object]
    flops: float
    bytes: float


def stage_calls(size: Size, frames: int, steps: int, device: str, wanted: list[str]) -> dict[str, StageCall]:
    """The stages named in `wanted` (all: an empty list), on one clip, with random weights."""
    from ss4d.flow import ImageCondition, SamplerSettings, sample
    from ss4d.models import create_model
    from ss4d.sparse import SparseTensor
    from ss4d.training.counting import model_cost, synthetic_clip

    torch.manual_seed(0)
    coords = synthetic_clip(frames, size.voxels, size.resolution)
    guided = SamplerSettings(steps=steps, cfg_strength=3.0, cfg_interval=(0.0, 1.0))
    condition = ImageCondition(torch.randn(1, frames, size.image_tokens, size.cond_channels, device=device))
    times = torch.full((1, frames), 500.0, device=device)
    calls: dict[str, StageCall] = {}
    kept: dict[str, Any] = (
        {"keep": KEPT_BYTES} if "keep" in inspect.signature(sample).parameters else {}
    )  # older checkouts cannot

    def add(stage: str, prepare: Callable[[Any], dict[str, tuple[Callable[[], object], int]]]) -> None:
        """Calls by name, with how many forward passes each is."""
        names = {stage, f"{stage}, {steps} guided steps"}
        if wanted and not names & set(wanted):
            return
        name, args = size.models[stage]
        cost = model_cost(name, args, 1, coords, size.resolution, size.image_tokens, 4)
        model: Any = create_model(name, **args).to(device).eval()
        for parameter in model.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.02)
        if device == "cpu" and hasattr(model, "set_dtype"):
            model.set_dtype(torch.float32)
        size_in_bytes = 4 * cost.parameters + cost.activation_bytes()
        for label, (run, passes) in prepare(model).items():
            if not wanted or label in wanted:
                calls[label] = StageCall(run, passes * cost.flops, passes * size_in_bytes)

    def of_flow(stage: str, noise: Any) -> Callable[[Any], dict[str, tuple[Callable[[], object], int]]]:
        def prepare(model: Any) -> dict[str, tuple[Callable[[], object], int]]:
            return {
                stage: (lambda: model(noise, times, condition.tokens), 1),
                f"{stage}, {steps} guided steps": (lambda: sample(model, noise, condition, guided, **kept), 2 * steps),
            }

        return prepare

    def of_frames(stage: str, shape: tuple[int, ...]) -> Callable[[Any], dict[str, tuple[Callable[[], object], int]]]:
        x = torch.rand(shape, device=device)
        return lambda model: {stage: (lambda: model(x), 1)}

    side = size.models["structure flow"][1]["resolution"]
    latents = torch.randn(1, frames, 8, side, side, side, device=device)
    voxels = SparseTensor(torch.randn(len(coords), 8, device=device), coords.to(device), num_frames=frames)
    if "image encoder" in size.models:
        add("image encoder", of_frames("image encoder", (min(frames, 8), 3, size.image_size, size.image_size)))
    add("structure flow", of_flow("structure flow", latents))
    add("structure decoder", lambda model: {"structure decoder": (lambda: model(latents[:, :8]), 1)})
    add("sparse flow", of_flow("sparse flow", voxels))
    add("Gaussian decoder", lambda model: {"Gaussian decoder": (lambda: model(voxels), 1)})
    return calls


def measure(options: argparse.Namespace, stage: str) -> dict[str, Measurement]:
    """One stage in every checkout, alternating after a first call of each that does not count."""
    device = options.device
    checkouts = {HERE: Checkout(None)} | ({"against": Checkout(options.against)} if options.against else {})
    found = {name: Measurement() for name in checkouts}
    calls = {}
    for name, checkout in checkouts.items():
        with checkout.entered():
            call = stage_calls(SIZES[options.size](), options.frames, options.steps, device, [stage])[stage]
        calls[name], found[name].flops, found[name].bytes = call, call.flops, call.bytes
    rates = []
    with torch.inference_mode():
        for repeat in range(options.repeats + 1):
            for name, checkout in checkouts.items():
                with checkout.entered(), peak_above(device, found[name]):
                    seconds = timed(calls[name].run, device)
                if repeat:
                    found[name].seconds.append(seconds)
            rates.append(product_rate(device))
    for measurement in found.values():
        measurement.product_rate = statistics.median(rates)
    return found


def timed(call: Callable[[], object], device: str) -> float:
    clock = time.process_time if device == "cpu" else time.perf_counter
    start = clock()
    call()
    if device != "cpu":
        torch.cuda.synchronize()
    return clock() - start


def product_rate(device: str) -> float:
    """FLOP/s of a square float32 product."""
    a, b = (torch.randn(PRODUCT_SIDE, PRODUCT_SIDE, device=device) for _ in range(2))
    torch.mm(a, b)
    return 2 * PRODUCT_SIDE**3 / min(timed(lambda: torch.mm(a, b), device) for _ in range(3))


@contextmanager
def peak_above(device: str, measurement: Measurement) -> Iterator[None]:
    """Note the most memory that the enclosed call held beyond what was held before it."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        yield
        peak = torch.cuda.max_memory_allocated()
    else:
        ctypes.CDLL(None).malloc_trim(0)  # what earlier calls freed goes back to the system
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before = _status("VmRSS")
        yield
        peak = _status("VmHWM")
    measurement.peak_memory = max(measurement.peak_memory, peak - before)


def _status(entry: str) -> int:
    """Bytes that Linux reports of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(entry))


def markdown(report: dict[str, Any]) -> str:
    """A table of the stages of a report."""
    about = report["about"]
    lines = [", ".join(f"{key} {value}" for key, value in about.items()), ""]
    lines += ["| stage | s | GFLOP | GB | of the product's rate | memory, MB |", "|---|---:|---:|---:|---:|---:|"]
    for stage, found in report["stages"].items():
        for name, entry in found.items():
            m = Measurement(**entry)
            label = stage if name == HERE else f"... {name}"
            figures = f"{m.flops / 1e9:.1f} | {m.bytes / 1e9:.2f} | {m.share:.2f} | {m.peak_memory / 2**20:.0f}"
            lines.append(f"| {label} | {m.median:.3f} | {figures} |")
            if name != HERE:
                lines.append(f"| ... ratio | {Measurement(**found[HERE]).median / m.median:.3f} | | | | |")
    return "\n".join(lines)


def comparison(first: dict[str, Any], second: dict[str, Any]) -> str:
    """Seconds of two reports and their ratio, for the stages that both have."""
    lines = ["| stage | first, s | second, s | ratio |", "|---|---:|---:|---:|"]
    for stage, found in first["stages"].items():
        if stage in second["stages"]:
            a, b = (Measurement(**entry[HERE]).median for entry in (found, second["stages"][stage]))
            lines.append(f"| {stage} | {a:.3f} | {b:.3f} | {b / a:.3f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4, help="of guided sampling")
    parser.add_argument("--stages", nargs="+", help="names as in the table; by default all")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--against", type=Path, help="root of another checkout, measured in turn with this one")
    parser.add_argument("--out", type=Path, help="write OUT.json and OUT.md")
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("A", "B"), help="two JSON files; measures nothing")
    options = parser.parse_args()
    if options.compare:
        print(comparison(*(json.loads(path.read_text()) for path in options.compare)))
        return
    torch.set_num_threads(options.threads)
    about = {"size": options.size, "frames": options.frames, "threads": options.threads, "device": options.device}
    about |= {"torch": torch.__version__, "machine": platform.processor() or platform.machine()}
    stages = options.stages or stage_names(options)
    report: dict[str, Any] = {"about": about, "stages": {}}
    for stage in stages:
        report["stages"][stage] = {name: asdict(m) for name, m in measure(options, stage).items()}
        print(f"{stage}: {Measurement(**report['stages'][stage][HERE]).median:.3f} s", file=sys.stderr)
    print(markdown(report))
    if options.out:
        options.out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
        options.out.with_suffix(".md").write_text(markdown(report) + "\n")


def stage_names(options: argparse.Namespace) -> list[str]:
    flows = [
        name for flow in ("structure flow", "sparse flow") for name in (flow, f"{flow}, {options.steps} guided steps")
    ]
    names = ["image encoder", *flows[:2], "structure decoder", *flows[2:], "Gaussian decoder"]
    return names if "image encoder" in SIZES[options.size]().models else names[1:]


if __name__ == "__main__":
    main()
