"""Mean and standard deviation of latents, which training normalises them with."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_toolkits.engine.stage import artifact_path, read_table, replace

if TYPE_CHECKING:
    from torch import Tensor


def write_statistics(root: Path, clips: Iterable[str]) -> None:
    """`tables/latent_statistics.json`: mean and standard deviation of the latents (means of the posterior) of those
    `clips` that are in the train split, all turns and frames. It has the kinds of latents that were encoded, and is
    not written where no such clip is."""
    from safetensors import safe_open

    train = {row["clip_name"] for row in read_table(root, "curate") if row["split"] == "train"}
    figures = {"structure": Moments(), "sparse": Moments()}
    path = root / "tables" / "latent_statistics.json"
    path.unlink(missing_ok=True)
    for clip in clips:
        if clip not in train:
            continue
        with safe_open(artifact_path(root, "encode", clip, ".safetensors"), framework="pt") as file:
            for name in sorted(file.keys()):
                kind, _, what = name.partition("_")
                if what.startswith("mean"):
                    latents = file.get_tensor(name)
                    figures[kind].add(latents.movedim(1, -1).flatten(0, -2))
    content = {kind: moments.figures() for kind, moments in figures.items() if moments.count}
    if content:
        replace(root, path, (json.dumps(content, indent=1) + "\n").encode())


class Moments:
    """Streaming mean and standard deviation of channels, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self._sum: Any = 0.0
        self._squares: Any = 0.0

    def add(self, values: Tensor) -> None:
        """Take in [N, C]."""
        values = values.double()
        self.count += len(values)
        self._sum = self._sum + values.sum(0)
        self._squares = self._squares + values.square().sum(0)

    def figures(self) -> dict[str, list[float]]:
        mean = self._sum / self.count
        variance = (self._squares / self.count - mean.square()).clamp_min(0)
        return {"mean": mean.tolist(), "std": variance.sqrt().tolist()}
