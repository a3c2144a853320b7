"""Small data sets and results for tests of the evaluation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file
from tiny import CHANNELS, RESOLUTION

from dataset_toolkits.engine.records import write_table
from ss4d.data.format import CHANNELS as CHANNELS_KEY
from ss4d.data.format import SIMILARITIES, Cube, read_table
from ss4d.data.turns import turn_coords, turn_extrinsics, turn_features
from ss4d.evaluation.protocol import Protocol, make_protocol
from ss4d.evaluation.results import Result, protocol_folder, result_folder, write_result
from ss4d.evaluation.subjects.subject import Subject

SIZE, FRAMES = 32, 3
# Options of `scripts.eval run` for a set of `tiny.write_clips`.
SMALL = [
    *("protocol=ss4d_assets", "protocol.split=train", "protocol.size=32", "protocol.crop_size=32"),
    *(f"protocol.voxel_resolution={RESOLUTION}", "protocol.figure_views=[0]", "protocol.figure_frames=[0]"),
]


def disc(frame: int, size: int = SIZE, shift: int = 0) -> NDArray[np.uint8]:
    """RGBA [size, size, 4]: a disc with a gradient, moving right with the frame."""
    y, x = np.mgrid[:size, :size]
    inside = (x - size // 2 - frame - shift) ** 2 + (y - size // 2) ** 2 < (size // 4) ** 2
    image = np.zeros((size, size, 4), np.uint8)
    image[inside] = np.stack([200 - 3 * x, 40 + 5 * y, 0 * x + 90, 0 * x + 255], axis=-1).astype(np.uint8)[inside]
    return image


def write_frames(folder: Path, size: int = SIZE, shift: int = 0, frames: int = FRAMES, suffix: str = ".png") -> None:
    """A video of the disc as image files 0.png, 1.png, ..."""
    folder.mkdir(parents=True)
    for frame in range(frames):
        Image.fromarray(disc(frame, size, shift)).save(folder / f"{frame}{suffix}")


def write_consistent4d(root: Path, objects: tuple[str, ...] = ("guppie", "skull")) -> Path:
    """A data set laid out as Consistent4D's."""
    for name in objects:
        write_frames(root / "input" / name)
        for view in range(2):
            write_frames(root / "gt" / name / f"eval_{view}", shift=view)
    return root


def write_davis(root: Path, sequences: tuple[str, ...] = ("bear", "dog")) -> Path:
    """A data set laid out as DAVIS at 480p: pictures with a background, and masks."""
    for name in sequences:
        pictures, masks = root / "JPEGImages" / "480p" / name, root / "Annotations" / "480p" / name
        pictures.mkdir(parents=True)
        masks.mkdir(parents=True)
        for frame in range(FRAMES):
            rgba = disc(frame)
            colour = np.where(rgba[..., 3:] > 0, rgba[..., :3], np.random.default_rng(frame).integers(255, size=3))
            Image.fromarray(colour.astype(np.uint8)).save(pictures / f"{frame:05d}.jpg", quality=95)
            mask = Image.fromarray((rgba[..., 3] > 0).astype(np.uint8), "P")
            mask.putpalette([0, 0, 0, 128, 0, 0])
            mask.save(masks / f"{frame:05d}.png")
    return root


def small_protocol(**changes: Any) -> Protocol:
    """Consistent4D's protocol at the size of these sets."""
    content: dict[str, Any] = {
        **{"name": "consistent4d", "title": "Consistent4D", "dataset": "consistent4d", "size": SIZE, "frames": 32},
        **{"views": {"azimuths": [0.0, 90.0]}, "crop_size": SIZE, "metrics": ["psnr", "ssim", "flickering"]},
        **{"figure_views": [0, 1], "figure_frames": [0, 2]},
    }
    return make_protocol(content | changes, "test")


def write_scored(out: Path, protocol: Protocol, method: str, psnr: dict[str, list[float]]) -> Path:
    """Results with given figures, one a seed of an object; returns the methods' folder."""
    folder = protocol_folder(out, protocol)
    picture = disc(0)[..., :3]
    for name, values in psnr.items():
        for seed, value in enumerate(values):
            result = Result(protocol.hash(), method, {}, name, seed, {"psnr": value}, {}, {})
            pictures = {f"view{view}_frame{frame}": picture for view in (0, 1) for frame in (0, 2)}
            video = np.stack([disc(frame)[..., :3] for frame in range(FRAMES)])
            write_result(result_folder(folder, method, name, seed), result, {}, pictures, video)
    return folder


def features(count: int, offset: float) -> torch.Tensor:
    """[N, 1, 4] with mean `offset`."""
    values = torch.randn(count, 1, 4)
    return values - values.mean(0) + offset


def psnr_of_pictures(folder: Path, subject: Subject) -> float:
    """Mean over views and frames of the PSNR of the pictures that a result kept, by the definition."""
    assert subject.views is not None
    found = []
    for view, frames in enumerate(subject.views.double().numpy()):
        for frame, rgba in enumerate(frames):
            alpha = rgba[..., 3:] / 255
            target = alpha * rgba[..., :3] / 255 + 1 - alpha
            error = np.asarray(Image.open(folder / f"view{view}_frame{frame}.png")) / 255 - target
            found.append(-10 * np.log10((error**2).mean()))
    return float(np.mean(found))


def into_cubes_of_videos(root: Path, turns: Sequence[int] = (1, 0)) -> Path:
    """Give a set of `tiny.write_clips` a cube of voxels for each conditioning video, the clip's own after so many
    quarter turns, as voxelize.frame=turned or view do."""
    for path in (root / "features").glob("*.safetensors"):
        tensors, made = load_file(path), {}
        coords, feats, counts = (getattr(Cube(), name)(RESOLUTION) for name in ("coords", "feats", "view_counts"))
        for view, turned in enumerate(turns):
            cube = Cube(view)
            made[cube.coords(RESOLUTION)] = turn_coords(tensors[coords], turned, RESOLUTION).contiguous()
            made[cube.feats(RESOLUTION)] = turn_features(tensors[feats], CHANNELS, turned)
            made[cube.view_counts(RESOLUTION)] = tensors[counts].clone()
        world = torch.eye(4, dtype=torch.float64)
        made[SIMILARITIES] = torch.stack([turn_extrinsics(world, -turned) for turned in turns])
        save_file(made, path, {CHANNELS_KEY: json.dumps(CHANNELS)})
    rows = [row | {"cubes": len(turns)} for row in read_table(root, "features")]
    write_table(root, "features", rows)
    return root


def scores(out: Path) -> dict[str, dict[str, Any]]:
    """Metrics of all results, by method and object."""
    return {
        "/".join(path.parts[-4:-2]): json.loads(path.read_text())["metrics"] for path in out.glob("*/*/*/*/result.json")
    }


def write_posed_boxes(root: Path) -> None:
    """Boxes of triangles that slide as the set's voxels do, in units of the asset."""
    (root / "pose").mkdir()
    rows = read_table(root, "curate")
    for row, side in zip(rows, (4, 6), strict=True):
        low, high = np.array([2, 5, 5]), np.array([2, 5, 5]) + side
        corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * (high - low) + low
        steps = np.arange(4)[:, None, None] * [1, 0, 0]
        vertices = (((corners + steps) / RESOLUTION - 0.5) * 10 + 3).astype(np.float32)  # the world is 10 wide
        faces = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
        triangles = np.array([[f[i] for i in part] for f in faces for part in ((0, 1, 2), (0, 2, 3))], np.int32)
        tensors = {"triangles": triangles, "vertices_0": vertices, "times_0": np.arange(4.0)}
        save_arrays(tensors, root / "pose" / f"{row['asset_id']}.safetensors", {"clips": json.dumps(["slide"])})
        row |= {"asset": row["asset_id"], "centre": [3.0] * 3, "scale": 0.1}
    write_table(root, "curate", rows)
