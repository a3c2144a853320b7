"""Files with something wrong: cut short, bits flipped, or a value of their JSON or YAML replaced."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterator
from typing import Any

HEADER = 400  # bytes, in which damage does most
# In place of a value: another sign, huge counts, no number, another type.
WRONG: tuple[Any, ...] = (-1, 0, 1, 2**31 - 1, 10**12, 1e308, float("nan"), -0.5, "x", "", None, [], {}, True, 99999)
JSON_CHUNK = 0x4E4F534A


def damaged(content: bytes, seed: int) -> bytes:
    """Cut short, or with bits flipped in the header or anywhere."""
    draw = random.Random(seed)
    kind, changed = seed % 3, bytearray(content)
    if kind == 0:
        return content[: draw.randrange(len(content))]
    for _ in range(draw.choice([1, 4, 16])):
        changed[draw.randrange(min(len(changed), HEADER) if kind == 1 else len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def with_wrong_values(content: Any, seed: int) -> Any:
    """A copy of JSON or YAML content in which one value or three are replaced."""
    draw, copy = random.Random(seed), json.loads(json.dumps(content))
    for _ in range(draw.choice([1, 1, 3])):
        *places, last = draw.choice([path for path in _paths(copy) if path])
        holder = copy
        for place in places:
            holder = holder[place]
        holder[last] = draw.choice(WRONG)
    return copy


def damaged_glb(content: bytes, seed: int) -> bytes:
    """Damage of every kind: of the whole file, of its JSON and of its numbers."""
    kind, (length,) = seed % 3, struct.unpack("<I", content[12:16])
    head, text, rest = content[:20], content[20 : 20 + length], content[20 + length :]
    if kind == 0:
        return damaged(content, seed // 3)
    if kind == 1:
        return head + text + damaged(rest, 3 * seed + 2)
    text = json.dumps(with_wrong_values(json.loads(text), seed)).encode()
    text += b" " * (-len(text) % 4)
    return head[:8] + struct.pack("<III", 20 + len(text) + len(rest), len(text), JSON_CHUNK) + text + rest


def _paths(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Places of all values in nested mappings and lists."""
    if path:
        yield path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for place, value in items:
        yield from _paths(value, (*path, place))
