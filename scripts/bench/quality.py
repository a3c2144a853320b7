"""Quality of sampling against its CPU seconds: solvers and numbers of steps, on held-out objects of a prepared set.

    python -m scripts.bench quality --data data/tiny --objects 12 --out quality

Of each clip, whose true latents are known: the structure is sampled and compared with the true one; voxel latents are
sampled on the true structure, and their pictures compared with those of the true latents. QUALITY.json has all that was
measured, QUALITY.md a table and QUALITY.png a plot of it; a further run adds to the first.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scripts.bench.plot import Series, scatter
from ss4d import SS4DPipeline
from ss4d.cameras import Camera
from ss4d.data import SparseLatentDataset, StructureLatentDataset
from ss4d.data.prepared import PreparedSet
from ss4d.data.training_windows import Window
from ss4d.flow import ImageCondition, SamplerSettings, sample
from ss4d.gaussians import Gaussians, rasterize
from ss4d.metrics.shape import f1_score, intersection_over_union
from ss4d.models.folder import PipelineModels
from ss4d.plan import KEPT_BYTES, Plan
from ss4d.refine.silhouette import silhouette
from ss4d.sparse import SparseTensor

STEPS = {"euler": (1, 2, 3, 4, 6, 8, 12), "heun": (2, 4), "multistep": (2, 3, 4, 6, 8)}
PLOTTED = {"structure": "F1", "latents": "PSNR"}
SIZE = 64  # of pictures, pixels
AZIMUTHS = (0, 60, 120, 180, 240, 300)


@dataclass(frozen=True)
class Bench:
    """A checkpoint, and clips of one stage: what is sampled from noise and how good that is."""

    pipeline: SS4DPipeline
    data: Path
    objects: int
    frames: int

    @property
    def models(self) -> PipelineModels:
        assert isinstance(self.pipeline.models, PipelineModels)
        return self.pipeline.models

    def clips(self, stage: str) -> Iterator[tuple[Any, ImageCondition]]:
        """True latents and what the flow is given of the input, one clip at a time: the first of a random order."""
        clips = PreparedSet.open(self.data, 32, ("render", "encode"), "val")
        of_stage = StructureLatentDataset if stage == "structure" else SparseLatentDataset
        dataset: Any = of_stage(clips, (0,))
        order = [int(index) for index in np.random.default_rng(0).permutation(len(clips))]
        for index in [index for index in order if clips.clips[index].frames >= 2 * self.frames][: self.objects]:
            batch = dataset.collate([dataset[Window(index, tuple(range(0, 2 * self.frames, 2)), 1)]])
            encoder = self.models.image_encoder
            tokens = encoder(batch.images[0, :, : encoder.in_channels])[None]
            yield batch.latents, ImageCondition(tokens, batch.images)

    def structure(self, true: Tensor, sampled: Tensor) -> dict[str, float]:
        """Agreement of decoded latents [1, T, C, r, r, r]."""
        assert self.pipeline.view_frame is not None
        grid, target = (self.models.structure_decoder(z)[0, :, 0] > 0 for z in (sampled, true))
        seen, truth = (
            silhouette(part.float(), self.pipeline.view_frame.camera(), SIZE) > 0.5 for part in (grid, target)
        )
        view = intersection_over_union(seen, truth, dimensions=2)
        return {"IoU": intersection_over_union(grid, target), "F1": f1_score(grid, target), "input view": view}

    def latents(self, true: SparseTensor, sampled: SparseTensor) -> dict[str, float]:
        """PSNR in dB of the first frame's pictures on black, from six sides."""
        mean, std = self.pipeline.latent_mean, self.pipeline.latent_std
        denormalised = SparseTensor(sampled.feats * std + mean, sampled.coords, num_frames=sampled.num_frames)
        ours, theirs = (self.pictures(self.models.gaussian_decoder(z)[0][0]) for z in (denormalised, true))
        errors = [float((a - b).square().mean()) for a, b in zip(ours, theirs, strict=True)]
        return {"PSNR": float(np.mean([-10 * math.log10(max(error, 1e-10)) for error in errors]))}

    def pictures(self, gaussians: Gaussians) -> list[Tensor]:
        return [rasterize(gaussians, camera, SIZE, (0.0, 0.0, 0.0)).colour for camera in self.cameras()]

    def cameras(self) -> list[Camera]:
        assert self.pipeline.view_frame is not None
        orbit = self.pipeline.view_frame.orbit()
        return [orbit.camera(azimuth, orbit.elevation) for azimuth in AZIMUTHS]


@torch.no_grad()
def measure(bench: Bench, stage: str, candidates: list[SamplerSettings]) -> list[dict[str, Any]]:
    """Each candidate on each clip: means of the metrics with their standard errors, and CPU seconds a clip."""
    flow: Any = bench.models.structure_flow if stage == "structure" else bench.models.sparse_flow
    score: Callable[[Any, Any], dict[str, float]] = bench.structure if stage == "structure" else bench.latents
    scores: list[list[dict[str, float]]] = [[] for _ in candidates]
    for true, condition in bench.clips(stage):
        shape = true.feats.shape if isinstance(true, SparseTensor) else true.shape
        values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        noise: Any = true.replace(values) if isinstance(true, SparseTensor) else values
        for settings, found in zip(candidates, scores, strict=True):
            start = time.process_time()
            first = noise
            if stage == "structure" and settings.start < 1:
                estimate = bench.pipeline.estimate_structure(condition, Plan(bench.pipeline.window))
                first = settings.first(noise, estimate)
            sampled = sample(flow, first, condition, settings, keep=KEPT_BYTES)
            seconds = time.process_time() - start
            found.append({"seconds": seconds, **score(true, sampled)})
    return [
        {
            "stage": stage,
            "settings": dataclasses.asdict(settings),
            "clips": len(found),
            "mean": {name: float(np.mean([entry[name] for entry in found])) for name in found[0]},
            "error": {name: float(np.std([e[name] for e in found]) / math.sqrt(len(found))) for name in found[0]},
        }
        for settings, found in zip(candidates, scores, strict=True)
    ]


def run(options: Namespace) -> None:
    torch.set_num_threads(options.threads)
    pipeline = SS4DPipeline.from_pretrained(options.model, "cpu", precision=options.precision)
    bench = Bench(pipeline, options.data, options.objects, options.frames)
    report = options.out.with_suffix(".json")
    rows = json.loads(report.read_text()) if report.exists() else []
    for stage in options.stages:
        default = getattr(bench.pipeline, stage)
        solvers = {name: options.steps or steps for name, steps in STEPS.items() if name in options.solvers}
        candidates = [
            dataclasses.replace(default, steps=count, solver=name) for name, steps in solvers.items() for count in steps
        ]
        rows += measure(bench, stage, candidates)
        report.write_text(json.dumps(rows, indent=1) + "\n")
    options.out.with_suffix(".md").write_text("\n\n".join(table(rows, stage) for stage in PLOTTED) + "\n")
    scatter(options.out.with_suffix(".png"), [panel(rows, stage) for stage in PLOTTED])
    print(options.out.with_suffix(".md").read_text())


def table(rows: list[dict[str, Any]], stage: str) -> str:
    """Markdown, from the fastest to the slowest."""
    found = sorted((row for row in rows if row["stage"] == stage), key=lambda row: row["mean"]["seconds"])
    names = [name for name in found[0]["mean"] if name != "seconds"] if found else []
    lines = [f"| {stage}: solver, steps | CPU s a clip | {' | '.join(names)} |", "|---|---:|" + "---:|" * len(names)]
    for row in found:
        digits = {name: 2 if name == "PSNR" else 3 for name in names}
        values = [f"{row['mean'][name]:.{digits[name]}f} ± {row['error'][name]:.{digits[name]}f}" for name in names]
        settings = row["settings"]
        lines.append(
            f"| {settings['solver']}, {settings['steps']} | {row['mean']['seconds']:.2f} | {' | '.join(values)} |"
        )
    return "\n".join(lines)


def panel(rows: list[dict[str, Any]], stage: str) -> tuple[str, str, list[Series]]:
    """Title, name of the metric, and a series of points (CPU seconds, metric, steps) for each solver."""
    metric = PLOTTED[stage]
    series = []
    for solver in STEPS:
        found = [row for row in rows if row["stage"] == stage and row["settings"]["solver"] == solver]
        points = [(row["mean"]["seconds"], row["mean"][metric], str(row["settings"]["steps"])) for row in found]
        series.append(Series(solver, sorted(points)))
    return stage, metric, series
