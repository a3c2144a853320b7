"""Files of a checkpoint: from a local folder, or from a repository of the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from ss4d.config import did_you_mean
from ss4d.models.checkpoint import CheckpointError


def is_hub_id(source: str) -> bool:
    """Whether a text may be OWNER/NAME of a Hub repository, and no local path is meant."""
    return source.count("/") == 1 and not source.startswith((".", "/", "~"))


def fetch(source: str, file: str) -> Path:
    """A file of a local folder, or of a Hub repository (downloaded once, then cached).

    Raises:
        CheckpointError: naming what is not there.
    """
    folder = Path(source)
    if folder.is_dir():
        if not (folder / file).is_file():
            raise CheckpointError(f"the model folder {folder} has no {file}: check the path, or download it again")
        return folder / file
    if not is_hub_id(source):
        raise CheckpointError(f"there is no model folder {source}: pass an existing folder, or a Hub id OWNER/NAME")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(source, file))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        beside = [str(place) for place in folder.parent.glob("*/") if (place / file).is_file()]
        raise CheckpointError(
            f"{file} of '{source}' is neither a local folder's nor could it be fetched from the Hub ({reason}): "
            f"{did_you_mean(source, beside, 'check the name and the connection')}"
        ) from error
