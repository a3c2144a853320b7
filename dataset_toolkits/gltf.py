"""glTF files as files: their JSON, and what they refer to. Needs nothing but Python: Blender's reads it too."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any
from urllib.parse import unquote

GLB_MAGIC = b"glTF"
JSON_CHUNK = b"JSON"


def read_document(path: Path) -> dict[str, Any]:
    """The JSON of a .gltf or .glb file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged.
    """
    with open(path, "rb") as file:
        head = file.read(20)
        if head[:4] != GLB_MAGIC:
            return json.loads(path.read_text("utf-8"))
        if len(head) < 20:
            raise ValueError(f"its header has {len(head)} bytes instead of 20")
        _, _, length, chunk_length, chunk_type = struct.unpack("<4sIII4s", head)
        if chunk_type != JSON_CHUNK:
            raise ValueError("the first chunk is not JSON")
        if length > path.stat().st_size:
            raise ValueError(f"{path.stat().st_size} bytes instead of {length}")
        return json.loads(file.read(chunk_length))


def references(path: Path) -> list[Path]:
    """Buffers and images that a file refers to, in its order; no path for what lies inside it.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged.
    """
    try:
        document = read_document(path)
        parts = [*document.get("buffers", []), *document.get("images", [])]
        names = [part["uri"] for part in parts if not part.get("uri", "data:").startswith("data:")]
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not glTF: {error}") from error
    return [path.parent / unquote(name) for name in names]
