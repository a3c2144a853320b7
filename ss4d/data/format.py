"""The layout of a prepared set: its files, the tensors in them and the columns of its tables, all named here once.

    ROOT/config.yaml                      options of every stage
    ROOT/<stage>/<item><suffix>           artifacts, of an asset (pose) or of a clip (the later stages)
    ROOT/tables/<stage>.parquet           one row per item or clip
    ROOT/tables/latent_statistics.json    mean and standard deviation per channel, by kind of latents

docs/data.md gives the meaning, shape and type of each name; `ss4d.data.views` reads and writes the archives of render.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Row = dict[str, Any]  # one row of a table: plain values by column

STAGES = ("collect", "pose", "curate", "render", "voxelize", "features", "encode")  # in their order
SUFFIXES = {
    "pose": ".safetensors",
    "render": ".zip",
    "voxelize": ".safetensors",
    "features": ".safetensors",
    "encode": ".safetensors",
}

# Columns that every stage with items has, before its own; the last is JSON, see `ss4d.data.provenance`.
INPUTS = "inputs"
RECORD_COLUMNS = ("name", "key", "status", "error", INPUTS)
ASSET_COLUMNS = (
    *("asset_id", "path", "sha256", "bytes", "split", "category", "group"),
    *("licence", "author", "source", "hide_nodes"),
)
CLIP_COLUMNS = (
    *("asset", "clip", "clip_name", "frames", "seconds", "vertices", "triangles", "finite"),
    *("low", "high", "frame_side", "motion", "degenerate", "problem"),
)
# The columns of each stage's own. "voxels_<R>" stands for one column per resolution.
COLUMNS: dict[str, tuple[str, ...]] = {
    "collect": ("name", *ASSET_COLUMNS, "clips", "status", "error"),
    "pose": CLIP_COLUMNS,
    "curate": (*CLIP_COLUMNS, *ASSET_COLUMNS, "pose", "scale", "centre", "visible", "accepted", "reasons"),
    "render": ("clip_name", "frames", "bytes"),
    "voxelize": ("clip_name", "cubes", "outside", "voxels_<R>"),
    "features": ("clip_name", "cubes", "voxels_<R>", "seen_<R>", "dropped_<R>", "foreground_<R>"),
    "encode": ("clip_name",),
}

# Tensors of pose, beside `vertices_name` and `times_name`; and of voxelize and features, beside those of a `Cube`.
TRIANGLES = "triangles"
SIMILARITIES = "similarities"
# Metadata, JSON lists: names of the clips (pose), names of the channels (features).
CLIPS, CHANNELS = "clips", "channels"

COLOUR_MIDDLE, COLOUR_SPREAD = 0.5, 0.25  # what features of colours c in [0, 1] are: (c - middle) / spread

LatentKind = Literal["structure", "sparse"]
LATENT_KINDS: tuple[LatentKind, ...] = ("structure", "sparse")


def artifact_path(root: Path, stage: str, item: str, suffix: str | None = None) -> Path:
    """The file that a stage makes of an item; `suffix` is that of the stage."""
    return root / stage / f"{item}{SUFFIXES[stage] if suffix is None else suffix}"


def table_path(root: Path, stage: str) -> Path:
    return root / "tables" / f"{stage}.parquet"


def statistics_path(root: Path) -> Path:
    """Statistics of the latents, for the clips of the train split."""
    return root / "tables" / "latent_statistics.json"


def config_path(root: Path) -> Path:
    return root / "config.yaml"


def how_to_run(stage: str, root: Path) -> str:
    """What to do where the results of a stage are missing."""
    return f"run `python -m dataset_toolkits {stage} --root {root}` to its end first"


def read_table(root: Path, stage: str) -> list[Row]:
    """The rows of a stage's table.

    Raises:
        ValueError: there is none, as the stage is not complete.
    """
    import pyarrow.parquet

    path = table_path(root, stage)
    if not path.exists():
        raise ValueError(f"{path} is missing: {how_to_run(stage, root)}")
    return pyarrow.parquet.read_table(path).to_pylist()


def vertices_name(clip: int) -> str:
    """Vertices of the clip at this place of the list `CLIPS`."""
    return f"vertices_{clip}"


def times_name(clip: int) -> str:
    """The times of its frames."""
    return f"times_{clip}"


def at_resolution(name: str, resolution: int) -> str:
    """A table's column of this resolution, e.g. "seen_64"."""
    return f"{name}_{resolution}"


def resolutions(names: Iterable[str], prefix: str) -> list[int]:
    """The resolutions R, finest first, for which there is a column `<prefix>_<R>`, or a tensor of any cube."""
    found = (re.fullmatch(rf"{prefix}_(\d+)(?:_\d+)?", name) for name in names)
    return sorted({int(match[1]) for match in found if match}, reverse=True)


@dataclass(frozen=True)
class Cube:
    """The cube that voxels are in, and how its tensors are named.

    Attributes:
        view: the conditioning video whose cube it is (voxelize.frame=turned or view); None: the clip's own cube.
        turns: quarter turns of the clip's own cube; its voxels are stored upright, its latents for each turn.
    """

    view: int | None = None
    turns: int = 0

    def coords(self, resolution: int) -> str:
        """Voxels, in the artifacts of voxelize and features."""
        return self._at("coords", resolution)

    def feats(self, resolution: int) -> str:
        """Their features, in the artifact of features."""
        return self._at("feats", resolution)

    def view_counts(self, resolution: int) -> str:
        """How many cameras see each voxel, in the artifact of features."""
        return self._at("views", resolution)

    @property
    def latent_coords(self) -> str:
        """Voxels of the sparse latents, in the artifact of encode."""
        return f"coords_{self._number}"

    def latents(self, kind: LatentKind, moment: Literal["mean", "logvar"] = "mean") -> str:
        """Mean or log variance of the posterior, in the artifact of encode."""
        return f"{kind}_{moment}_{self._number}"

    @property
    def recoloring(self) -> str:
        """Metadata of the artifact of encode: the colours that the latents were encoded in, where they are not the
        object's own."""
        return f"recoloring_{self._number}"

    @property
    def _number(self) -> int:
        return self.turns if self.view is None else self.view

    def _at(self, name: str, resolution: int) -> str:
        return f"{name}_{resolution}" if self.view is None else f"{name}_{resolution}_{self.view}"


def is_mean_of(kind: LatentKind, name: str) -> bool:
    """Whether a tensor of encode holds means of latents of this kind, of any cube."""
    return name.startswith(f"{kind}_mean_")
