"""The run over many objects: what to make, what is there already, what failed."""

from __future__ import annotations

import hashlib
import multiprocessing
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

from dataset_toolkits.asset import load_asset
from dataset_toolkits.clip import Parameters, PosedClip, pose_clip, prepare_clip
from dataset_toolkits.features import FEATURE_CHANNELS
from dataset_toolkits.index import AssetEntry
from dataset_toolkits.storage import (
    ClipRecord,
    Failure,
    Manifest,
    RootMotion,
    clip_file,
    read_record,
    write_clip,
)


@dataclass
class ObjectResult:
    """What became of one object."""

    records: list[ClipRecord] = field(default_factory=list)
    num_resumed: int = 0  # of the records, those that were stored already
    root_motion: list[RootMotion] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


def prepare_objects(
    entries: Sequence[AssetEntry], root: Path, parameters: Parameters, num_clips: int, workers: int
) -> Iterator[ObjectResult]:
    """Prepare many objects in `workers` processes, yield each result and keep the manifest up to date."""
    manifest = Manifest.read(root)
    manifest.forget_problems({entry.object_id for entry in entries})
    # Fresh processes: forking after torch has started its threads can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _limit_threads) as pool:
        pending = [pool.submit(prepare_object, entry, root, parameters, num_clips) for entry in entries]
        for future in as_completed(pending):
            result = future.result()
            manifest.clips.update({record.file: record for record in result.records})
            manifest.root_motion.extend(result.root_motion)
            manifest.failures.extend(result.failures)
            manifest.write(root)
            yield result


def prepare_object(entry: AssetEntry, root: Path, parameters: Parameters, num_clips: int) -> ObjectResult:
    """Prepare the first `num_clips` clips of one object that stay in place.

    A failing clip or file is recorded in the result, it must not cost the others.
    """
    result = ObjectResult()
    load = cache(lambda: load_asset(entry.path, entry.hide_nodes))
    try:
        digest = hashlib.sha256(entry.path.read_bytes()).hexdigest()
        for clip_name in entry.clips:
            if len(result.records) + len(result.failures) == num_clips:
                break
            stored = read_record(root / clip_file(entry.object_id, clip_name))
            if stored and stored.source_sha256 == digest and stored.parameters == asdict(parameters):
                result.records.append(stored)
                result.num_resumed += 1
                continue
            asset = load()
            try:
                clip = pose_clip(asset, clip_name, parameters.frames)
                if clip.placement.has_root_motion:
                    ratio = clip.placement.motion_ratio
                    result.root_motion.append(RootMotion(entry.object_id, clip_name, ratio))
                else:
                    result.records.append(_store(entry, clip, clip_name, digest, root, parameters))
            except Exception as error:
                result.failures.append(_failure(entry, clip_name, error))
    except Exception as error:
        result.failures.append(_failure(entry, None, error))
    return result


def _store(
    entry: AssetEntry, clip: PosedClip, clip_name: str, digest: str, root: Path, parameters: Parameters
) -> ClipRecord:
    file = clip_file(entry.object_id, clip_name)
    seed = int(hashlib.sha256(file.encode()).hexdigest()[:8], 16)
    tensors = prepare_clip(clip, parameters, seed)
    record = ClipRecord(
        object_id=entry.object_id,
        clip=clip_name,
        file=file,
        split=entry.split,
        category=entry.category,
        group=entry.group,
        licence=entry.licence,
        author=entry.author,
        source=entry.source,
        source_sha256=digest,
        scale=clip.placement.scale,
        centre=clip.placement.centre,
        motion_ratio=clip.placement.motion_ratio,
        num_voxels=len(tensors["coords"]),
        feature_channels=FEATURE_CHANNELS,
        parameters=asdict(parameters),
    )
    write_clip(root, record, tensors)
    return record


def _failure(entry: AssetEntry, clip_name: str | None, error: Exception) -> Failure:
    return Failure(entry.object_id, clip_name, f"{type(error).__name__}: {error}", traceback.format_exc())


def _limit_threads() -> None:
    import torch

    torch.set_num_threads(1)
