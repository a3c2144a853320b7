"""SPZ by Niantic: about 16 bytes a Gaussian before compression, y up (right, up, back) by its specification."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np

from ss4d.export.axes import to_y_up
from ss4d.files import written_atomically
from ss4d.gaussians import Gaussians
from ss4d.gaussians.ply import OPACITY_MARGIN, SCALE_MIN

POSITION_BITS = 16  # of 24 behind the binary point: steps of 1.5e-5, up to 128 world units from the origin
FLAGS = 14  # the header's byte of flags
ANTIALIASED = 1  # the flag that opacities count on a compensated screen filter, as those of mip-splatting do


def write_spz(gaussians: Gaussians, path: Path) -> None:
    """Write Gaussians to an .spz file of version 3.

    `gsply` takes axes as they are, and writes no flags; the renderer's own screen filter is not in the format.
    """
    import gsply
    from gsply.spz import write_spz as encode

    g = to_y_up(gaussians)
    opacity = g.opacity[:, 0].double().numpy().clip(OPACITY_MARGIN, 1 - OPACITY_MARGIN)
    data = gsply.GSData.from_arrays(
        means=g.xyz.numpy(),
        scales=np.log(g.scale.numpy().clip(SCALE_MIN)),
        quats=g.rotation.numpy(),
        opacities=(np.log(opacity) - np.log1p(-opacity)).astype(np.float32),
        sh0=g.sh[:, 0].float().numpy(),
        format="ply",
    )
    with written_atomically(path) as temporary:
        encode(temporary, data, version=3, fractional_bits=POSITION_BITS)
        content = bytearray(gzip.decompress(temporary.read_bytes()))
        content[FLAGS] |= ANTIALIASED
        temporary.write_bytes(gzip.compress(content, 9, mtime=0))
