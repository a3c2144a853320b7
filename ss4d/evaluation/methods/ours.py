"""Our own models as methods: the whole pipeline, and the sparse VAE alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from ss4d import backend
from ss4d.data.artifact import collate_voxels
from ss4d.evaluation.identity import checkpoint_hash, files_hash
from ss4d.evaluation.methods.method import Method
from ss4d.evaluation.options import RunOptions
from ss4d.evaluation.placement import out_of_view
from ss4d.evaluation.prediction import Prediction, Voxels
from ss4d.evaluation.protocol import Protocol
from ss4d.evaluation.subjects.prepared import PreparedSubjects
from ss4d.evaluation.subjects.subject import Subject, SubjectSet
from ss4d.models.checkpoint import load_model, settings_file, weights_file
from ss4d.models.folder import PipelineFolder
from ss4d.models.names import NAMES
from ss4d.pipeline import SS4DPipeline
from ss4d.refine import RefineSettings
from ss4d.result import Stage, measured

REFINEMENT = ("camera_source", "camera_iou", "skipped", "structure_iou")  # of its report, kept in the result


class PipelineMethod(Method):
    """Video in, Gaussians out, with any checkpoint."""

    samples = True

    def __init__(self, options: RunOptions, protocol: Protocol):
        super().__init__()
        self.protocol = protocol
        self.pipeline = SS4DPipeline.from_pretrained(options.model, options.device, precision=options.precision)
        self.steps, self.guidance = options.steps, options.guidance
        self.refine = RefineSettings() if options.refine else None
        self.identity = {
            "sha256": checkpoint_hash(options.model),
            "structure": self.pipeline.structure.override(options.steps, options.guidance).entries(),
            "latents": self.pipeline.latents.override(options.steps, options.guidance).entries(),
        }
        if options.precision is not None:
            self.identity["precision"] = options.precision
        if self.refine is not None:
            self.identity["refine"] = dataclasses.asdict(self.refine)

    def predict(self, subject: Subject, seed: int) -> Prediction:
        result = self.pipeline.run(subject.video.numpy(), seed, self.steps, self.guidance, self.refine or False)
        coords = torch.cat(
            [torch.nn.functional.pad(part, (1, 0), value=frame) for frame, part in enumerate(result.voxels)]
        )
        report: dict[str, Any] = {"seconds": {stage.name: stage.seconds for stage in result.stages}}
        if result.refinement is not None:
            entries = result.refinement.entries()
            report["refinement"] = {name: entries[name] for name in REFINEMENT}
        return Prediction(
            gaussians=result.gaussians.to("cpu"),
            voxels=Voxels(coords, result.resolution),
            placement=subject.clip_cube if result.view_frame is None else out_of_view(result.view_frame, subject),
            report=report,
        )


def sparse_vae(model: str) -> tuple[Path, Path]:
    """Where the encoder and the decoder of a run folder, a checkpoint folder or a Hub id are, without their endings.

    Raises:
        CheckpointError: it is none of these, or has no encoder.
    """
    trained = Path(model) / "ckpts" / NAMES["sparse_encoder"].trained_as
    if settings_file(trained).is_file():
        return trained, trained.with_name(NAMES["gaussian_decoder"].trained_as)
    folder = PipelineFolder.open(model)
    return folder.stem("sparse_encoder"), folder.stem("gaussian_decoder")


class Reconstruction(Method):
    """The sparse VAE alone: a set's own voxels and features, encoded and decoded (Tables 5 and 6).

    `options.model` is a checkpoint folder or Hub id with an encoder of voxels, such as microsoft/TRELLIS-image-large,
    or a run folder of train.py.
    """

    def __init__(self, options: RunOptions, protocol: Protocol, subjects: SubjectSet):
        super().__init__()
        if not isinstance(subjects, PreparedSubjects):
            raise ValueError(
                f"method=reconstruction needs a prepared set, but the data set of {protocol.name} is another kind."
            )
        stems = sparse_vae(options.model)
        self.device = backend.find_device(options.device)
        self.encoder, self.decoder = (load_model(stem, dtype=torch.float32).to(self.device) for stem in stems)
        self.protocol, self.subjects, self.is_warm = protocol, subjects, False
        self.identity = {"sha256": files_hash([part(stem) for stem in stems for part in (settings_file, weights_file)])}

    @torch.inference_mode()
    def predict(self, subject: Subject, seed: int) -> Prediction:
        subjects, resolution = self.subjects, self.subjects.resolution
        index = subjects.index[subject.name]
        cube = subjects.cube(subjects.clips, index)
        names = cube.coords(resolution), cube.feats(resolution)
        rows = subjects.clips.artifact(index, "features").voxels(*names, range(subject.frames))
        voxels = collate_voxels([rows]).to(self.device)
        if not self.is_warm:  # the first call of a process reads and prepares more than later ones
            self.encoder(voxels)
            self.is_warm = True
        stages: list[Stage] = []
        with measured("encode", stages, self.device):
            latents = self.encoder(voxels).mean
        gaussians = self.decoder(latents)[0].to("cpu")
        return Prediction(
            gaussians=gaussians,
            report={"seconds": {"encode": stages[0].seconds}, "length": len(voxels) / subject.frames},
        )
