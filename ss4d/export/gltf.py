"""glTF with the extension KHR_gaussian_splatting as ratified: linear scales and opacities, quaternions (x, y, z, w).

Programs that do not know the extension show the centres as coloured points.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ss4d.export.axes import to_y_up
from ss4d.export.glb import POINTS, VERTICES, Glb, to_linear
from ss4d.gaussians import Gaussians

EXTENSION = "KHR_gaussian_splatting"


def write_gltf(gaussians: Gaussians, path: Path) -> None:
    """Write Gaussians to a .glb file, all values in float32."""
    g = to_y_up(gaussians)
    file = Glb()
    file.document |= {"extensionsUsed": [EXTENSION], "scene": 0}
    if not len(g):  # glTF has no empty primitives
        file.document["scenes"] = [{}]
        return file.write(path)
    colour = np.concatenate([to_linear(g.rgb.numpy()), g.opacity.numpy()], axis=1)
    attributes = {
        "POSITION": file.accessor(g.xyz.numpy(), VERTICES, bounds=True),
        "COLOR_0": file.accessor(np.rint(255 * colour.clip(0, 1)).astype(np.uint8), VERTICES, normalized=True),
        f"{EXTENSION}:ROTATION": file.accessor(np.roll(g.rotation.numpy(), -1, axis=1), VERTICES),
        f"{EXTENSION}:SCALE": file.accessor(g.scale.float().numpy(), VERTICES),
        f"{EXTENSION}:OPACITY": file.accessor(g.opacity[:, 0].float().numpy(), VERTICES),
        f"{EXTENSION}:SH_DEGREE_0_COEF_0": file.accessor(g.sh[:, 0].float().numpy(), VERTICES),
    }
    extension = {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}
    primitive = {"attributes": attributes, "mode": POINTS, "extensions": {EXTENSION: extension}}
    file.document |= {"scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}], "meshes": [{"primitives": [primitive]}]}
    file.write(path)
