"""File names for assets and clips: readable, safe everywhere, and different for different ids."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

MAX_LENGTH = 120  # of a name: file systems allow 255 bytes, of which a clip's name and endings take a part


def safe_name(identifier: str) -> str:
    """`/` becomes `__`, any character outside `A-Za-z0-9._+-` becomes `_`; a long name is cut and gets a hash."""
    name = re.sub(r"[^A-Za-z0-9._+-]", "_", identifier.replace("/", "__"))
    return name if len(name) <= MAX_LENGTH else with_hash(name[: MAX_LENGTH - 9], identifier)


def safe_names(identifiers: Sequence[str]) -> list[str]:
    """A name for each of `identifiers` (all different): where two would share one, both get a hash."""
    names = [safe_name(identifier) for identifier in identifiers]
    shared = Counter(name.lower() for name in names)  # some file systems do not tell a from A
    return [
        with_hash(name, identifier) if shared[name.lower()] > 1 else name
        for name, identifier in zip(names, identifiers, strict=True)
    ]


def with_hash(name: str, identifier: str) -> str:
    """`name-<8 hex digits>` of the identifier's SHA-256."""
    return f"{name}-{hashlib.sha256(identifier.encode()).hexdigest()[:8]}"
