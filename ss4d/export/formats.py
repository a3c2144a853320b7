"""The formats that a result can be exported to, and the packages that they need. Nothing here loads torch."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Format:
    """A format and what `--help` says of it."""

    name: str  # what follows --to
    output: str  # below RESULT/exports; a name without a suffix is a folder with one file for each frame
    summary: str
    options: tuple[str, ...] = ()  # of the command, that it takes
    packages: dict[str, str] = field(default_factory=dict)  # module -> what pip installs, where optional

    def require(self) -> None:
        """ValueError, with the command that installs them, where packages are missing."""
        missing = [package for module, package in self.packages.items() if importlib.util.find_spec(module) is None]
        if missing:
            names = " ".join(f"'{name}'" if ">" in name else name for name in missing)
            raise ValueError(f"The export to {self.name} needs packages that are not installed: pip install {names}")


FORMATS = {
    each.name: each
    for each in (
        Format("spz", "spz", "SPZ, one small file a frame", packages={"gsply": "gsply"}),
        Format(
            "mesh",
            "mesh.glb",
            "surface with vertex colours, one animated GLB",
            ("faces", "grid"),
            {"skimage": "scikit-image", "fast_simplification": "fast-simplification"},
        ),
        Format("gltf", "gltf", "glTF KHR_gaussian_splatting, one GLB a frame"),
    )
}
