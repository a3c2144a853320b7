"""Background removal for clips that have no alpha, no masks and no uniform background, by a matting model of rembg.

rembg (MIT) is the extra `matting`. Its models see one picture at a time, so that their masks flicker; `steady_masks`
mends that. The default, BiRefNet-lite, is MIT too; rembg's own default model is not for commercial use.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image
from tqdm import tqdm

from ss4d.files import use_writable_numba_cache
from ss4d.video.errors import ForegroundError

DEFAULT_MODEL = "birefnet-general-lite"
MEGABYTES = {"birefnet-general-lite": 224, "birefnet-general": 973, "u2net": 176, "u2netp": 5}  # of their files
INSTALL = "pip install -e '.[matting]'"


class MattingSession(Protocol):
    """rembg's session: a loaded model."""

    def predict(self, img: Image.Image) -> list[Image.Image]:
        """Masks, mode "L" and the size of the picture; the first one is the foreground's."""
        ...


def remove_background(
    frames: np.ndarray, model: str = DEFAULT_MODEL, session: MattingSession | None = None, progress: bool = True
) -> np.ndarray:
    """Make transparent what is not the most prominent object.

    Args:
        frames: uint8 [T, H, W, 3].
        model: a model of rembg; it is fetched once and kept (`~/.rembg`, or `$REMBG_HOME`).
        session: a loaded model in place of `model`.
        progress: show a bar.

    Returns:
        uint8 [T, H, W, 4], not premultiplied.

    Raises:
        ForegroundError: rembg is not installed, there is no such model, or it cannot be fetched.
    """
    from ss4d.video.steady import steady_masks

    session = session or open_session(model)
    bar = tqdm(frames, desc="removing the background", unit="frame", disable=not progress)
    masks = np.stack([_predict(session, frame) for frame in bar])
    return np.concatenate([frames, steady_masks(masks, frames)[..., None]], axis=-1)


def _predict(session: MattingSession, frame: np.ndarray) -> np.ndarray:
    """uint8 [H, W] of one frame [H, W, 3]."""
    mask = session.predict(Image.fromarray(frame))[0].convert("L")
    if mask.size != (frame.shape[1], frame.shape[0]):
        mask = mask.resize((frame.shape[1], frame.shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(mask)


def open_session(model: str = DEFAULT_MODEL) -> MattingSession:
    """Load a model of rembg; what has to be fetched first is said, with its size.

    Raises:
        ForegroundError: as for `remove_background`.
    """
    use_writable_numba_cache()  # for what rembg compiles when it is imported
    try:
        rembg: Any = importlib.import_module("rembg")
    except (ImportError, SystemExit) as error:  # rembg exits where onnxruntime is missing
        raise ForegroundError(
            "The background is not one colour, and removing it needs the package rembg: run"
            f" {INSTALL}, or pass masks of the object (--mask DIR) or RGBA images."
        ) from error
    folder = _missing_in(rembg, model)
    size = f"{MEGABYTES[model]} MB" if model in MEGABYTES else "of unknown size"
    if folder is not None:
        print(f"Fetching the matting model {model} ({size}) to {folder}, once.", file=sys.stderr, flush=True)
    try:
        return rembg.new_session(model)
    except ValueError as error:
        raise ForegroundError(f"rembg has no matting model {model!r} ({error}); try {DEFAULT_MODEL}.") from error
    except OSError as error:  # requests' errors are of this kind
        where = f" into {folder}" if folder is not None else ""
        raise ForegroundError(
            f"The matting model {model} ({size}) cannot be fetched or read ({type(error).__name__}): connect this"
            f" machine once, put {model}.onnx{where}, or pass masks of the object (--mask DIR)."
        ) from error


def _missing_in(rembg: Any, model: str) -> Path | None:
    """The folder that a model will be fetched to; None where it is there already, or is not fetched."""
    classes = getattr(getattr(rembg, "sessions", None), "sessions_class", ())
    session = next((found for found in classes if found.name() == model), None)
    if session is None:
        return None
    if hasattr(session, "resolve_existing"):
        return None if session.resolve_existing(f"{model}.onnx") else Path(session.model_dir())
    folder = Path(session.u2net_home())  # rembg before 2.0.80
    return None if (folder / f"{model}.onnx").is_file() else folder
