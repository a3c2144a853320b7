"""Results on disk: one folder per object and seed, written atomically.

`OUT/<protocol>-<first 8 of its hash>/<method>/<object>/seed<N>/` holds `result.json`, for FVD `features.safetensors`,
pictures `view<V>_frame<T>.png` of the protocol's figure views and frames, and `views.mp4`, those views side by side.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ss4d.evaluation.json_files import read_json, write_json
from ss4d.evaluation.protocol import Protocol
from ss4d.evaluation.subjects.subject import file_name
from ss4d.metrics.pretrained import read_tensors
from ss4d.video import write_video

REPORT, FEATURES, VIDEO = "result.json", "features.safetensors", "views.mp4"
FPS = 12.0  # of written videos
OLD_FEATURES = {"made": "prediction", "true": "target"}  # names in earlier results


@dataclass(frozen=True)
class Result:
    """One object and seed of one method."""

    protocol: str  # hash
    method: str
    identity: Mapping[str, Any]  # what the method was: checkpoint, its hash, settings
    object: str
    seed: int
    metrics: Mapping[str, float | None]
    weights: Mapping[str, str]  # SHA-256 of the networks' weights, by metric
    missing: Mapping[str, str]  # why a metric is None, where its weights were missing
    report: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)  # SHA-256 of the files it was made of
    frames: int | None = None  # of the clip; earlier results do not say
    assumptions: Mapping[str, str] = field(default_factory=dict)  # of the protocol (`Protocol.assumptions`)
    category: str | None = None  # of the object, where the data set knows it

    def is_long_enough(self, metric: str, protocol: Protocol) -> bool:
        """Whether the clip has the frames that the metric takes."""
        return self.frames is None or self.frames >= protocol.fewest_frames(metric)


def protocol_folder(out: Path, protocol: Protocol) -> Path:
    """Where all methods' results under a protocol lie."""
    return out / f"{protocol.name}-{protocol.hash()[:8]}"


def result_folder(methods: Path, method: str, name: str, seed: int) -> Path:
    """Where one result lies."""
    return methods / method / file_name(name) / f"seed{seed}"


def check_label(label: str) -> None:
    """ValueError for a label that is not the name of a folder."""
    if label != Path(label).name or label.startswith(".") or "\\" in label:
        raise ValueError(f"label={label} names a folder of results: leave out /, \\ and leading dots.")


def write_result(
    folder: Path,
    result: Result,
    features: Mapping[str, Tensor],
    pictures: Mapping[str, NDArray[np.uint8]],
    video: NDArray[np.uint8] | None,
) -> None:
    """Write everything under a temporary name, then rename it; where another process was faster, its result stays.

    Args:
        features: for FVD, see `read_features`.
        pictures: [S, S, 3] by name.
        video: [T, S, W, 3].
    """
    from PIL import Image
    from safetensors.torch import save_file

    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        if features:
            save_file({name: value.contiguous() for name, value in features.items()}, unfinished / FEATURES)
            os.chmod(unfinished / FEATURES, 0o644)  # safetensors makes files that are their owner's alone
        for name, image in pictures.items():
            Image.fromarray(image).save(unfinished / f"{name}.png")
        if video is not None:
            write_video(unfinished / VIDEO, video, FPS)
        write_json(unfinished / REPORT, dataclasses.asdict(result))
        os.chmod(unfinished, 0o755)
        try:
            os.rename(unfinished, folder)
        except OSError:
            if not (folder / REPORT).is_file():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def failure_path(folder: Path) -> Path:
    """Where it is kept why a result, whose folder would be this, could not be made."""
    return folder.with_name(f"{folder.name}_failed.txt")


def write_failure(folder: Path, sentence: str) -> None:
    """Keep why a result could not be made, so that tables count it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    failure_path(folder).write_text(f"{sentence}\n", encoding="utf-8")


def failed_objects(methods: Path, method: str) -> set[str]:
    """Names, as those of folders, of the objects that a method has failed at with any seed."""
    return {path.parent.name for path in (methods / method).glob("*/seed*_failed.txt")}


def read_result(folder: Path, protocol: Protocol) -> Result:
    """Read a result.

    Raises:
        ValueError: it is damaged, or was made by another protocol; the file is named.
    """
    path = folder / REPORT
    try:
        content = read_json(path)
        numbers = {name: None if value is None else float(value) for name, value in content["metrics"].items()}
        result = Result(**{**content, "metrics": numbers})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete {folder} and run the evaluation again.") from error
    check_hash(result.protocol, protocol, result.object, path)
    return result


def check_hash(found: str, protocol: Protocol, name: str, path: Path) -> None:
    """ValueError where a result's protocol hash is another than the protocol's."""
    if found != protocol.hash():
        raise ValueError(
            f"{name}: {path} was made by protocol hash {found[:8] or 'none'}, but {protocol.name} is "
            f"{protocol.hash()[:8]} now: make it again, or evaluate with its protocol."
        )


def read_method(methods: Path, method: str, protocol: Protocol) -> list[Result]:
    """All results of a method under a protocol, sorted by object and seed."""
    found = [read_result(path.parent, protocol) for path in (methods / method).glob(f"*/seed*/{REPORT}")]
    return sorted(found, key=lambda result: (result.object, result.seed))


def read_features(methods: Path, result: Result) -> dict[str, Tensor]:
    """Features for FVD, "prediction" and "target" [V, t, D]; empty where the network was missing."""
    path = result_folder(methods, result.method, result.object, result.seed) / FEATURES
    stored = read_tensors(path) if path.exists() else {}
    return {OLD_FEATURES.get(name, name): value for name, value in stored.items()}
