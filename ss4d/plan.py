"""How a run keeps within a budget of memory: what is loaded when, and how many frames are worked on at once.

Amounts are counted from the sizes of the models: so many floats a token and channel, measured on ss4d-tiny and a model
of twice its width (docs/benchmarks.md), with a margin.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from ss4d.memory import in_gigabytes
from ss4d.models.folder import PipelineFolder

FRAMES_AT_ONCE = 8  # of models that work on each frame alone
KEPT_BYTES = 2**30  # of a flow's keys and values of the image, from step to step: all of them but at full size
SHORTEST_WINDOW = 4
FLOAT = 4  # bytes
MARGIN = 1.15
PROCESS = 450e6  # Python, torch and the compiled rasteriser
WRITING = 120e6  # pictures, an encoder of videos, the player
ASSUMED_VOXELS = 4  # of a frame, times resolution^2, until the structure is known
DINO_TOKENS, DINO_CHANNELS, DINO_PIXELS, DINO_BYTES = 1374, 1024, 518, 1.22e9  # ViT-L, where the folder names one


class BudgetError(ValueError):
    """A budget that is too small; the message names the smallest that works."""


@dataclass(frozen=True)
class PlannedStage:
    """One stage: its model, the frames that it takes at once, and bytes."""

    name: str
    model: str
    frames: int
    weights: float
    held: float  # of what all stages hold: the clip, the condition, latents
    working: float

    @property
    def bytes(self) -> float:
        return self.held + MARGIN * (self.weights + self.working)


@dataclass(frozen=True)
class Plan:
    """How many frames the stages take at once, and what that comes to.

    Attributes:
        window: frames that a flow sees at once, and the structure estimator; a longer clip goes through in overlapping
            windows.
        frames_at_once: of the image encoder and the structure's encoder and decoder, which treat each frame alone.
        keep: bytes of keys and values of the image that a flow may keep from step to step.
        budget: bytes; None: all models are loaded at once (a CPU computes with halves in float32), nothing is bounded.
        least: bytes of the smallest budget that works.
    """

    window: int
    frames_at_once: int = FRAMES_AT_ONCE
    keep: int = KEPT_BYTES
    stages: tuple[PlannedStage, ...] = ()
    budget: int | None = None
    least: float = 0.0

    @property
    def bytes(self) -> float:
        return max((stage.bytes for stage in self.stages), default=0.0) + self.keep

    def __str__(self) -> str:
        needed, kept = in_gigabytes(self.bytes - self.keep), in_gigabytes(self.keep)
        lines = [f"plan for {in_gigabytes(self.budget or 0)}: {needed}, and up to {kept} for kept keys and values"]
        for stage in self.stages:
            what = f"{stage.model}, {in_gigabytes(stage.weights)} as stored" if stage.model else "no model"
            frames = f"{stage.frames} frame{'s' * (stage.frames > 1)} at once"
            lines.append(f"  {stage.name:13}{what:42}{frames:20}{in_gigabytes(stage.bytes)}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Job:
    """A clip of T frames of so many pixels, the voxels of its fullest frame where they are known, whether it is aligned
    with the input (`ss4d.refine`), and whether its Gaussians lie on disk as they are made."""

    frames: int
    pixels: int
    voxels: int | None = None
    refine: bool = False
    on_disk: bool = False


def plan_memory(folder: PipelineFolder, job: Job, window: int, budget: int | None) -> Plan:
    """The plan within a budget of bytes that changes least: frames at once first, then the flows' window.

    Args:
        window: frames that a flow may see at once.
        budget: None: no bound.

    Raises:
        BudgetError: no plan fits.
    """
    sizes = _Sizes(folder)
    plans = list(_plans(sizes, job, min(window, job.frames)))
    most = int(min(KEPT_BYTES, sizes.keys_and_values(job.frames)))
    if budget is None:
        weights = 2 * sum(stage.weights for stage in plans[0].stages)
        stages = tuple(replace(stage, weights=weights) for stage in plans[0].stages)
        return Plan(window, keep=most if job.frames <= window else 0, stages=stages, least=plans[-1].bytes)
    for plan in plans:
        if plan.bytes <= budget:
            keep = int(min(most, budget - plan.bytes)) if job.frames <= plan.window else 0
            return Plan(plan.window, plan.frames_at_once, keep, plan.stages, budget, plans[-1].bytes)
    raise BudgetError(
        f"--memory {budget / 1e9:.6g}GB is too little for {job.frames} frames: the least that works is "
        f"{in_gigabytes(plans[-1].bytes)}"
    )


def _plans(sizes: _Sizes, job: Job, window: int) -> Iterator[Plan]:
    """All plans, from the one that changes nothing to the one that takes least."""
    windows = [window, *range((window - 1) // 2 * 2, SHORTEST_WINDOW - 1, -2)]
    for length in windows:
        for at_once in (8, 4, 2, 1):
            if at_once == FRAMES_AT_ONCE or at_once < job.frames:
                stages = sizes.stages(job, length, min(at_once, job.frames))
                yield Plan(length, min(at_once, job.frames), 0, stages)


class _Sizes:
    """Bytes of the stages of a pipeline."""

    def __init__(self, folder: PipelineFolder):
        names = folder.generators()
        self.args = {name: folder.arguments(name) for name in names}
        files = {name: folder.weights_file(name) for name in names}
        self.weights = {name: DINO_BYTES if file is None else file.stat().st_size for name, file in files.items()}
        encoder = self.args["image_encoder"]
        if "patch_size" in encoder:
            self.pixels = encoder["image_size"]
            self.tokens, self.channels = (self.pixels // encoder["patch_size"]) ** 2, encoder["channels"]
        else:
            config = encoder.get("config", {})
            self.tokens, self.channels = DINO_TOKENS, config.get("hidden_size", DINO_CHANNELS)
            self.pixels = config.get("image_size", DINO_PIXELS)

    def stages(self, job: Job, window: int, at_once: int) -> tuple[PlannedStage, ...]:
        resolution = self.args["gaussian_decoder"]["resolution"]
        voxels = job.voxels or ASSUMED_VOXELS * resolution**2
        clip = job.frames * (8 * job.pixels + 8 * self.pixels**2 + self._condition() + voxels * 100)
        held = PROCESS + clip
        decoding = min(job.frames, self.args["gaussian_decoder"].get("window_size", 8))
        made = job.frames * FLOAT * 14 * self._gaussians(voxels)  # the Gaussians of the clip, where they are in memory
        rows = (
            ("conditioning", "image_encoder", at_once, at_once * self._image_encoder()),
            *self._estimate(window, at_once),
            ("structure", "structure_flow", window, window * self._structure_flow()),
            ("occupancy", "structure_decoder", at_once, at_once * self._structure_decoder(resolution)),
            ("latents", "sparse_flow", window, window * self._sparse_flow(voxels)),
            (
                "gaussians",
                "gaussian_decoder",
                decoding,
                decoding * self._decoder(voxels) + (0 if job.on_disk else made),
            ),
            *self._refinement(job, voxels, at_once, resolution),
            ("writing", "", 1, WRITING + (made if job.refine or not job.on_disk else 0)),
        )
        return tuple(
            PlannedStage(name, model, frames, self.weights.get(model, 0), held, working)
            for name, model, frames, working in rows
        )

    def keys_and_values(self, frames: int) -> float:
        """What a flow can keep of the image from step to step, in float32."""
        flows = (self.args["structure_flow"], self.args["sparse_flow"])
        widest = max(2 * args["num_blocks"] * args["model_channels"] for args in flows)
        return MARGIN * frames * FLOAT * self.tokens * widest

    def _gaussians(self, voxels: int) -> int:
        return voxels * self.args["gaussian_decoder"]["representation_config"]["num_gaussians"]

    def _condition(self) -> float:
        """Tokens, and pixels where a flow looks them up."""
        projected = self.args["sparse_flow"].get("projection") is not None
        return FLOAT * self.tokens * self.channels + (4 * self.pixels**2 if projected else 0)

    def _image_encoder(self) -> float:
        return FLOAT * 20 * self.tokens * self.channels

    def _flow(self, args: dict[str, Any]) -> float:
        """Keys and values of a block, and the maps of the pixels."""
        return FLOAT * (
            3 * self.tokens * args["model_channels"] + (12 * self.pixels**2 if args.get("projection") else 0)
        )

    def _structure_flow(self) -> float:
        args = self.args["structure_flow"]
        tokens = (args["resolution"] // args.get("patch_size", 2)) ** 3
        return self._flow(args) + FLOAT * 28 * tokens * args["model_channels"]

    def _estimate(self, window: int, at_once: int) -> list[tuple[str, str, int, float]]:
        """Rows of the stages that make the estimate of the structure, where there is an estimator."""
        if "structure_estimator" not in self.args:
            return []
        estimator, encoder = self.args["structure_estimator"], self.args["structure_encoder"]
        channels = 2 * 96 if estimator.get("imagenet") else 4 * estimator["channels"][0]
        pictures = channels * (estimator["image_size"] // 2) ** 2  # the widest layers, at half of the picture's size
        grids = 10 * estimator["resolution"] ** 3 * encoder["channels"][0]
        return [
            ("estimate", "structure_estimator", window, window * FLOAT * pictures),
            ("its latents", "structure_encoder", at_once, at_once * FLOAT * grids),
        ]

    def _refinement(self, job: Job, voxels: int, at_once: int, resolution: int) -> list[tuple[str, str, int, float]]:
        """Rows of the alignment with the input: what gradients need, and of each Gaussian of the clip 14 numbers, the
        same refined, and 8 changes with their gradient and Adam's two means."""
        if not job.refine:
            return []
        return [
            ("to outlines", "structure_decoder", at_once, 2 * at_once * self._structure_decoder(resolution)),
            ("to pixels", "", job.frames, job.frames * FLOAT * self._gaussians(voxels) * (2 * 14 + 4 * 8)),
        ]

    def _structure_decoder(self, resolution: int) -> float:
        return FLOAT * 10 * resolution**3 * self.args["structure_decoder"]["channels"][-1]

    def _sparse_flow(self, voxels: int) -> float:
        args = self.args["sparse_flow"]
        return self._flow(args) + FLOAT * 9 * voxels * args["model_channels"]

    def _decoder(self, voxels: int) -> float:
        args = self.args["gaussian_decoder"]
        out = 14 * args["representation_config"]["num_gaussians"]
        return FLOAT * voxels * ((20 + args["num_blocks"] / 2) * args["model_channels"] + out)
