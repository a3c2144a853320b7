"""JSON files of results, which other programs can read too: JSON knows no infinity and no NaN."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ss4d.files import written_atomically


def read_json(path: Path) -> Any:
    """The content of a file.

    Raises:
        ValueError: it cannot be read or is not JSON, named.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise ValueError(f"{path} is damaged, it is not JSON ({error}): delete it or make it again.") from error


def write_json(path: Path, content: Any) -> None:
    """Write a file atomically; infinite numbers become "inf" or "-inf", NaN null."""
    with written_atomically(path) as temporary:
        temporary.write_text(json.dumps(plain(content), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def plain(content: Any) -> Any:
    """The same with numbers that JSON knows."""
    if isinstance(content, dict):
        return {key: plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [plain(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None if math.isnan(content) else str(content)
    return content
