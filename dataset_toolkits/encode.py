"""Stage encode: latents of every clip, by trained encoders."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from dataset_toolkits.engine.stage import Item, Stage, StageError, later_option, speed_option
from dataset_toolkits.latent_statistics import write_statistics
from ss4d.backend import find_device
from ss4d.data.format import CHANNELS, SIMILARITIES, SUFFIXES, Cube, Row, artifact_path, read_table
from ss4d.data.provenance import current_rows
from ss4d.files import content_hash

if TYPE_CHECKING:
    from torch import Tensor

    from ss4d.models.sparse_vae import SparseEncoder
    from ss4d.models.structure_vae import StructureEncoder

CELLS_AT_ONCE = 16 * 32**3  # of the grids in one call of the structure encoder


@dataclass
class EncodeOptions:
    """Options of the stage encode. An encoder is the path of a checkpoint without its ending, a pipeline's folder or a
    Hub id, such as microsoft/TRELLIS-image-large.

    Latents of an encoder that is not given are not made; those that an earlier run made are removed.
    """

    structure_encoder: str = ""
    sparse_encoder: str = ""
    resolution: int = 64  # of the voxels to encode; features must have been made at it
    quarter_turns: list[int] = field(default_factory=lambda: [0])  # of voxelize.frame=clip: turns of 90 degrees, 0 to 3
    recolor: float = later_option(0.0)  # chance of a cube's features to get other colours before they are encoded
    device: str = speed_option("cpu")

    def __post_init__(self) -> None:
        if not self.quarter_turns or not set(self.quarter_turns) <= {0, 1, 2, 3}:
            raise ValueError(f"encode.quarter_turns are some of 0, 1, 2 and 3, not {list(self.quarter_turns)}")
        if not 0 <= self.recolor <= 1:
            raise ValueError(f"encode.recolor is a chance from 0 to 1, not {self.recolor}")


class EncodeStage(Stage):
    """`encode/<clip>.safetensors` of every clip with features, and `tables/latent_statistics.json`; see docs/data.md.

    The structure is that of the voxels that the stage features kept.
    """

    name = "encode"
    suffix: ClassVar[str] = SUFFIXES["encode"]
    options: EncodeOptions

    @property
    def device(self) -> str:
        return self.options.device

    def items(self) -> list[Item]:
        find_device(self.options.device)
        rendered = {row["name"]: row for row in read_table(self.root, "render") if row["status"] == "done"}
        known = {name: {"render": row["key"]} for name, row in rendered.items()}
        rows = list(current_rows(self.root, "features", known).values())
        if self._structure_stem is None and self._sparse_stem is None:
            raise StageError(
                "neither encode.structure_encoder nor encode.sparse_encoder is set: give one or both, each a "
                "checkpoint's path without its ending, a pipeline's folder or a Hub id"
            )
        weights = [stem and hash_model(stem) for stem in (self._structure_stem, self._sparse_stem)]
        if rows:
            self._check_features(artifact_path(self.root, "features", rows[0]["name"]))
        return [
            Item(name := row["name"], {"features": row["key"], "frames": rendered[name]["frames"], "weights": weights})
            for row in rows
        ]

    def process(self, item: Item, path: Path | None) -> list[Row]:
        from safetensors.torch import save_file

        from dataset_toolkits.rigs import clip_generator
        from ss4d.data.recolor import Recoloring

        assert path is not None
        tensors: dict[str, Tensor] = {}
        recolored: dict[str, str] = {}
        generator = clip_generator(item.name)
        for cube, (coords, feats) in self._voxels(item.name):
            if self.options.recolor and generator.random() < self.options.recolor:
                recoloring = Recoloring.draw(generator, largest_gamma=1)
                feats = recoloring.features(feats, self._channels(item.name))
                recolored[cube.recoloring] = recoloring.to_json()
            tensors |= self._encode(cube, coords, feats, item.inputs["frames"])
        save_file(tensors, path, recolored or None)
        return [{"clip_name": item.name}]

    def _channels(self, clip: str) -> list[str]:
        """Names of the channels of a clip's features."""
        from safetensors import safe_open

        with safe_open(artifact_path(self.root, "features", clip), framework="pt") as file:
            return json.loads(file.metadata()[CHANNELS])

    def _voxels(self, clip: str) -> Iterator[tuple[Cube, tuple[Tensor, Tensor]]]:
        """Coords int32 [N, 4] and features [N, F] of each cube of a clip, or of each quarter turn of its only one."""
        from safetensors import safe_open

        from ss4d.data.turns import turn_coords, turn_features

        resolution = self.options.resolution
        with safe_open(artifact_path(self.root, "features", clip), framework="pt") as file:
            if SIMILARITIES in set(file.keys()):
                for view in range(len(file.get_tensor(SIMILARITIES))):
                    cube = Cube(view)
                    coords, feats = (file.get_tensor(name(resolution)) for name in (cube.coords, cube.feats))
                    yield cube, (coords.int(), feats.float())
                return
            coords, feats = (file.get_tensor(name(resolution)) for name in (Cube().coords, Cube().feats))
        channels = self._channels(clip)
        for turns in self.options.quarter_turns:
            turned = turn_coords(coords.int(), turns, resolution)
            yield Cube(turns=turns), (turned, turn_features(feats.float(), channels, turns))

    def finish(self) -> None:
        done = [item.name for item in self.items() if (record := self.current_record(item)) and record.error is None]
        write_statistics(self.root, done)

    def _encode(self, cube: Cube, coords: Tensor, feats: Tensor, frames: int) -> dict[str, Tensor]:
        """Tensors of the artifact for voxels int32 [N, 4] with features [N, F]; voxels keep their order."""
        import torch
        from torch.nn.functional import pad

        from ss4d.sparse import SparseTensor

        with torch.inference_mode():
            latents: dict[str, Tensor] = {}
            if self.structure_encoder is not None:
                latents |= self._encode_structure(self.structure_encoder, cube, coords, frames)
            if self.sparse_encoder is not None:
                voxels = SparseTensor(feats, pad(coords, (1, 0)), num_frames=[frames]).to(self.options.device)
                sparse = self.sparse_encoder(voxels)
                latents[cube.latents("sparse")] = sparse.mean.feats
                latents[cube.latents("sparse", "logvar")] = sparse.logvar.feats
        stored = {name: value.half().cpu().contiguous() for name, value in latents.items()}
        return {cube.latent_coords: coords.short()} | stored

    def _encode_structure(
        self, encoder: StructureEncoder, cube: Cube, coords: Tensor, frames: int
    ) -> dict[str, Tensor]:
        """Mean and log variance, [T, C, r, r, r]."""
        import torch

        from ss4d.data.occupancy import occupancy_grid

        grids = occupancy_grid(coords, frames, self.options.resolution)
        # The encoder takes each frame by itself; passing a few at a time bounds the memory.
        grids = grids.split(max(1, CELLS_AT_ONCE // self.options.resolution**3))
        # A grid alone goes twice: oneDNN's 3D convolution takes seven times as long for a batch of one as for two.
        batches = [grid if len(grid) > 1 else grid.expand(2, -1, -1, -1, -1) for grid in grids]
        posteriors = [encoder(batch[None].to(self.options.device)) for batch in batches]
        return {
            cube.latents("structure"): torch.cat([posterior.mean[0] for posterior in posteriors])[:frames],
            cube.latents("structure", "logvar"): torch.cat([posterior.logvar[0] for posterior in posteriors])[:frames],
        }

    @cached_property
    def structure_encoder(self) -> StructureEncoder | None:
        """None if none is given. Kept between the clips of a worker."""
        return _load(self._structure_stem, self.options.device)

    @cached_property
    def sparse_encoder(self) -> SparseEncoder | None:
        """None if none is given. Kept between the clips of a worker."""
        return _load(self._sparse_stem, self.options.device)

    @cached_property
    def _structure_stem(self) -> Path | None:
        return model_stem("structure_encoder", self.options.structure_encoder)

    @cached_property
    def _sparse_stem(self) -> Path | None:
        return model_stem("sparse_encoder", self.options.sparse_encoder)

    def _check_features(self, features: Path) -> None:
        """Raise StageError if there are none of this resolution, or the sparse encoder needs others."""
        from safetensors import safe_open

        with safe_open(features, framework="np") as file:
            channels, tensors = len(json.loads(file.metadata()[CHANNELS])), set(file.keys())
        if self._sparse_stem:
            self._check_sparse_encoder(self._sparse_stem, channels)
        if not {Cube().coords(self.options.resolution), Cube(0).coords(self.options.resolution)} & tensors:
            raise StageError(
                f"there are no features for encode.resolution = {self.options.resolution}: add it to "
                "voxelize.resolutions and features.resolutions"
            )

    def _check_sparse_encoder(self, stem: Path, channels: int) -> None:
        """Raise StageError if it needs another number of channels or another resolution."""
        from ss4d.models.checkpoint import read_json

        args = read_json(stem.with_name(stem.name + ".json"))["args"]
        if args["in_channels"] != channels:
            raise StageError(
                f"the encoder {stem} takes {args['in_channels']} channels per voxel, but features have "
                f"{channels}: choose the features.extractor it was trained with, or another encoder"
            )
        if args["resolution"] != self.options.resolution:
            raise StageError(
                f"the encoder {stem} is for {args['resolution']} voxels per side, but encode.resolution is "
                f"{self.options.resolution}: make them equal"
            )


def model_stem(option: str, value: str) -> Path | None:
    """The path without ending of the encoder that an option names; None if it is empty. From the Hub it is fetched.

    Args:
        option: "structure_encoder" or "sparse_encoder".

    Raises:
        StageError: it names no checkpoint.
    """
    from ss4d.models.checkpoint import CheckpointError
    from ss4d.models.folder import PipelineFolder
    from ss4d.models.hub import is_hub_id
    from ss4d.models.names import NAMES

    if not value:
        return None
    folder, named = Path(value), f"encode.{option} = {value} names no checkpoint"
    stem = folder / "ckpts" / NAMES[option].key if folder.is_dir() else folder
    missing = [path for ending in (".json", ".safetensors") if not (path := Path(f"{stem}{ending}")).is_file()]
    if not missing:
        return stem
    if not (folder / "pipeline.json").is_file() and (folder.exists() or len(missing) == 1 or not is_hub_id(value)):
        raise StageError(f"{named}: there is no {missing[0]}")
    try:
        return PipelineFolder.open(value).stem(option)
    except CheckpointError as error:
        raise StageError(f"{named}: {error}") from error


def hash_model(stem: Path) -> str:
    """SHA-256 of a checkpoint: its description and its weights."""
    return content_hash(stem.with_name(stem.name + ending) for ending in (".json", ".safetensors"))


def _load(stem: Path | None, device: str) -> Any:
    """A model in evaluation mode, in float32 on a CPU; None if there is no stem."""
    import torch

    from ss4d.models.checkpoint import load_model

    if stem is None:
        return None
    return load_model(stem, dtype=torch.float32 if torch.device(device).type == "cpu" else None).to(device)
