"""What a result was made of, by content: two results are of the same things where these hashes agree."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from ss4d.files import content_hash
from ss4d.models.folder import PipelineFolder, fetch


def files_hash(files: Iterable[Path]) -> str:
    """SHA-256 over the names of files, relative to the folder that they share, and their contents.

    Raises:
        ValueError: one of them cannot be read.
    """
    digest = hashlib.sha256()
    found = sorted(files)
    root = os.path.commonpath([path.parent for path in found]) if found else ""
    for path in found:
        try:
            digest.update(f"{path.relative_to(root).as_posix()} {content_hash([path])}\n".encode())
        except OSError as error:
            raise ValueError(f"{path} cannot be read ({error.strerror}).") from error
    return digest.hexdigest()


def checkpoint_hash(source: str) -> str:
    """SHA-256 over pipeline.json and the configs and weights of all models that it names, on disk or on the Hub."""
    models: dict[str, str] = PipelineFolder.open(source).args["models"]
    digest = hashlib.sha256(content_hash([fetch(source, "pipeline.json")]).encode())
    for name in sorted(models.values()):
        parts = name.split("/")  # inside the folder, or HUB_OWNER/HUB_NAME/path
        elsewhere = not parts[0].startswith("ckpts") and len(parts) > 2
        place, file = ("/".join(parts[:2]), "/".join(parts[2:])) if elsewhere else (source, name)
        digest.update(content_hash([fetch(place, f"{file}{suffix}") for suffix in (".json", ".safetensors")]).encode())
    return digest.hexdigest()
