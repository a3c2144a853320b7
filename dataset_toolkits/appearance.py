"""Base colour of a surface: material factors, vertex colours and textures, looked up at any surface point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataset_toolkits.gltf import GltfDocument, JsonObject

_REPEAT, _CLAMP, _MIRROR = 10497, 33071, 33648


class SurfaceColour(NamedTuple):
    """`rgb` [N, 3] sRGB-encoded in [0, 1]; `visible` [N] false where the material cuts the surface out."""

    rgb: NDArray[np.float32]
    visible: NDArray[np.bool_]


@dataclass(frozen=True)
class Texture:
    """`pixels` [height, width, 4]: linear colour and alpha in [0, 1]; wrap modes are glTF's numbers."""

    pixels: NDArray[np.float32]
    wrap_u: int = _REPEAT
    wrap_v: int = _REPEAT

    def sample(self, uv: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bilinear lookup at `uv` [N, 2], v downwards: linear RGBA [N, 4]."""
        height, width = self.pixels.shape[:2]
        x, y = uv[:, 0] * width - 0.5, uv[:, 1] * height - 0.5
        x0, y0 = np.floor(x), np.floor(y)
        fx, fy = (x - x0)[:, None], (y - y0)[:, None]
        left, right = (_wrap(x0 + step, width, self.wrap_u) for step in (0, 1))
        top, bottom = (_wrap(y0 + step, height, self.wrap_v) for step in (0, 1))
        upper = self.pixels[top, left] * (1 - fx) + self.pixels[top, right] * fx
        lower = self.pixels[bottom, left] * (1 - fx) + self.pixels[bottom, right] * fx
        return upper * (1 - fy) + lower * fy


@dataclass(frozen=True)
class Appearance:
    """Colour of F triangles, constant over time.

    `corner_colours` [F, 3, 4] is linear RGBA (factor x COLOR_0), `corner_uv` [F, 3, 2]; `face_texture` [F]
    indexes `textures`, -1 for none; a point is cut out where its alpha is below `alpha_cutoff` [F].
    """

    corner_colours: NDArray[np.float32]
    corner_uv: NDArray[np.float32]
    face_texture: NDArray[np.int32]
    alpha_cutoff: NDArray[np.float32]
    textures: tuple[Texture, ...]

    @property
    def has_cutouts(self) -> bool:
        """Whether any triangle can be cut out."""
        return bool((self.alpha_cutoff > 0).any())

    def lookup(self, faces: NDArray[np.int64], barycentric: NDArray[np.float32]) -> SurfaceColour:
        """Colour at points of `faces` [N] with weights `barycentric` [N, 3] of their three corners."""
        linear = np.einsum("nc,ncd->nd", barycentric, self.corner_colours[faces])
        texture_of_point = self.face_texture[faces]
        for index, texture in enumerate(self.textures):
            chosen = np.flatnonzero(texture_of_point == index)
            uv = np.einsum("nc,ncd->nd", barycentric[chosen], self.corner_uv[faces[chosen]])
            linear[chosen] *= texture.sample(uv)
        visible = linear[:, 3] >= self.alpha_cutoff[faces]
        return SurfaceColour(linear_to_srgb(linear[:, :3]), visible)


class Material(NamedTuple):
    """What of a glTF material decides the base colour."""

    factor: NDArray[np.float32]  # linear RGBA
    texture: int  # index into the textures of the document, -1 for none
    uv_set: int
    uv_matrix: NDArray[np.float32]  # [2, 3], uv' = M @ (u, v, 1)
    alpha_cutoff: float


def read_material(document: GltfDocument, index: int | None) -> Material:
    """Material `index`; without one, glTF's default: white."""
    material: JsonObject = {} if index is None else document.items("materials")[index]
    legacy = material.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness")
    modern = material.get("pbrMetallicRoughness")
    if legacy is not None and modern is None:
        factor, info = legacy.get("diffuseFactor"), legacy.get("diffuseTexture")
    else:
        modern = modern or {}
        factor, info = modern.get("baseColorFactor"), modern.get("baseColorTexture")
    # A blended surface is cut at half coverage: voxels and depth need a yes or a no.
    mode = material.get("alphaMode", "OPAQUE")
    cutoff = {"MASK": material.get("alphaCutoff", 0.5), "BLEND": 0.5}.get(mode, 0.0)
    transform = (info or {}).get("extensions", {}).get("KHR_texture_transform", {})
    return Material(
        factor=np.asarray(factor or (1, 1, 1, 1), np.float32),
        texture=-1 if info is None else info["index"],
        uv_set=transform.get("texCoord", (info or {}).get("texCoord", 0)),
        uv_matrix=_uv_matrix(transform),
        alpha_cutoff=float(cutoff),
    )


def read_texture(document: GltfDocument, index: int) -> Texture:
    """Decode texture `index` of the document."""
    entry = document.items("textures")[index]
    sampler = document.items("samplers")[entry["sampler"]] if "sampler" in entry else {}
    pixels = (document.image(entry["source"]) / 255).astype(np.float32)
    pixels[..., :3] = srgb_to_linear(pixels[..., :3])
    return Texture(pixels, sampler.get("wrapS", _REPEAT), sampler.get("wrapT", _REPEAT))


def linear_to_srgb(linear: NDArray[np.float32]) -> NDArray[np.float32]:
    """IEC 61966-2-1 encoding, values clipped to [0, 1]."""
    linear = np.clip(linear, 0.0, 1.0)
    curve = 1.055 * linear ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, 12.92 * linear, curve).astype(np.float32)


def srgb_to_linear(encoded: NDArray[np.float32]) -> NDArray[np.float32]:
    """Inverse of `linear_to_srgb`."""
    curve = ((encoded + 0.055) / 1.055) ** 2.4
    return np.where(encoded <= 0.04045, encoded / 12.92, curve).astype(np.float32)


def _uv_matrix(transform: JsonObject) -> NDArray[np.float32]:
    # KHR_texture_transform: translation x rotation x scale, the rotation counter-clockwise with v downwards.
    (offset_u, offset_v), (scale_u, scale_v) = transform.get("offset", (0, 0)), transform.get("scale", (1, 1))
    angle = transform.get("rotation", 0.0)
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.asarray(
        [[cosine * scale_u, sine * scale_v, offset_u], [-sine * scale_u, cosine * scale_v, offset_v]],
        np.float32,
    )


def _wrap(index: NDArray[np.float32], size: int, mode: int) -> NDArray[np.int64]:
    whole = index.astype(np.int64)
    if mode == _CLAMP:
        return np.clip(whole, 0, size - 1)
    if mode == _MIRROR:
        period = whole % (2 * size)
        return np.where(period < size, period, 2 * size - 1 - period)
    return whole % size
