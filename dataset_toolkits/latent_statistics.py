"""Mean and standard deviation of latents, by which training normalises them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_toolkits.engine.records import write_file
from ss4d.data.format import LATENT_KINDS, artifact_path, is_mean_of, read_table, statistics_path

if TYPE_CHECKING:
    from torch import Tensor


def write_statistics(root: Path, clips: Iterable[str]) -> None:
    """Write `tables/latent_statistics.json`: mean and standard deviation per channel of the latents (means of the
    posterior), over all cubes and frames of those `clips` that are in the train split. It has the kinds of latents that
    were encoded, and is removed if there is no such clip."""
    from safetensors import safe_open

    train = {row["clip_name"] for row in read_table(root, "curate") if row["split"] == "train"}
    statistics = {kind: Moments() for kind in LATENT_KINDS}
    path = statistics_path(root)
    path.unlink(missing_ok=True)
    for clip in clips:
        if clip not in train:
            continue
        with safe_open(artifact_path(root, "encode", clip), framework="pt") as file:
            for name in sorted(file.keys()):
                for kind in LATENT_KINDS:
                    if is_mean_of(kind, name):
                        statistics[kind].add(file.get_tensor(name).movedim(1, -1).flatten(0, -2))
    content = {kind: moments.mean_and_std() for kind, moments in statistics.items() if moments.count}
    if content:
        write_file(root, path, (json.dumps(content, indent=1) + "\n").encode())


class Moments:
    """Running mean and standard deviation per channel, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self._sum: Any = 0.0
        self._squares: Any = 0.0

    def add(self, values: Tensor) -> None:
        """Add values [N, C]."""
        values = values.double()
        self.count += len(values)
        self._sum = self._sum + values.sum(0)
        self._squares = self._squares + values.square().sum(0)

    def mean_and_std(self) -> dict[str, list[float]]:
        mean = self._sum / self.count
        variance = (self._squares / self.count - mean.square()).clamp_min(0)
        return {"mean": mean.tolist(), "std": variance.sqrt().tolist()}
