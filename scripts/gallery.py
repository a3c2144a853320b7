"""Pictures of results, as the README shows them: `python scripts/gallery.py CLIP OUT.webp [--refine]`.

A row for each of four moments: the input, then the result from four sides. `--turntable` instead makes a moving
picture: left the clip, right the result from a camera that goes around it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from ss4d.result import Generation

ROOT = Path(__file__).parents[1]
MOMENTS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("out", type=Path, help="a .webp file")
    parser.add_argument("--model", default=str(ROOT / "checkpoints/ss4d-tiny"))
    parser.add_argument("--num-frames", type=int, default=8)
    parser.add_argument("--size", type=int, default=144, help="side of a panel, pixels")
    parser.add_argument("--refine", action="store_true")
    parser.add_argument("--turntable", action="store_true")
    options = parser.parse_args()

    from PIL import Image

    from ss4d import SS4DPipeline, load_video
    from ss4d.files import written_atomically

    clip = load_video(options.clip, num_frames=options.num_frames)
    result = SS4DPipeline.from_pretrained(options.model).run(clip, refine=options.refine, progress=True)
    pictures = turntable(result, options.size) if options.turntable else [sheet(result, options.size)]
    first, *others = map(Image.fromarray, pictures)
    with written_atomically(options.out) as temporary:
        first.save(temporary, "WEBP", quality=80, method=6, save_all=bool(others), append_images=others, duration=60)


def sheet(result: Generation, size: int) -> np.ndarray:
    """uint8 [4 * size, 5 * size, 3]."""
    import numpy as np

    from ss4d.visualize import compare_video

    orbit, last = result.orbit, len(result.gaussians) - 1
    rows = list(compare_video(result.rgba, result.gaussians, size=size, elevation=orbit.elevation, orbit=orbit))
    return np.concatenate([rows[round(last * row / (MOMENTS - 1))] for row in range(MOMENTS)])


def turntable(result: Generation, size: int) -> list[np.ndarray]:
    """Pictures uint8 [size, 2 * size, 3]."""
    import numpy as np
    import torch

    from ss4d.compositing import over_background
    from ss4d.video import cropped_frames
    from ss4d.visualize import orbit_order, render_orbit, to_uint8

    clip, order = cropped_frames(result.rgba, size), orbit_order(len(result.gaussians))
    left = [to_uint8(over_background(torch.from_numpy(clip[number].copy()), torch.ones(3))) for number in order]
    views = render_orbit(result.gaussians, size, orbit=result.orbit)
    return [np.concatenate(pair, axis=1) for pair in zip(left, views, strict=True)]


if __name__ == "__main__":
    main()
