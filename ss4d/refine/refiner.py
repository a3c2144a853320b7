"""A clip through all steps of the alignment with its input."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ss4d.cameras import Camera
from ss4d.gaussians import GaussianSequence
from ss4d.refine.appearance import AppearanceSettings, refine_gaussians
from ss4d.refine.camera import fit_camera
from ss4d.refine.structure import StructureSettings, align_structure
from ss4d.view_frame import ViewFrame


@dataclass(frozen=True)
class RefineSettings:
    """Settings of the steps.

    Attributes:
        least_iou: of the fitted camera's silhouettes; below it nothing is refined, since the camera is not known.
    """

    structure: StructureSettings = field(default_factory=StructureSettings)
    appearance: AppearanceSettings = field(default_factory=AppearanceSettings)
    least_iou: float = 0.6


@dataclass
class Refinement:
    """What was done to a clip."""

    settings: RefineSettings
    camera: Camera  # of the cropped input
    camera_source: str  # "known" or "fitted"
    camera_iou: float | None = None  # of silhouettes, of a fitted camera
    skipped: str | None = None  # why nothing was refined, if so
    structure_iou: list[float] = field(default_factory=list)  # of front silhouettes before and after
    structure_losses: list[float] = field(default_factory=list)
    gaussian_losses: list[float] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def entries(self) -> dict[str, Any]:
        """As JSON values; of the losses the first and last."""
        entries = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        for name in ("structure_losses", "gaussian_losses"):
            entries[name] = entries[name][:1] + entries[name][-1:]
        entries["settings"] = dataclasses.asdict(self.settings)
        entries["camera"] = {
            "extrinsics": self.camera.extrinsics.tolist(),
            "intrinsics": self.camera.intrinsics.tolist(),
        }
        return entries


class Refiner:
    """Aligns what the stages of a pipeline make with the clip that they were given.

    Args:
        cropped: the input as the models saw it, uint8 [T, S, S, 4], straight alpha.
        view_frame: whose camera is that of the input; None: the camera is fitted.
        settings: of all steps.
        progress: show a bar for each step.
    """

    def __init__(self, cropped: Tensor, view_frame: ViewFrame | None, settings: RefineSettings, progress: bool = False):
        self.cropped, self.view_frame, self.settings, self.progress = cropped, view_frame, settings, progress
        self.report: Refinement | None = None

    def structure(self, decoder: nn.Module, latents: Tensor, occupancy: Tensor, frames_at_once: int) -> Tensor:
        """Occupancy bool [T, R, R, R] that agrees with the input's silhouettes.

        Args:
            latents: as sampled, [1, T, C, r, r, r].
            occupancy: what they decode to.
            frames_at_once: that are decoded with gradients.
        """
        alpha = self.cropped[..., 3].float() / 255
        report = self.report = self._find_camera(occupancy, alpha)
        if report.skipped:
            return occupancy
        with _timed(report, "structure"):
            aligned = align_structure(
                decoder, latents, alpha, report.camera, self.settings.structure, self.progress, frames_at_once
            )
        report.structure_iou = [aligned.iou_before, aligned.iou_after]
        report.structure_losses = aligned.losses
        return aligned.occupancy

    def gaussians(
        self, gaussians: GaussianSequence, voxels: Sequence[Tensor], resolution: int, seed: int
    ) -> GaussianSequence:
        """The Gaussians on the aligned structure, brought to the input's pixels."""
        report = self.report
        assert report is not None, "structure comes first: it finds the camera"
        if report.skipped:
            return gaussians
        with _timed(report, "gaussians"):
            refined = refine_gaussians(
                gaussians,
                voxels,
                resolution,
                self.cropped,
                report.camera,
                self.settings.appearance,
                seed,
                self.progress,
            )
        report.gaussian_losses = refined.losses
        return refined.gaussians

    def _find_camera(self, occupancy: Tensor, alpha: Tensor) -> Refinement:
        """Find the camera."""
        if self.view_frame is not None:
            return Refinement(self.settings, self.view_frame.camera(), "known")
        started = time.perf_counter()
        fit = fit_camera(occupancy, alpha.to(occupancy.device), self.progress)
        report = Refinement(self.settings, fit.camera, "fitted", fit.iou)
        report.seconds["camera"] = time.perf_counter() - started
        if fit.iou < self.settings.least_iou:
            report.skipped = (
                f"the best camera's silhouettes agree with the input's to {fit.iou:.2f} only, "
                f"less than least_iou = {self.settings.least_iou}"
            )
        return report


@contextmanager
def _timed(report: Refinement, name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    report.seconds[name] = time.perf_counter() - started
