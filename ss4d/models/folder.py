"""A pipeline's checkpoint folder: `pipeline.json` and the models it names, on disk or on the Hub.

The layout is that of the released checkpoints, so "lizb6626/SS4D" and our own folders are read by one code path.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ss4d.flow import SamplerSettings
from ss4d.models.checkpoint import CheckpointError, load_model, read_json
from ss4d.models.image_encoder import DinoImageEncoder

# Our name of each model, and its key in pipeline.json.
MODEL_KEYS = {
    "structure_flow": "sparse_structure_flow_model",
    "structure_decoder": "sparse_structure_decoder",
    "sparse_flow": "slat_flow_model",
    "gaussian_decoder": "slat_decoder_gs",
}


@dataclass
class PipelineFolder:
    """An opened checkpoint: where it is and what its pipeline.json says."""

    source: str
    args: dict[str, Any]

    @classmethod
    def open(cls, source: str | Path) -> PipelineFolder:
        """Read pipeline.json of a local folder or a Hub repository.

        Raises:
            CheckpointError: no such folder, or a pipeline.json without what a pipeline needs.
        """
        path = fetch(str(source), "pipeline.json")
        spec = read_json(path)
        args = spec.get("args", {}) if isinstance(spec, dict) else {}
        models = args.get("models", {})
        for key in MODEL_KEYS.values():
            if key not in models:
                raise CheckpointError(f"{path} names no model '{key}': this is not an SS4D pipeline folder")
        return cls(str(source), args)

    def load_models(self) -> dict[str, nn.Module]:
        """All models of the pipeline, strictly loaded."""
        models = {name: self._load(self.args["models"][key]) for name, key in MODEL_KEYS.items()}
        if "image_encoder" in self.args["models"]:
            models["image_encoder"] = self._load(self.args["models"]["image_encoder"])
        else:
            models["image_encoder"] = DinoImageEncoder(self._argument("image_cond_model"))
        return models

    def sampler(self, key: str) -> SamplerSettings:
        """Settings of "sparse_structure_sampler" or "slat_sampler"."""
        params = dict(self._argument(key).get("params", {}))
        if "cfg_interval" in params:
            params["cfg_interval"] = tuple(params["cfg_interval"])
        try:
            return SamplerSettings(**params)
        except TypeError as error:
            raise CheckpointError(f"pipeline.json of {self.source}: {key} has an unknown setting ({error})") from error

    def latent_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [C] of the voxel latents."""
        statistics = self._argument("slat_normalization")
        return torch.tensor(statistics["mean"]), torch.tensor(statistics["std"])

    def _argument(self, key: str) -> Any:
        if key not in self.args:
            raise CheckpointError(f"pipeline.json of {self.source} lacks '{key}': download it again")
        return self.args[key]

    def _load(self, name: str) -> nn.Module:
        """A model by its path inside the folder, or as HUB_OWNER/HUB_NAME/path."""
        source = self.source
        parts = name.split("/")
        if not parts[0].startswith("ckpts") and len(parts) > 2:
            source, name = "/".join(parts[:2]), "/".join(parts[2:])
        fetch(source, f"{name}.safetensors")
        return load_model(fetch(source, f"{name}.json").with_suffix(""))


def fetch(source: str, file: str) -> Path:
    """A file of a local folder, or of a Hub repository (downloaded once, then cached).

    Raises:
        CheckpointError: naming what is not there.
    """
    folder = Path(source)
    if folder.is_dir():
        if not (folder / file).is_file():
            raise CheckpointError(f"the model folder {folder} has no {file}: check the path, or download it again")
        return folder / file
    if source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise CheckpointError(f"there is no model folder {source}: pass an existing folder, or a Hub id OWNER/NAME")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(source, file))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{file} of '{source}' is neither a local folder's nor could it be fetched from the Hub ({reason}): "
            "check the name and the connection"
        ) from error
