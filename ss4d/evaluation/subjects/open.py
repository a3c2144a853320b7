"""Opening the data set of a protocol."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ss4d.evaluation.protocol import Protocol
from ss4d.evaluation.subjects.frame_folders import Consistent4DSubjects, DavisSubjects
from ss4d.evaluation.subjects.prepared import PreparedSubjects
from ss4d.evaluation.subjects.subject import SubjectSet

KINDS: dict[str, Callable[[Protocol, Path], SubjectSet]] = {
    "prepared": PreparedSubjects,
    "consistent4d": Consistent4DSubjects,
    "davis": DavisSubjects,
}


def open_subjects(protocol: Protocol, root: Path) -> SubjectSet:
    """The objects of `protocol` in the data set at `root`.

    Raises:
        ValueError: no such data set, or an object that it lacks.
    """
    if not root.is_dir():
        raise ValueError(f"There is no data set of protocol {protocol.name} at {root}: name its folder with data=DIR.")
    subjects = KINDS[protocol.dataset](protocol, root)
    subjects.names()  # a missing object is named before anything is computed
    return subjects
