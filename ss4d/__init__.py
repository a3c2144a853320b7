"""SS4D: native 4D generation from a monocular video via structured spacetime latents.

>>> import ss4d
>>> clip = ss4d.load_video("assets/demo.mp4", num_frames=2)
>>> pipeline = ss4d.SS4DPipeline.from_pretrained("checkpoints/ss4d-tiny")
>>> result = pipeline.run(clip, steps=2)
>>> result.save("outputs/mine", size=64)
PosixPath('outputs/mine')

Importing the package needs torch and numpy alone; what it offers is loaded when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ss4d.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from ss4d.pipeline import SS4DPipeline
    from ss4d.result import Generation
    from ss4d.video import Clip

__all__ = ["Generation", "SS4DPipeline", "__version__", "load_video"]

_HOMES = {"SS4DPipeline": "ss4d.pipeline", "Generation": "ss4d.result"}


def load_video(path: str | Path, num_frames: int | None = None, mask: str | Path | None = None) -> Clip:
    """Read a video (mp4, mov, webm, gif) or a folder of images, with its object's alpha.

    The object is found by `mask`, else by the alpha channel, else by keying a uniform background.

    >>> import ss4d
    >>> clip = ss4d.load_video("assets/demo.mp4", num_frames=4)
    >>> clip.frames.shape[0], clip.frames.shape[3], clip.frames.dtype
    (4, 4, dtype('uint8'))

    Args:
        num_frames: at most this many, spread evenly over the clip. None: all.
        mask: folder or video of masks, one for each frame.

    Returns:
        The clip, frames uint8 [T, H, W, 4], not premultiplied.

    Raises:
        ValueError: a clip that cannot be read, or an object that cannot be found; the message says what to do.
    """
    import dataclasses

    from ss4d.video import find_foreground, read_clip

    clip = read_clip(path, num_frames)
    return dataclasses.replace(clip, frames=find_foreground(clip, mask))


def __getattr__(name: str) -> Any:
    """Load a name on first use, so that `import ss4d` stays light."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'ss4d' has no attribute {name!r}")
