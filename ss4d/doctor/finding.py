"""One line of the doctor's report."""

from __future__ import annotations

from dataclasses import dataclass

OK, MISSING, BROKEN, NOTE = "ok", "missing", "BROKEN", "note"
GIB, MIB = 2**30, 2**20


@dataclass
class Finding:
    """One line of the report."""

    section: str
    name: str
    state: str  # OK, MISSING (optional), NOTE, or BROKEN: the next run would fail
    detail: str
    advice: str = ""  # what to do


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
