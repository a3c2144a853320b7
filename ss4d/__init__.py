"""SS4D: native 4D generation from a monocular video via structured spacetime latents.

Importing the package needs torch and numpy alone; the pipeline is loaded when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ss4d.pipeline import SS4DPipeline

__version__ = "0.1.0"
__all__ = ["SS4DPipeline", "__version__"]


def __getattr__(name: str) -> Any:
    """Load `SS4DPipeline` on first use, so that `import ss4d` stays light."""
    if name == "SS4DPipeline":
        from ss4d.pipeline import SS4DPipeline

        return SS4DPipeline
    raise AttributeError(f"module 'ss4d' has no attribute {name!r}")
