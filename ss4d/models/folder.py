"""A pipeline's checkpoint folder: `pipeline.json` and the models it names, on disk or on the Hub.

The layout is that of the released checkpoints, so "lizb6626/SS4D" and our own folders are read by one code path.
`ss4d.models.names` says what a model is called where, `ss4d.models.registry` has the classes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import torch
from torch import Tensor, nn

from ss4d.files import content_hash, written_atomically
from ss4d.flow import SamplerSettings
from ss4d.flow.path import SIGMA_MIN
from ss4d.models.base import TorsoModel
from ss4d.models.checkpoint import CheckpointError, check_weights, load_model, read_json, settings_file, weights_file
from ss4d.models.gaussian_decoder import GaussianDecoder
from ss4d.models.hub import fetch
from ss4d.models.image_encoder import DinoImageEncoder, PatchImageEncoder
from ss4d.models.names import NAMES
from ss4d.models.sparse_flow import SparseFlow
from ss4d.models.structure_estimator import StructureEstimator
from ss4d.models.structure_flow import StructureFlow
from ss4d.models.structure_vae import StructureDecoder, StructureEncoder
from ss4d.view_frame import ViewFrame

RELEASED_SAMPLERS = {"FlowEulerGuidanceIntervalSampler": 3.0, "FlowEulerCfgSampler": 3.0, "FlowEulerSampler": 0.0}
# by name, and the guidance that each has by default; the last one knows none
PAPER_FRAMES = 32  # of the longest training clips (§4.3), for folders that do not name another length


@dataclass
class PipelineModels:
    """The models that generate; the last two where sampling starts from an estimate of the structure."""

    image_encoder: PatchImageEncoder | DinoImageEncoder
    structure_flow: StructureFlow
    structure_decoder: StructureDecoder
    sparse_flow: SparseFlow
    gaussian_decoder: GaussianDecoder
    structure_estimator: StructureEstimator | None = None
    structure_encoder: StructureEncoder | None = None

    def all(self) -> list[nn.Module]:
        return [model for model in vars(self).values() if model is not None]

    @property
    def estimates(self) -> bool:
        """Whether there is an estimator of the structure."""
        return self.structure_estimator is not None

    @contextmanager
    def use(self, name: str) -> Iterator[Any]:
        """The model of this name."""
        yield getattr(self, name)


class StoredModels:
    """The models that generate, each loaded when it is used, mapped from its file in the precision it has there.

    Args:
        dtype: that the torsos compute in; None: as the models' settings say.

    Raises:
        CheckpointError: a missing file, or one that is cut short.
    """

    def __init__(self, folder: PipelineFolder, device: torch.device, dtype: torch.dtype | None = None):
        folder.check()
        self.folder, self.device, self.dtype = folder, device, dtype

    @property
    def estimates(self) -> bool:
        """Whether there is an estimator of the structure."""
        return "structure_estimator" in self.folder.generators()

    @contextmanager
    def use(self, name: str) -> Iterator[Any]:
        """The model of this name; let go afterwards."""
        model: Any = self.folder.load_generator(name, as_stored=True)
        if self.dtype is not None and isinstance(model, TorsoModel):
            model.dtype = self.dtype  # matrices are cast at each use
        yield model.to(self.device)


@dataclass
class PipelineFolder:
    """An opened checkpoint: where it is and what its pipeline.json says."""

    source: str
    args: dict[str, Any]

    @classmethod
    def open(cls, source: str | Path) -> PipelineFolder:
        """Read pipeline.json of a local folder or a Hub repository.

        Raises:
            CheckpointError: no such folder, or a pipeline.json without models.
        """
        path = fetch(str(source), "pipeline.json")
        spec = read_json(path)
        args = spec.get("args", {}) if isinstance(spec, dict) else {}
        if "models" not in args:
            raise CheckpointError(f"{path} names no models: this is not a pipeline folder")
        return cls(str(source), args)

    def load_models(self, dtype: torch.dtype | None = None) -> PipelineModels:
        """All models of the pipeline, strictly loaded.

        Args:
            dtype: of the torsos; None: as the models' settings say.

        Raises:
            CheckpointError: a missing or damaged file, or a model of another kind than its name says.
        """
        models: dict[str, Any] = {name: self.load_generator(name) for name in self.generators()}
        for model in models.values():
            if dtype is not None and isinstance(model, TorsoModel):
                model.set_dtype(dtype)
        return PipelineModels(**models)

    def generators(self) -> list[str]:
        """Names of the models that generate."""
        names = ["image_encoder", "structure_flow", "structure_decoder", "sparse_flow", "gaussian_decoder"]
        if NAMES["structure_estimator"].key in self.args["models"]:
            names += ["structure_estimator", "structure_encoder"]
        return names

    def check(self) -> None:
        """Raise a CheckpointError unless the models that generate are all there, with files that can be read."""
        for name in self.generators():
            if NAMES[name].key not in self.args["models"] and not (name == "image_encoder" and self.dino()):
                raise CheckpointError(f"pipeline.json of {self.source} names no model '{NAMES[name].key}'")
            self.arguments(name)
            if (file := self.weights_file(name)) is not None:
                check_weights(file)

    def load_generator(self, ours: str, as_stored: bool = False) -> nn.Module:
        """One of the models that generate, `as_stored` as for `load_model`; raises as `load_models`."""
        key = NAMES[ours].key
        dino = self.dino() if ours == "image_encoder" else None
        if dino is not None:
            model: nn.Module = DinoImageEncoder(dino)
        elif key in self.args["models"]:
            model = load_model(self.stem(ours), as_stored)
        else:
            raise CheckpointError(
                f"pipeline.json of {self.source} names no model '{key}': this is not an SS4D pipeline folder"
            )
        if not isinstance(model, get_type_hints(PipelineModels)[ours]):
            raise CheckpointError(f"{key} of {self.source} is a {type(model).__name__}: this is not an SS4D pipeline")
        return model

    def dino(self) -> str | None:
        """The DINOv2 that released folders name instead of an image encoder of their own; None: there is one."""
        is_own = NAMES["image_encoder"].key in self.args["models"]
        return None if is_own else self._argument("image_cond_model")

    def arguments(self, ours: str) -> dict[str, Any]:
        """What a model is made of, without loading it; none for a DINOv2 that is no part of the folder."""
        if NAMES[ours].key not in self.args["models"]:
            return {}
        return dict(read_json(settings_file(self.stem(ours))).get("args", {}))

    def weights_file(self, ours: str) -> Path | None:
        """The file of a model's weights; None for a DINOv2 that is no part of the folder."""
        return weights_file(self.stem(ours)) if NAMES[ours].key in self.args["models"] else None

    def identity(self) -> str:
        """A digest of what generates: pipeline.json, and the arguments and weights of every model."""
        stems = [self.stem(name) for name in self.generators() if self.weights_file(name) is not None]
        files = [file for stem in stems for file in (settings_file(stem), weights_file(stem))]
        return content_hash(files) + json.dumps(self.args, sort_keys=True)

    def stem(self, ours: str) -> Path:
        """Where a model's files are, without their ending; from the Hub they are downloaded first.

        pipeline.json names a path inside the folder, or HUB_OWNER/HUB_NAME/path. What it does not name is looked for
        under the released name.

        Raises:
            CheckpointError: the folder has no such model.
        """
        name = NAMES[ours]
        path = self.args["models"].get(name.key, name.released)
        if path is None:
            raise CheckpointError(f"pipeline.json of {self.source} names no model '{name.key}'")
        source, parts = self.source, path.split("/")
        if not parts[0].startswith("ckpts") and len(parts) > 2:
            source, path = "/".join(parts[:2]), "/".join(parts[2:])
        fetch(source, f"{path}.safetensors")
        return fetch(source, f"{path}.json").with_suffix("")

    def sampler(self, key: str) -> SamplerSettings:
        """Settings of "sparse_structure_sampler" or "slat_sampler"."""
        sampler = self._argument(key)
        params = {**_released_defaults(sampler.get("name"), self.source), **sampler.get("params", {})}
        if "cfg_interval" in params:
            params["cfg_interval"] = tuple(params["cfg_interval"])
        try:
            return SamplerSettings(**params)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"pipeline.json of {self.source}: {key} has an unknown setting ({error})") from error

    def view_frame(self) -> ViewFrame | None:
        """The frame of the view that the models were trained in; None: that of the clip, as in the paper.

        Raises:
            CheckpointError: pipeline.json describes none that is possible.
        """
        given = self.args.get("frame")
        try:
            return None if given is None else ViewFrame(**given)
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"pipeline.json of {self.source}: frame = {given} is none ({error})") from error

    def trained_frames(self) -> int:
        """Frames of the longest clips that the flows were trained on: what they see at once of a longer one."""
        return int(self.args.get("trained_frames", PAPER_FRAMES))

    def latent_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [C] of the voxel latents."""
        statistics = self._argument("slat_normalization")
        return torch.tensor(statistics["mean"]), torch.tensor(statistics["std"])

    def _argument(self, key: str) -> Any:
        if key not in self.args:
            raise CheckpointError(f"pipeline.json of {self.source} lacks '{key}': download it again")
        return self.args[key]


def _released_defaults(name: str | None, source: str) -> dict[str, Any]:
    """What a released sampler takes where pipeline.json says nothing.

    Raises:
        CheckpointError: a sampler that is none of the released ones.
    """
    if name not in RELEASED_SAMPLERS:
        known = ", ".join(RELEASED_SAMPLERS)
        raise CheckpointError(f"pipeline.json of {source}: the sampler '{name}' is not known: name one of {known}")
    return {"steps": 50, "rescale_t": 1.0, "cfg_interval": (0.0, 1.0), "cfg_strength": RELEASED_SAMPLERS[name]}


def write_pipeline(
    folder: Path,
    models: Iterable[str],
    structure: SamplerSettings,
    latents: SamplerSettings,
    statistics: Mapping[str, Tensor],
    view_frame: ViewFrame | None = None,
    dino: str | None = None,
    trained_frames: int | None = None,
) -> None:
    """Write pipeline.json with the released keys, atomically.

    Args:
        models: names in `NAMES` of the models beside it, as ckpts/KEY.json and .safetensors.
        structure, latents: default settings of the two flows' samplers.
        statistics: "mean" and "std" [C] of the voxel latents.
        view_frame: that of the view, where the models were trained in it.
        dino: name of the DINOv2 that is the image encoder, where `models` has none.
        trained_frames: of the longest clips that the flows were trained on, where that is known.
    """

    def sampler(settings: SamplerSettings) -> dict[str, Any]:
        params = settings.entries()
        return {"name": "FlowEulerGuidanceIntervalSampler", "args": {"sigma_min": SIGMA_MIN}, "params": params}

    args: dict[str, Any] = {
        "models": {NAMES[name].key: f"ckpts/{NAMES[name].key}" for name in models},
        "sparse_structure_sampler": sampler(structure),
        "slat_sampler": sampler(latents),
        "slat_normalization": {key: [round(v, 6) for v in value.tolist()] for key, value in statistics.items()},
    }
    if view_frame is not None:
        args["frame"] = dataclasses.asdict(view_frame)
    if dino is not None:
        args["image_cond_model"] = dino
    if trained_frames is not None:
        args["trained_frames"] = trained_frames
    with written_atomically(folder / "pipeline.json") as temporary:
        temporary.write_text(json.dumps({"name": "SS4DPipeline", "args": args}, indent=4) + "\n")
