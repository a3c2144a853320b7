"""Mappings inside mappings, by dotted keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """All that is no mapping, with its dotted key: {"a": {"b": 1}} has ("a.b", 1)."""
    if not isinstance(value, Mapping):
        yield key, value
        return
    for name, item in value.items():
        yield from leaves(item, f"{key}.{name}" if key else str(name))
