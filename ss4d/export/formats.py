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


VIDEO = ("size", "path", "frames", "fps")
FORMATS = {
    each.name: each
    for each in (
        Format("spz", "spz", "SPZ, one small file a frame", packages={"gsply": "gsply"}),
        Format(
            "mesh",
            "mesh.glb",
            "surface with vertex colours, one animated GLB",
            ("faces", "grid", "fps"),
            {"skimage": "scikit-image", "fast_simplification": "fast-simplification"},
        ),
        Format("gltf", "gltf", "glTF KHR_gaussian_splatting, one GLB a frame"),
        Format(
            "usd", "clip.usdc", "USD ParticleField3DGaussianSplat, time samples", ("fps",), {"pxr": "usd-core>=26.3"}
        ),
        Format("orbit", "orbit.mp4", "H.264 video on white, any camera path", VIDEO),
        Format("webm", "alpha.webm", "VP9 video with alpha", VIDEO),
        Format("prores", "alpha.mov", "ProRes 4444 video with alpha", VIDEO),
    )
}
