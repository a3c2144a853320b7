"""Pictures of results: turntables, fixed views, the input beside its novel views, and voxels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ss4d.cameras import Camera, Orbit
from ss4d.compositing import over_background
from ss4d.cube import voxel_centres
from ss4d.gaussians import Gaussians, GaussianSequence, rasterize
from ss4d.video import cropped_frames

MIN_ORBIT_FRAMES = 48
SUPERSAMPLING = 2  # voxels are drawn this much larger and averaged down
# Low to high: colours of voxels without their own.
HEIGHT_COLOURS = np.array([[0.26, 0.35, 0.65], [0.18, 0.60, 0.70], [0.47, 0.78, 0.46], [0.98, 0.82, 0.34]])
FACE_NORMALS = np.array([[-1, 0, 0], [1, 0, 0], [0, -1, 0], [0, 1, 0], [0, 0, -1], [0, 0, 1]])  # outward
LIGHT = np.array([-0.38, -0.78, -0.5])  # towards the light, in camera axes: from the upper left, behind the viewer
AMBIENT = 0.6
EDGE_SHADE = 0.85  # of a face's own colour


def render_views(
    sequence: GaussianSequence,
    azimuths: Sequence[float],
    elevation: float = 15.0,
    size: int = 256,
    orbit: Orbit | None = None,
) -> Iterator[np.ndarray]:
    """Every frame from fixed cameras, on white.

    Args:
        sequence: T frames of Gaussians.
        azimuths: V camera azimuths, degrees; 0 is the front.
        elevation: of all cameras, degrees.
        size: side of the images, pixels.
        orbit: distance and field of view of the cameras; None: `Orbit()`.

    Returns:
        T frames as they are rendered, uint8 [V, size, size, 3].
    """
    cameras = [(orbit or Orbit()).camera(azimuth, elevation) for azimuth in azimuths]
    return (np.stack([_render(frame, camera, size) for camera in cameras]) for frame in sequence)


def render_orbit(
    sequence: GaussianSequence,
    size: int = 512,
    num_frames: int | None = None,
    elevation: float = 15.0,
    orbit: Orbit | None = None,
) -> Iterator[np.ndarray]:
    """A turntable through time: the camera turns while the clip plays forwards and backwards, on white.

    Args:
        sequence: T frames of Gaussians.
        size: side of the images, pixels.
        num_frames: F; by default the fewest from 48 up with which the result loops without a jump.
        elevation: of the camera, degrees.
        orbit: its distance and field of view; None: `Orbit()`.

    Returns:
        F pictures as they are rendered, uint8 [size, size, 3].

    Raises:
        ValueError: the sequence is empty.
    """
    if not len(sequence):
        raise ValueError("There is nothing to render: the sequence has no frames.")
    order = orbit_order(len(sequence), num_frames)
    orbit = orbit or Orbit()
    cameras = [orbit.camera(360.0 * step / len(order), elevation) for step in range(len(order))]
    return (_render(sequence[number], camera, size) for number, camera in zip(order, cameras, strict=True))


def orbit_order(count: int, num_frames: int | None = None) -> list[int]:
    """Which of `count` frames each of the F frames of `render_orbit` shows."""
    there_and_back = [*range(count), *range(count - 2, 0, -1)]
    if num_frames is None:
        num_frames = -(-MIN_ORBIT_FRAMES // len(there_and_back)) * len(there_and_back)
    return [there_and_back[step % len(there_and_back)] for step in range(num_frames)]


def compare_video(
    input_rgba: np.ndarray,
    sequence: GaussianSequence,
    azimuths: Sequence[float] = (0.0, 90.0, 180.0, 270.0),
    size: int = 256,
    elevation: float = 15.0,
    orbit: Orbit | None = None,
) -> Iterator[np.ndarray]:
    """The input clip, cropped to its object, beside labelled views of the result, on white.

    Args:
        input_rgba: uint8 [T, H, W, 4], not premultiplied.
        sequence: T frames of Gaussians.
        azimuths, elevation, orbit: of V cameras, as for `render_views`.
        size: side of each panel, pixels.

    Returns:
        T pictures as they are rendered, uint8 [size, (1 + V) * size, 3].

    Raises:
        ValueError: the clip and the sequence differ in length; ForegroundError as for `clip_crop_box`.
    """
    if len(input_rgba) != len(sequence):
        raise ValueError(
            f"The input has {len(input_rgba)} frames and the result {len(sequence)}; pass the same frames."
        )
    labels = ["input", *(f"{azimuth:g}°" for azimuth in azimuths)]

    def picture(cropped: np.ndarray, views: np.ndarray) -> np.ndarray:
        seen = to_uint8(over_background(torch.from_numpy(cropped.copy()), torch.ones(3)))
        return np.concatenate([_label(*panel) for panel in zip([seen, *views], labels, strict=True)], axis=1)

    return map(picture, cropped_frames(input_rgba, size), render_views(sequence, azimuths, elevation, size, orbit))


def render_voxels(
    voxels: Sequence[np.ndarray | Tensor],
    resolution: int,
    size: int = 256,
    azimuth: float = 30.0,
    elevation: float = 20.0,
    colours: Sequence[np.ndarray | Tensor] | None = None,
    orbit: Orbit | None = None,
) -> Iterator[np.ndarray]:
    """Occupied voxels as shaded cubes from one camera, on white.

    Args:
        voxels: for each of T frames integers [N, 3] in 0 .. resolution - 1, unique; N may be 0.
        resolution: voxels along one side of the cube [-0.5, 0.5]^3.
        size: side of the images, pixels.
        azimuth, elevation: of the camera, degrees.
        colours: for each frame [N, 3] in [0, 1]; by height if None.
        orbit: distance and field of view of the camera; None: `Orbit()`.

    Returns:
        T pictures as they are drawn, uint8 [size, size, 3].

    Raises:
        ValueError: voxels outside the grid, when their frame is drawn.
    """
    camera = (orbit or Orbit()).camera(azimuth, elevation)
    for index, frame in enumerate(voxels):
        coords = np.asarray(frame, dtype=np.int64).reshape(-1, 3)
        if coords.size and (coords.min() < 0 or coords.max() >= resolution):
            found = f"{coords.min()} .. {coords.max()}"
            raise ValueError(f"Voxels must lie in 0 .. {resolution - 1}, but frame {index} spans {found}.")
        rgb = _height_colours(coords, resolution) if colours is None else np.asarray(colours[index])
        yield _draw_cubes(coords, rgb, resolution, size, camera)


@torch.inference_mode()
def _render(gaussians: Gaussians, camera: Camera, size: int) -> np.ndarray:
    """uint8 [size, size, 3]."""
    return to_uint8(rasterize(gaussians, camera, size).colour)


def to_uint8(images: Tensor) -> np.ndarray:
    """Pictures [..., 3, H, W], clamped to [0, 1] -> uint8 [..., H, W, 3]."""
    return (255 * images.clamp(0, 1)).round().byte().movedim(-3, -1).cpu().numpy()


def _label(picture: np.ndarray, text: str) -> np.ndarray:
    """A picture [H, W, 3] with a small text in its upper left corner."""
    size = max(10, len(picture) // 18)
    image = Image.fromarray(picture)
    ImageDraw.Draw(image).text((size // 2, size // 2), text, fill=(90, 90, 90), font=_font(size))
    return np.asarray(image)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _height_colours(coords: np.ndarray, resolution: int) -> np.ndarray:
    height = (coords[:, 2] + 0.5) / resolution
    stops = np.linspace(0, 1, len(HEIGHT_COLOURS))
    return np.stack([np.interp(height, stops, channel) for channel in HEIGHT_COLOURS.T], axis=-1)


def _draw_cubes(coords: np.ndarray, rgb: np.ndarray, resolution: int, size: int, camera: Camera) -> np.ndarray:
    """uint8 [size, size, 3] by the painter's algorithm over the faces that are free and turned to the camera.

    On a lattice, a cube further from the eye in the 1-norm never hides a nearer one, so one sort is enough.
    """
    rotation, translation = (
        camera.extrinsics[:3, :3].double().numpy(),
        camera.extrinsics[:3, 3].double().numpy(),
    )
    eye = camera.centre.double().numpy()
    centres = voxel_centres(coords, resolution)

    occupied = np.zeros([resolution + 2] * 3, dtype=bool)
    occupied[tuple(coords.T + 1)] = True
    neighbours = coords[:, None] + FACE_NORMALS + 1
    free = ~occupied[tuple(np.moveaxis(neighbours, -1, 0))]
    towards = ((eye - centres)[:, None] * FACE_NORMALS).sum(axis=-1) > 0.5 / resolution
    cube, face = np.nonzero(free & towards)
    order = np.argsort(-np.abs(centres - eye).sum(axis=-1)[cube], kind="stable")
    cube, face = cube[order], face[order]

    corners = centres[cube, None] + _face_corners()[face] / resolution
    pixels = corners @ rotation.T + translation
    pixels = pixels @ camera.intrinsics.double().numpy().T
    pixels = pixels[..., :2] / pixels[..., 2:] * size * SUPERSAMPLING
    shades = AMBIENT + (1 - AMBIENT) * np.maximum(FACE_NORMALS @ (rotation.T @ LIGHT), 0)
    fills = (255 * rgb[cube] * (shades / shades.max())[face, None]).round().astype(int)
    edges = (fills * EDGE_SHADE).astype(int)

    image = Image.new("RGB", (size * SUPERSAMPLING,) * 2, "white")
    draw = ImageDraw.Draw(image)
    for polygon, fill, edge in zip(pixels.reshape(-1, 8).tolist(), fills.tolist(), edges.tolist(), strict=True):
        draw.polygon(polygon, fill=tuple(fill), outline=tuple(edge))
    return np.asarray(image.reduce(SUPERSAMPLING))


def _face_corners() -> np.ndarray:
    """[6, 4, 3]: the corners of each face of a unit cube about the origin, in order round the face."""
    corners = np.zeros((6, 4, 3))
    for face, normal in enumerate(FACE_NORMALS):
        axis = int(np.abs(normal).argmax())
        corners[face, :, axis] = normal[axis] / 2
        corners[face][:, [(axis + 1) % 3, (axis + 2) % 3]] = [
            (-0.5, -0.5),
            (0.5, -0.5),
            (0.5, 0.5),
            (-0.5, 0.5),
        ]
    return corners
