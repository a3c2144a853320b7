"""Video to 4D Gaussians (paper §4, Fig. 2 left): structure, then voxel latents, then Gaussians of every frame."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from tqdm import tqdm

from ss4d.flow import SamplerSettings, euler_steps
from ss4d.flow.samplers import VelocityFunction
from ss4d.gaussians import GaussianSequence
from ss4d.memory import peak_memory
from ss4d.models.base import TorsoModel
from ss4d.models.folder import PipelineFolder
from ss4d.sparse import SparseTensor
from ss4d.video import crop_clip, find_foreground


@dataclass
class Stage:
    """Cost of one stage: wall time, and the process's (on CUDA the device's) peak memory by its end."""

    name: str
    seconds: float
    peak_memory_mb: float


@dataclass
class Generation:
    """What `SS4DPipeline.run` made of a clip."""

    gaussians: GaussianSequence
    voxels: list[Tensor]  # occupied voxels of each frame, int32 [N, 3] in 0 .. resolution - 1
    resolution: int  # voxels along one side of the cube
    images: Tensor  # uint8 [T, S, S, 3], the cropped clip on black that conditioned the models
    seed: int
    structure: SamplerSettings
    latents: SamplerSettings
    stages: list[Stage] = field(default_factory=list)


class SS4DPipeline:
    """The trained models of a checkpoint folder, ready to run.

    Args:
        models: "image_encoder", "structure_flow", "structure_decoder", "sparse_flow", "gaussian_decoder".
        structure, latents: default sampler settings of the two flows.
        latent_mean, latent_std: [C] statistics that voxel latents were normalised with.
    """

    def __init__(
        self,
        models: dict[str, nn.Module],
        structure: SamplerSettings,
        latents: SamplerSettings,
        latent_mean: Tensor,
        latent_std: Tensor,
        device: torch.device | str = "cpu",
    ):
        self.models = {name: model.to(device).eval() for name, model in models.items()}
        self.structure, self.latents = structure, latents
        self.latent_mean, self.latent_std = latent_mean.to(device), latent_std.to(device)
        self.device = torch.device(device)

    @classmethod
    def from_pretrained(cls, source: str | Path, device: torch.device | str = "cpu") -> SS4DPipeline:
        """Load a checkpoint folder, or a Hub id such as "lizb6626/SS4D".

        Half precision in the checkpoint's settings is kept on CUDA; a CPU computes in float32.

        Raises:
            CheckpointError: a missing or damaged file, or weights that do not fit the models exactly.
        """
        folder = PipelineFolder.open(source)
        models = folder.load_models()
        if torch.device(device).type == "cpu":
            for model in models.values():
                if isinstance(model, TorsoModel):
                    model.set_dtype(torch.float32)
        mean, std = folder.latent_statistics()
        return cls(
            models,
            folder.sampler("sparse_structure_sampler"),
            folder.sampler("slat_sampler"),
            mean,
            std,
            device,
        )

    @torch.inference_mode()
    def run(
        self,
        frames: ArrayLike,
        seed: int = 42,
        structure: SamplerSettings | None = None,
        latents: SamplerSettings | None = None,
        progress: bool = False,
    ) -> Generation:
        """Generate the 4D object seen in a clip.

        Args:
            frames: uint8 [T, H, W, 4] RGBA, or [T, H, W, 3] before a uniform background; any T from 1 up.
            seed: of the noise both flows start from; drawn on the CPU, so that devices agree.
            structure, latents: sampler settings, the checkpoint's by default.
            progress: show a bar for each stage.

        Raises:
            ValueError: frames of another shape, no foreground, or a structure without any voxel.
        """
        structure, latents = structure or self.structure, latents or self.latents
        stages: list[Stage] = []
        image_size: Any = self.models["image_encoder"].image_size
        with measured("conditioning", stages, self.device):
            images = torch.from_numpy(crop_clip(find_foreground(np.asarray(frames)), image_size))
            cond = self._encode(images, progress)
        generator = torch.Generator().manual_seed(seed)
        with measured("structure", stages, self.device):
            occupancy = self._sample_structure(cond, structure, generator, progress)
        num_frames, resolution = occupancy.shape[0], occupancy.shape[-1]
        coords = torch.nn.functional.pad(occupancy.nonzero(), (1, 0)).int()
        if not len(coords):
            raise ValueError(
                f"the sampled structure is empty in all {num_frames} frames: try another seed, or train the "
                "structure flow for longer"
            )
        with measured("latents", stages, self.device):
            z = self._sample_latents(coords, cond, latents, generator, progress)
        with measured("gaussians", stages, self.device):
            gaussians = self.models["gaussian_decoder"](z)[0]
        voxels = [coords[coords[:, 1] == frame, 2:].cpu() for frame in range(num_frames)]
        return Generation(gaussians, voxels, resolution, images, seed, structure, latents, stages)

    def _encode(self, images: Tensor, progress: bool) -> Tensor:
        """uint8 [T, S, S, 3] -> tokens [1, T, L, D], a few frames at a time."""
        pixels = images.movedim(-1, 1).float() / 255
        chunks = tqdm(pixels.split(8), desc="image tokens", unit="batch", disable=not progress)
        return torch.cat([self.models["image_encoder"](chunk.to(self.device)) for chunk in chunks])[None]

    def _sample_structure(
        self, cond: Tensor, settings: SamplerSettings, generator: torch.Generator, progress: bool
    ) -> Tensor:
        """Occupancy of every frame, bool [T, R, R, R]."""
        flow: Any = self.models["structure_flow"]
        frames = cond.shape[1]
        shape = (frames, flow.in_channels, *[flow.resolution] * 3)
        noise = torch.randn(shape, generator=generator)[None].to(self.device)

        def velocity(x: Tensor, t: float, conditional: bool) -> Tensor:
            return flow(x, self._time(t, frames), cond if conditional else None)

        z = _sample(velocity, noise, settings, "structure", progress)
        return torch.cat([self.models["structure_decoder"](part) > 0 for part in z.split(8, dim=1)], dim=1)[0, :, 0]

    def _sample_latents(
        self,
        coords: Tensor,
        cond: Tensor,
        settings: SamplerSettings,
        generator: torch.Generator,
        progress: bool,
    ) -> SparseTensor:
        """Latents on voxels coords [N, 5], de-normalised for the decoder."""
        flow: Any = self.models["sparse_flow"]
        frames = cond.shape[1]
        noise = torch.randn(len(coords), flow.in_channels, generator=generator).to(self.device)
        x = SparseTensor(noise, coords, num_frames=frames)

        def velocity(feats: Tensor, t: float, conditional: bool) -> Tensor:
            return flow(x.replace(feats), self._time(t, frames), cond if conditional else None).feats

        z = _sample(velocity, x.feats, settings, "latents", progress)
        return x.replace(z * self.latent_std + self.latent_mean)

    def _time(self, t: float, frames: int) -> Tensor:
        return torch.full((1, frames), 1000 * t, device=self.device)


@contextmanager
def measured(name: str, stages: list[Stage], device: torch.device) -> Iterator[None]:
    """Append the cost of the enclosed work to `stages`."""
    started = time.perf_counter()
    yield
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    stages.append(Stage(name, time.perf_counter() - started, peak_memory(device) / 2**20))


def _sample(velocity: VelocityFunction, noise: Tensor, settings: SamplerSettings, name: str, progress: bool) -> Tensor:
    x = noise
    steps = euler_steps(velocity, noise, settings)
    for step in tqdm(steps, total=settings.steps, desc=name, unit="step", disable=not progress):
        x = step.x
    return x


def override(settings: SamplerSettings, steps: int | None = None, cfg_strength: float | None = None) -> SamplerSettings:
    """The same settings with another number of steps or guidance strength, where given."""
    changes: dict[str, Any] = {"steps": steps, "cfg_strength": cfg_strength}
    return dataclasses.replace(settings, **{key: value for key, value in changes.items() if value is not None})
