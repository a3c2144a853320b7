"""An object of an evaluation: what a method is given, and the truth it is compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol as Interface

from torch import Tensor

from ss4d.cameras import Camera
from ss4d.evaluation.protocol import Protocol


@dataclass
class Subject:
    """One clip of one object."""

    name: str
    video: Tensor  # uint8 [T, H, W, 4], the input: RGBA, straight alpha
    input_camera: Camera  # that saw the input
    cameras: list[Camera]  # the V evaluation views
    views: Tensor | None  # uint8 [V, T, S, S, 4], what they truly see; None where nobody knows
    voxels: Tensor | None  # bool [T, R, R, R], the true surface; None where nobody knows

    @property
    def frames(self) -> int:
        """T."""
        return len(self.video)


class SubjectSet(Interface):
    """The objects of a data set that a protocol names."""

    def names(self) -> list[str]:
        """Of all objects, in a fixed order; `/` may occur."""
        ...

    def load(self, name: str) -> Subject:
        """Read one object.

        Raises:
            ValueError: its files are missing or damaged, named.
        """
        ...


def open_subjects(protocol: Protocol, root: Path) -> SubjectSet:
    """The objects of `protocol` in the data set at `root`.

    Raises:
        ValueError: no such data set, or an object that it lacks.
    """
    from ss4d.evaluation.frame_folders import Consistent4DSubjects, DavisSubjects
    from ss4d.evaluation.prepared_subjects import PreparedSubjects

    if not root.is_dir():
        raise ValueError(f"There is no data set of protocol {protocol.name} at {root}: name its folder with data=DIR.")
    kinds: dict[str, Callable[[Protocol, Path], SubjectSet]]
    kinds = {"prepared": PreparedSubjects, "consistent4d": Consistent4DSubjects, "davis": DavisSubjects}
    subjects = kinds[protocol.dataset](protocol, root)
    subjects.names()  # a missing object is named before anything is computed
    return subjects


def file_name(name: str) -> str:
    """An object's name as part of a path."""
    return name.replace("/", "__")
