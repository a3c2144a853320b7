"""OpenUSD: one ParticleField3DGaussianSplat (in the schemas from 26.03) whose values are sampled at each frame.

That a frame stands until the next is not kept in a file. Frames differ in their number of Gaussians, and USD does not
interpolate between arrays that differ in length, so most programs hold them all the same.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ss4d.export.axes import to_y_up
from ss4d.export.glb import to_linear
from ss4d.files import written_atomically
from ss4d.gaussians import GaussianSequence

REACH = 3.0  # standard deviations that the extent leaves around the centres


def write_usd(sequence: GaussianSequence, path: Path, fps: float) -> None:
    """Write a clip to a binary .usdc file, or to text where `path` ends in .usda; time codes count frames."""
    from pxr import Sdf, Usd, UsdGeom, UsdVol, Vt

    if path.suffix not in (".usdc", ".usda"):
        raise ValueError(f"USD is written as .usdc or .usda, but the path is {path}.")
    layer = Sdf.Layer.CreateAnonymous(path.suffix)
    stage = Usd.Stage.Open(layer)
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    stage.SetTimeCodesPerSecond(fps)
    stage.SetFramesPerSecond(fps)
    stage.SetStartTimeCode(0)
    stage.SetEndTimeCode(len(sequence) - 1)
    splats = UsdVol.ParticleField3DGaussianSplat.Define(stage, "/clip")
    stage.SetDefaultPrim(splats.GetPrim())
    prim = splats.GetPrim()
    prim.GetAttribute("radiance:sphericalHarmonicsDegree").Set(0)
    UsdGeom.Primvar(prim.GetAttribute("primvars:displayColor")).SetInterpolation(UsdGeom.Tokens.vertex)
    for time, frame in enumerate(sequence):
        g = to_y_up(frame)
        centres = g.xyz.numpy()
        margin = REACH * float(g.scale.max()) if len(g) else 0.0
        extent = np.stack([centres.min(0) - margin, centres.max(0) + margin]) if len(g) else np.zeros((2, 3))
        values = {
            "positions": Vt.Vec3fArray.FromNumpy(centres),
            # A quaternion lies in memory with its real part last.
            "orientations": Vt.QuatfArray.FromNumpy(np.roll(g.rotation.numpy(), -1, axis=1)),
            "scales": Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(g.scale.float().numpy())),
            "opacities": Vt.FloatArray.FromNumpy(np.ascontiguousarray(g.opacity[:, 0].float().numpy())),
            "radiance:sphericalHarmonicsCoefficients": Vt.Vec3fArray.FromNumpy(
                np.ascontiguousarray(g.sh[:, 0].float().numpy())
            ),
            "extent": Vt.Vec3fArray.FromNumpy(extent.astype(np.float32)),
            # For programs that draw points: linear, which is what USD takes a colour for that says nothing else.
            "primvars:displayColor": Vt.Vec3fArray.FromNumpy(to_linear(g.rgb.numpy()).astype(np.float32)),
        }
        for name, value in values.items():
            prim.GetAttribute(name).Set(value, time)
    with written_atomically(path) as temporary:
        named = temporary.with_suffix(path.suffix)  # USD goes by the suffix
        try:
            if not layer.Export(str(named)):
                raise OSError(f"{path} could not be written")
            named.rename(temporary)
        finally:
            named.unlink(missing_ok=True)
