"""Where the weights of pretrained networks come from, and their hashes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ss4d.files import content_hash
from ss4d.models.checkpoint import CheckpointError
from ss4d.models.folder import fetch


class MissingWeights(ValueError):
    """A network's weights are at none of the places given; the message names the file, in one sentence."""


@dataclass(frozen=True)
class WeightFile:
    """A file of weights and the SHA-256 of its content, which goes into every result."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class WeightSource:
    """A folder of weight files, a Hub repository with the same names, or neither."""

    folder: Path | None = None
    download: bool = False  # whether the Hub may be asked
    hub: str | None = None  # OWNER/NAME, for networks without a repository of their own

    def find(self, name: str, network: str | None = None) -> WeightFile:
        """The file `name`: from the folder where it is there, else from the Hub.

        Args:
            network: Hub id of a network that has a repository of its own, OWNER/NAME; in the folder its files are in
                NAME.

        Raises:
            MissingWeights: it is at neither.
        """
        tried = []
        if self.folder is not None:
            path = self.folder / (network.split("/")[-1] if network else "") / name
            if path.is_file():
                return weight_file(path)
            tried.append(f"at {path}")
        hub = network or self.hub
        if self.download and hub is not None:
            try:
                return weight_file(fetch(hub, name))
            except CheckpointError:
                tried.append(f"to be had from the Hub's {hub}")
        places = " nor ".join(tried) or "given"
        remedy = "put it into a folder and name that with weights=DIR"
        remedy += ", or say download=true" if hub is not None and not self.download else ""
        raise MissingWeights(f"{name}{f' of {network}' if network else ''} is not {places}: {remedy}.")


def weight_file(path: Path) -> WeightFile:
    """A file with its hash."""
    return WeightFile(path, content_hash([path]))
