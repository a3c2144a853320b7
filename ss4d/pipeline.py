"""Video to 4D Gaussians (paper §4, Fig. 2 left): structure, then voxel latents, then Gaussians of every frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from numpy.typing import ArrayLike
from torch import Tensor
from tqdm import tqdm

from ss4d import backend
from ss4d.flow import ImageCondition, SamplerSettings, sample
from ss4d.models.base import TorsoModel
from ss4d.models.folder import PAPER_FRAMES, PipelineFolder, PipelineModels
from ss4d.refine import Refiner, RefineSettings
from ss4d.result import Generation, Stage, measured
from ss4d.sparse import SparseTensor
from ss4d.video import Clip, crop_clip_rgba, find_foreground
from ss4d.view_frame import ViewFrame

FRAMES_AT_ONCE = 8  # of models that work on each frame alone, which bounds their memory
# Of a flow's keys and values of the image, from step to step: enough for all of ss4d-tiny's; at full size part is kept.
KEPT_BYTES = 2**30


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
    """

    def __init__(
        self,
        models: PipelineModels,
        structure: SamplerSettings,
        latents: SamplerSettings,
        latent_mean: Tensor,
        latent_std: Tensor,
        device: torch.device | str = "cpu",
        view_frame: ViewFrame | None = None,
        window: int = PAPER_FRAMES,
    ):
        for model in models.all():
            model.to(device).eval()
        self.models = models
        self.structure, self.latents = structure, latents
        self.latent_mean, self.latent_std = latent_mean.to(device), latent_std.to(device)
        self.device = torch.device(device)
        self.view_frame, self.window = view_frame, window

    @classmethod
    def from_pretrained(cls, source: str | Path, device: torch.device | str | None = None) -> SS4DPipeline:
        """Load a checkpoint folder, or a Hub id such as "lizb6626/SS4D".

        Half precision in the checkpoint's settings is kept on CUDA; a CPU computes in float32.

        Args:
            device: by default "cuda" where there is one, else "cpu".

        Raises:
            CheckpointError: a missing or damaged file, or weights that do not fit the models exactly.
            ValueError: a device that this machine does not have.
        """
        device = find_device(device)
        folder = PipelineFolder.open(source)
        models = folder.load_models()
        if device.type == "cpu":
            for model in models.all():
                if isinstance(model, TorsoModel):
                    model.set_dtype(torch.float32)
        structure, latents = folder.sampler("sparse_structure_sampler"), folder.sampler("slat_sampler")
        return cls(
            models,
            structure,
            latents,
            *folder.latent_statistics(),
            device,
            folder.view_frame(),
            folder.trained_frames(),
        )

    @torch.no_grad()
    def run(
        self,
        frames: Clip | ArrayLike,
        seed: int = 42,
        steps: int | None = None,
        guidance: float | None = None,
        refine: RefineSettings | bool = False,
        progress: bool = False,
    ) -> Generation:
        """Generate the 4D object seen in a clip.

        Args:
            frames: a clip of `ss4d.load_video`, or uint8 [T, H, W, 4] RGBA, or [T, H, W, 3] before a uniform
                background; any T from 1 up.
            seed: of the noise both flows start from; drawn on the CPU, so that devices agree.
            steps, guidance: of both flows, by default the checkpoint's (`self.structure`, `self.latents`).
            refine: align the result with the input (`ss4d.refine`); True takes the default settings.
            progress: show a bar for each stage.

        Raises:
            ValueError: frames of another shape, no foreground, or a structure without any voxel.
        """
        structure, latents = (settings.override(steps, guidance) for settings in (self.structure, self.latents))
        stages: list[Stage] = []
        with measured("conditioning", stages, self.device):
            # Frames that have their alpha already keep it, such as those of inference.py, which reads masks.
            rgba = find_foreground(frames if isinstance(frames, Clip) else np.asarray(frames))
            cropped = torch.from_numpy(crop_clip_rgba(rgba, self.models.image_encoder.image_size))
            condition = self._condition(cropped, progress)
        generator = torch.Generator().manual_seed(seed)
        with measured("structure", stages, self.device):
            structure_latents = self._sample_structure(condition, structure, generator, progress)
            occupancy = self._decode_structure(structure_latents)
        refiner = None
        if refine:
            refiner = Refiner(cropped, self.view_frame, RefineSettings() if refine is True else refine, progress)
            with measured("structure refinement", stages, self.device):
                occupancy = refiner.structure(self.models.structure_decoder, structure_latents, occupancy)
        coords = torch.nn.functional.pad(occupancy.nonzero(), (1, 0)).int()
        if not len(coords):
            raise ValueError(
                f"the sampled structure is empty in all {len(rgba)} frames: try another seed, or train the "
                "structure flow for longer"
            )
        with measured("latents", stages, self.device):
            z = self._sample_latents(coords, condition, latents, generator, progress)
        with measured("gaussians", stages, self.device):
            gaussians = self.models.gaussian_decoder(z)[0]
        voxels = [coords[coords[:, 1] == frame, 2:].cpu() for frame in range(len(rgba))]
        if refiner is not None:
            with measured("Gaussian refinement", stages, self.device):
                gaussians = refiner.gaussians(gaussians, voxels, occupancy.shape[-1], seed)
        return Generation(
            gaussians,
            voxels=voxels,
            resolution=occupancy.shape[-1],
            rgba=rgba,
            images=on_black(cropped),
            view_frame=self.view_frame,
            refinement=None if refiner is None else refiner.report,
            durations=frames.durations if isinstance(frames, Clip) else None,
            seed=seed,
            structure=structure,
            latents=latents,
            device=self.device,
            backend=backend.describe(self.device, half=self.models.sparse_flow.dtype != torch.float32),
            stages=stages,
        )

    def _condition(self, cropped: Tensor, progress: bool) -> ImageCondition:
        """Of the cropped clip, uint8 [T, S, S, 4] with straight alpha: tokens a few frames at a time, and pixels."""
        values = rearrange(cropped, "t h w c -> t c h w").float() / 255
        pixels = torch.cat([values[:, :3] * values[:, 3:], values[:, 3:]], dim=1)
        encoder = self.models.image_encoder
        chunks = tqdm(pixels.split(FRAMES_AT_ONCE), desc="image tokens", unit="batch", disable=not progress)
        tokens = [encoder(chunk[:, : encoder.in_channels].to(self.device)) for chunk in chunks]
        return ImageCondition(torch.cat(tokens)[None], pixels[None].to(self.device))

    def _sample_structure(
        self, condition: ImageCondition, settings: SamplerSettings, generator: torch.Generator, progress: bool
    ) -> Tensor:
        """Latents of every frame, [1, T, C, r, r, r]."""
        flow = self.models.structure_flow
        shape = (condition.tokens.shape[1], flow.in_channels, *[flow.resolution] * 3)
        noise = torch.randn(shape, generator=generator)[None].to(self.device)
        return sample(flow, noise, condition, settings, "structure" if progress else None, KEPT_BYTES, self.window)

    def _decode_structure(self, z: Tensor) -> Tensor:
        """Occupancy of every frame, bool [T, R, R, R]."""
        decoder = self.models.structure_decoder
        occupied = torch.cat([decoder(part) > 0 for part in z.split(FRAMES_AT_ONCE, dim=1)], dim=1)
        return rearrange(occupied, "1 t 1 x y z -> t x y z")

    def _sample_latents(
        self,
        coords: Tensor,
        condition: ImageCondition,
        settings: SamplerSettings,
        generator: torch.Generator,
        progress: bool,
    ) -> SparseTensor:
        """Latents on voxels coords [N, 5], de-normalised for the decoder."""
        flow = self.models.sparse_flow
        feats = torch.randn(len(coords), flow.in_channels, generator=generator).to(self.device)
        noise = SparseTensor(feats, coords, num_frames=condition.tokens.shape[1])
        z = sample(flow, noise, condition, settings, "latents" if progress else None, KEPT_BYTES, self.window)
        return z.replace(z.feats * self.latent_std + self.latent_mean)


def find_device(name: torch.device | str | None = None) -> torch.device:
    """The device of this name; by default "cuda" where there is one, else "cpu".

    Raises:
        ValueError: this machine has no such device, or we do not run on its kind.
    """
    count = torch.cuda.device_count()
    try:
        device = torch.device(name or ("cuda" if count else "cpu"))
    except RuntimeError:
        raise ValueError(f"{name!r} is no device: use cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device {device} is not supported: use cpu or cuda")
    if device.type == "cuda" and (device.index or 0) >= count:
        there = f"cuda:0 to cuda:{count - 1}" if count else "cpu"
        raise ValueError(f"this machine has no device {device}: use {there}")
    return device


def on_black(rgba: Tensor) -> Tensor:
    """uint8 [T, S, S, 4], straight alpha -> uint8 [T, S, S, 3] over black."""
    values = rgba.float() / 255
    return (values[..., :3] * values[..., 3:] * 255).byte()
