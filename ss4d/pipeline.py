"""Video to 4D Gaussians (paper §4, Fig. 2 left): structure, then voxel latents, then Gaussians of every frame."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from numpy.typing import ArrayLike
from torch import Tensor
from tqdm import tqdm

from ss4d import backend
from ss4d.compositing import encoder_input, on_black
from ss4d.flow import ImageCondition, SamplerSettings
from ss4d.gaussians import GaussianSequence
from ss4d.kept_stages import KeptStages, key_of
from ss4d.memory import give_back, giving_back, parse_bytes
from ss4d.models.folder import PAPER_FRAMES, PipelineFolder, PipelineModels, StoredModels
from ss4d.plan import KEPT_BYTES, SHORTEST_WINDOW, Job, Plan, plan_memory
from ss4d.precision import generation_dtype, name_of
from ss4d.quality import find_quality
from ss4d.refine import Refiner, RefineSettings
from ss4d.result import Generation, Stage, measured
from ss4d.sampling import Sampling
from ss4d.sparse import SparseTensor
from ss4d.version import __version__
from ss4d.video import Clip, crop_clip_rgba, find_foreground, let_go
from ss4d.view_frame import ViewFrame


class SS4DPipeline:
    """The trained models of a checkpoint folder, ready to run.

    >>> from ss4d import SS4DPipeline, load_video
    >>> pipeline = SS4DPipeline.from_pretrained("checkpoints/ss4d-tiny")
    >>> result = pipeline.run(load_video("assets/demo.mp4", num_frames=2), seed=1, steps=2, guidance=3.0)
    >>> len(result.gaussians)
    2

    Args:
        models: on any device.
        structure, latents: default sampler settings of the two flows.
        latent_mean, latent_std: [C] statistics that voxel latents were normalised with.
        view_frame: that of the view, where the models were trained in it (`ss4d.view_frame`): the camera of every
            input is known.
        window: frames that a flow sees at once; longer clips go through in overlapping windows
            (`ss4d.flow.long_clips`).
        folder: that the models are from, which a budget of memory and going on with a run need.
        memory: bytes that a run may take (of the GPU on CUDA); None: no bound.
        precision: that the models were loaded in, where it is not the usual one of the device.
    """

    def __init__(
        self,
        models: PipelineModels | StoredModels,
        structure: SamplerSettings,
        latents: SamplerSettings,
        latent_mean: Tensor,
        latent_std: Tensor,
        device: torch.device | str = "cpu",
        view_frame: ViewFrame | None = None,
        window: int = PAPER_FRAMES,
        folder: PipelineFolder | None = None,
        memory: int | None = None,
        precision: str | None = None,
    ):
        if isinstance(models, PipelineModels):
            for model in models.all():
                model.to(device).eval()
        self.models = models
        self.structure, self.latents = structure, latents
        self.latent_mean, self.latent_std = latent_mean.to(device), latent_std.to(device)
        self.device = torch.device(device)
        self.view_frame, self.window = view_frame, window
        self.folder, self.memory, self.precision = folder, memory, precision

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        device: torch.device | str | None = None,
        memory: str | int | None = None,
        window: int | None = None,
        precision: str | None = None,
    ) -> SS4DPipeline:
        """Load a checkpoint folder, or a Hub id such as "lizb6626/SS4D".

        Args:
            device: by default "cuda" where there is one, else "cpu".
            memory: what a run may take, "8GB" or bytes. Models are then loaded one at a time, as their files have
                them, and `plan` says how many frames are worked on at once.
            window: frames that a flow sees at once; by default those of the longest clips that it was trained on.
            precision: "fp32", "bf16" or "fp16" for the torsos of the models; by default float32 on a CPU, and on CUDA
                what the checkpoint's settings say.

        Raises:
            CheckpointError: a missing or damaged file, or weights that do not fit the models exactly.
            ValueError: a device that this machine does not have, what is no amount of memory, a window that is too
                short, or a precision that the device is slow at.
        """
        if window is not None and window < SHORTEST_WINDOW:
            raise ValueError(f"window = {window}: windows overlap, so take {SHORTEST_WINDOW} frames or more")
        device = backend.find_device(device)
        budget = parse_bytes(memory) if isinstance(memory, str) else memory
        dtype = generation_dtype(precision, device)
        folder = PipelineFolder.open(source)
        return cls(
            folder.load_models(dtype) if budget is None else StoredModels(folder, device, dtype),
            folder.sampler("sparse_structure_sampler"),
            folder.sampler("slat_sampler"),
            *folder.latent_statistics(),
            device,
            folder.view_frame(),
            max(SHORTEST_WINDOW, folder.trained_frames()) if window is None else window,
            folder,
            budget,
            precision,
        )

    def plan(
        self, frames: Clip | ArrayLike, voxels: int | None = None, refine: bool = False, on_disk: bool = False
    ) -> Plan:
        """How `run` takes a clip: frames at once, and within a budget what each stage takes.

        Args:
            voxels: of the fullest frame; by default an assumption, which `run` checks once it knows.
            refine: with the alignment with the input.
            on_disk: with a folder for the Gaussians, as `keep` of `run`.

        Raises:
            BudgetError: the budget is too small.
            ValueError: a clip without frames.
        """
        pictures = frames.frames if isinstance(frames, Clip) else np.asarray(frames)
        if not len(pictures):
            raise ValueError("the clip has no frames: pass at least one")
        if self.folder is None:
            return Plan(self.window, keep=KEPT_BYTES if len(pictures) <= self.window else 0)
        job = Job(len(pictures), pictures[0, ..., 0].size, voxels, refine, on_disk)
        return plan_memory(self.folder, job, self.window, self.memory)

    @torch.no_grad()
    def run(
        self,
        frames: Clip | ArrayLike,
        seed: int = 42,
        steps: int | None = None,
        guidance: float | None = None,
        refine: RefineSettings | bool | None = None,
        progress: bool = False,
        keep: str | Path | KeptStages | None = None,
        quality: str = "balanced",
    ) -> Generation:
        """Generate the 4D object seen in a clip.

        Args:
            frames: a clip of `ss4d.load_video`, or uint8 [T, H, W, 4] RGBA, or [T, H, W, 3] before a uniform
                background; any T from 1 up.
            seed: of the noise both flows start from; drawn on the CPU, so that devices agree.
            steps, guidance: of both flows, by default the checkpoint's (`self.structure`, `self.latents`).
            refine: align the result with the input (`ss4d.refine`); True takes the default settings, None (the default)
                does what `quality` says.
            progress: show a bar for each stage.
            keep: a folder for finished stages and for the Gaussians, which then stay out of memory. A later call with
                the same clip, weights and settings goes on from there. It is the caller's to remove.
            quality: "fast", "balanced" (the checkpoint's settings) or "best", see `ss4d.quality`; other arguments go
                before it.

        Raises:
            ValueError: frames of another shape, no foreground, a structure without any voxel, or settings that start
                from an estimate where the checkpoint has no estimator.
            BudgetError: the budget of memory is too small.
        """
        preset = find_quality(quality)
        refine = preset.refine if refine is None else refine
        if not isinstance(refine, bool | RefineSettings):
            raise TypeError(f"refine must be True, False or RefineSettings, but it is {refine!r}")
        seed = operator.index(seed)
        structure, latents = (
            preset.settings(settings).override(steps, guidance) for settings in (self.structure, self.latents)
        )
        if structure.start < 1 and not self.models.estimates:
            raise ValueError(f"sampling starts at {structure.start}, but the checkpoint has no structure_estimator")
        stages: list[Stage] = []
        kept = keep if isinstance(keep, KeptStages) else KeptStages(None if keep is None else Path(keep))
        on_disk = kept.folder is not None
        plan = self.plan(frames, refine=bool(refine), on_disk=on_disk)
        with self._stage("conditioning", stages):
            rgba = find_foreground(frames if isinstance(frames, Clip) else np.asarray(frames))
            cropped, condition = self._look(rgba, plan, progress)
            key = "" if kept.folder is None else key_of(rgba, self._identity(), seed)
            let_go(rgba)
        sampling = Sampling(condition, torch.Generator().manual_seed(seed), kept, key, progress)
        del condition
        with self._stage("structure", stages):
            structure_latents = self._sample_structure(sampling, structure, plan)
            occupancy = self._decode_structure(structure_latents, plan)
        resolution, refiner = occupancy.shape[-1], None
        if refine:
            refiner = Refiner(cropped, self.view_frame, RefineSettings() if refine is True else refine, progress)
            with self._stage("structure refinement", stages):
                occupancy = self._align_structure(refiner, structure_latents, occupancy, plan)
        coords = torch.nn.functional.pad(occupancy.nonzero(), (1, 0)).int()
        if not len(coords):
            raise ValueError(
                f"the sampled structure is empty in all {len(rgba)} frames: try another seed, or train the "
                "structure flow for longer"
            )
        counts = occupancy.flatten(1).sum(1).tolist()
        del structure_latents, occupancy  # a long clip's are megabytes
        voxels = list(coords[:, 2:].cpu().split(counts))
        plan = self.plan(rgba, max(map(len, voxels)), bool(refine), on_disk)
        with self._stage("latents", stages):
            z = self._sample_latents(coords, sampling, latents, plan)
        dtype = sampling.dtype
        del sampling  # the memory of the condition is free from here on
        with self._stage("gaussians", stages):
            gaussians = self._decode(z, kept)
        if refiner is not None:
            with self._stage("Gaussian refinement", stages):
                gaussians = refiner.gaussians(gaussians, voxels, resolution, seed)
        return Generation(
            gaussians,
            voxels=voxels,
            resolution=resolution,
            rgba=rgba,
            images=on_black(cropped),
            view_frame=self.view_frame,
            refinement=None if refiner is None else refiner.report,
            durations=frames.durations if isinstance(frames, Clip) else None,
            seed=seed,
            structure=structure,
            latents=latents,
            device=self.device,
            precision=name_of(dtype),
            backend=backend.describe(self.device, half=dtype != torch.float32),
            stages=stages,
        )

    @contextmanager
    def _stage(self, name: str, stages: list[Stage]) -> Iterator[None]:
        """Measure the enclosed work, then give back what it freed."""
        with measured(name, stages, self.device):
            yield
        if self.gives_back:
            give_back(self.device)

    @property
    def gives_back(self) -> bool:
        """Whether freed memory goes back to the system: always main memory, where gaps between what is held would add
        up over a long clip; the GPU's, whose allocator fills its own, within a budget alone."""
        return self.memory is not None or self.device.type == "cpu"

    def _identity(self) -> str:
        """Of the weights and of what computes."""
        weights = "" if self.folder is None else self.folder.identity()
        return f"{weights}{self.device.type}{self.precision or ''}{__version__}"

    # A model is held by the method that uses it alone: within a budget it is gone when the method returns.

    def _look(self, rgba: np.ndarray, plan: Plan, progress: bool) -> tuple[Tensor, ImageCondition]:
        """The cropped clip, uint8 [T, S, S, 4] with straight alpha, and its condition: tokens, a few frames at a time,
        and pixels."""
        with self.models.use("image_encoder") as encoder:
            cropped = torch.from_numpy(crop_clip_rgba(rgba, encoder.image_size))
            images = rearrange(cropped, "t h w c -> t c h w").to(self.device)
            chunks = tqdm(images.split(plan.frames_at_once), desc="image tokens", unit="batch", disable=not progress)
            tokens = [encoder(encoder_input(chunk, encoder.in_channels)) for chunk in chunks]
        return cropped, ImageCondition(torch.cat(tokens)[None], images[None])

    def _sample_structure(self, sampling: Sampling, settings: SamplerSettings, plan: Plan) -> Tensor:
        """Latents of every frame, [1, T, C, r, r, r]."""
        estimate = self.estimate_structure(sampling.condition, plan) if settings.start < 1 else None
        with self.models.use("structure_flow") as flow:
            noise = sampling.noise(sampling.frames, flow.in_channels, *[flow.resolution] * 3)[None].to(self.device)
            start = settings.first(noise, estimate)
            return sampling.sampled("structure", flow, start, settings, plan).to(self.device)

    def estimate_structure(self, condition: ImageCondition, plan: Plan) -> Tensor:
        """Latents [1, T, C, r, r, r] of what the pictures let expect: sampling starts there with `start` below 1.

        Only for a checkpoint with an estimator (`self.models.estimates`).
        """
        assert condition.images is not None
        with self.models.use("structure_estimator") as estimator:
            occupied = estimator.surface_of_clip(condition.images[0], plan.window)
        with self.models.use("structure_encoder") as encoder:
            grids = occupied[None, :, None].split(plan.frames_at_once, dim=1)
            return torch.cat([encoder(part.float()).mean for part in grids], dim=1)

    def _decode_structure(self, z: Tensor, plan: Plan) -> Tensor:
        """Occupancy of every frame, bool [T, R, R, R]."""
        with self.models.use("structure_decoder") as decoder:
            occupied = torch.cat([decoder(part) > 0 for part in z.split(plan.frames_at_once, dim=1)], dim=1)
        return rearrange(occupied, "1 t 1 x y z -> t x y z")

    def _align_structure(self, refiner: Refiner, z: Tensor, occupancy: Tensor, plan: Plan) -> Tensor:
        """Occupancy bool [T, R, R, R] that agrees with the input's silhouettes."""
        with self.models.use("structure_decoder") as decoder:
            return refiner.structure(decoder, z, occupancy, plan.frames_at_once)

    def _sample_latents(
        self, coords: Tensor, sampling: Sampling, settings: SamplerSettings, plan: Plan
    ) -> SparseTensor:
        """Latents on voxels coords [N, 5], de-normalised for the decoder."""
        with self.models.use("sparse_flow") as flow:
            feats = sampling.noise(len(coords), flow.in_channels).to(self.device)
            noise = SparseTensor(feats, coords, num_frames=sampling.frames)
            z = sampling.sampled("latents", flow, noise, settings, plan, coords).to(self.device)
        # A geometry of its own: what the flow's layers derived from the voxels goes.
        return SparseTensor(z * self.latent_std + self.latent_mean, coords, num_frames=noise.num_frames)

    def _decode(self, z: SparseTensor, kept: KeptStages) -> GaussianSequence:
        """The Gaussians of every frame."""
        with self.models.use("gaussian_decoder") as decoder:
            frames = decoder.frames(z)
            key = "" if kept.folder is None else key_of(z.feats, z.coords, self._identity())
            return kept.frames(giving_back(frames, self.device) if self.gives_back else frames, self.device, key)
