"""A data set made by `dataset_toolkits`: which clips it has, and where their files lie (docs/data.md)."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from ss4d.data.artifact import Artifact
from ss4d.data.format import (
    LatentKind,
    Row,
    artifact_path,
    at_resolution,
    how_to_run,
    read_table,
    resolutions,
    statistics_path,
)
from ss4d.data.provenance import current_rows
from ss4d.data.views import ViewArchive

OPEN_ARCHIVES = 64  # a process keeps as many open: reading the directory of a large archive takes a while


@dataclass(frozen=True)
class PreparedClip:
    """What the tables say about a clip."""

    name: str  # of its files
    asset_id: str
    clip: str | None  # the name of the animation in its file; None for a static object
    category: str | None
    frames: int
    voxels: float  # mean number per frame that a camera sees
    group: str | None = None  # shared by near-duplicates
    cubes: int | None = None  # one per conditioning video (voxelize.frame=turned or view); None: the clip's own cube


@dataclass(frozen=True)
class LatentStatistics:
    """Mean and standard deviation [C] per channel over the training clips."""

    mean: Tensor
    std: Tensor


@dataclass(frozen=True)
class PreparedSet:
    """The clips of a data set that have the files of some stages. Opening it reads tables alone; it can be pickled and
    used in several processes."""

    root: Path
    resolution: int  # voxels along one side
    clips: tuple[PreparedClip, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)  # clips that a stage did not make, by stage

    @classmethod
    def open(
        cls,
        root: Path,
        resolution: int,
        stages: Sequence[str],
        split: str | None = None,
        objects: Sequence[str] | None = None,
    ) -> PreparedSet:
        """Read the tables.

        Args:
            stages: stages whose files are needed: "render", "features", "encode".
            split: "train" or "val"; None takes all.
            objects: asset ids to keep; None keeps all.

        Raises:
            ValueError: a stage was not run, or not at this resolution or not since an earlier one, or no clip is left.
        """
        accepted = _accepted(root, split, objects)
        known = {row["clip_name"]: row for row in accepted}
        done: dict[str, dict[str, Row]] = {}
        for stage in dict.fromkeys(["render", "features", *stages]):
            done[stage] = current_rows(root, stage, known)
            known |= {name: known[name] | {stage: row["key"]} for name, row in done[stage].items()}
        skipped = {stage: sum(row["clip_name"] not in rows for row in accepted) for stage, rows in done.items()}
        clips = [
            PreparedClip(
                name=name,
                asset_id=row["asset_id"],
                clip=row["clip"],
                category=row["category"],
                frames=done["render"][name]["frames"],
                voxels=_voxels(root, done["features"][name], resolution),
                group=row["group"],
                cubes=done["features"][name].get("cubes"),
            )
            for row in accepted
            if all((name := row["clip_name"]) in rows for rows in done.values())
        ]
        if not clips:
            emptiest = max(skipped, key=lambda stage: skipped[stage])
            remedy = f"run `python -m dataset_toolkits {emptiest} --root {root}`, whose table lists the failures"
            raise ValueError(
                f"none of the {len(accepted)} clips in {root} is complete, {emptiest} is missing: {remedy}"
            )
        return cls(root, resolution, tuple(clips), {stage: count for stage, count in skipped.items() if count})

    def __len__(self) -> int:
        return len(self.clips)

    def artifact(self, index: int, stage: str) -> Artifact:
        """The tensors that a stage made of a clip."""
        return Artifact(self.root, stage, self.clips[index].name)

    def pictures(self, index: int) -> ViewArchive:
        """The rendered pictures of a clip."""
        return _archive(artifact_path(self.root, "render", self.clips[index].name), os.getpid())

    def check_files(self, stages: Sequence[str]) -> None:
        """ValueError unless every clip has its file of these stages; each folder is listed once."""
        for stage in stages:
            folder = artifact_path(self.root, stage, "").parent
            there = set(os.listdir(folder)) if folder.is_dir() else set()
            paths = [artifact_path(self.root, stage, clip.name) for clip in self.clips]
            if missing := [path for path in paths if path.name not in there]:
                raise ValueError(
                    f"{len(missing)} of {len(paths)} files of the {stage} stage are missing, {missing[0]} first: bring "
                    f"them back, or run `python -m dataset_toolkits {stage} --root {self.root}` again"
                )

    def latent_statistics(self, kind: LatentKind) -> LatentStatistics:
        """Mean and standard deviation of "structure" or "sparse" latents.

        Raises:
            ValueError: the encode stage has not written them, or they do not normalise.
        """
        path = statistics_path(self.root)
        if not path.exists():
            raise ValueError(f"{path} is missing: {how_to_run('encode', self.root)}")
        statistics = json.loads(path.read_text())
        if kind not in statistics:
            raise ValueError(
                f"{path} has no {kind} latents: {how_to_run('encode', self.root)}, with encode.{kind}_encoder"
            )
        found = LatentStatistics(**{key: torch.tensor(values) for key, values in statistics[kind].items()})
        if not (bool(found.mean.isfinite().all()) and bool((found.std > 0).all()) and bool(found.std.isfinite().all())):
            raise ValueError(
                f"{path}: mean and std of the {kind} latents must be finite, and std above 0: run "
                f"`python -m dataset_toolkits encode --root {self.root}` again"
            )
        return found


# The process is part of the key: a forked one must not share the place in the file with its parent.
@lru_cache(maxsize=OPEN_ARCHIVES)
def _archive(path: Path, process: int) -> ViewArchive:
    return ViewArchive(path)


def _accepted(root: Path, split: str | None, objects: Sequence[str] | None) -> list[Row]:
    """Accepted clips of a split, as rows of curate."""
    rows = [row for row in read_table(root, "curate") if row["accepted"]]
    if objects is not None and (unknown := set(objects) - {row["asset_id"] for row in rows}):
        raise ValueError(f"{root} has no accepted clip of {', '.join(sorted(unknown))}: see data.objects")
    accepted = [
        row
        for row in rows
        if (split is None or row["split"] == split) and (objects is None or row["asset_id"] in objects)
    ]
    if not accepted:
        there = ", ".join(sorted({str(row["split"]) for row in rows})) or "none"
        raise ValueError(
            f"{root} has no clip of split {split} among its {len(rows)} accepted clips (splits that have some: {there})"
        )
    return accepted


def _voxels(root: Path, row: Row, resolution: int) -> float:
    seen = row.get(at_resolution("seen", resolution))
    if seen is None:
        there = ", ".join(map(str, resolutions(row, "seen")))
        remedy = "set data.resolution, or run the voxelize and features stages at it"
        raise ValueError(f"{root} has features at resolution {there}, not at {resolution}: {remedy}")
    return float(seen)
