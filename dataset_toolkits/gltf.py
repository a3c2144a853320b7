"""Reading a glTF 2.0 binary (GLB): its JSON, its accessors as arrays, its images.

The container is two length-prefixed chunks, so it is read here directly: building typed objects for the
thousands of accessors of one animated character takes a general glTF library seconds, `json` milliseconds.
"""

from __future__ import annotations

import io
import json
import struct
from base64 import b64decode
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

JsonObject = dict[str, Any]

_MAGIC = 0x46546C67  # "glTF"
_JSON_CHUNK = 0x4E4F534A
_BINARY_CHUNK = 0x004E4942
_COMPONENT_DTYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_TYPE_SHAPES: dict[str, tuple[int, ...]] = {
    "SCALAR": (),
    "VEC2": (2,),
    "VEC3": (3,),
    "VEC4": (4,),
    "MAT4": (4, 4),
}
_SUPPORTED_EXTENSIONS = {
    "KHR_materials_pbrSpecularGlossiness",
    "KHR_materials_unlit",
    "KHR_mesh_quantization",
    "KHR_texture_transform",
}


class GltfError(ValueError):
    """The file is not a glTF binary this reader understands."""


@dataclass
class GltfDocument:
    """The JSON of a GLB and its buffers."""

    json: JsonObject
    buffers: list[bytes]
    _accessors: dict[int, NDArray[Any]] = field(default_factory=dict, repr=False)

    def items(self, name: str) -> list[JsonObject]:
        """The top-level list `name` ("nodes", "meshes" ...), empty where the file has none."""
        return self.json.get(name, [])

    def accessor(self, index: int) -> NDArray[Any]:
        """Array of accessor `index`: [count, *shape], float32 where normalised, else the stored type.

        Matrices come row-major, `m[row, column]`. Sparse accessors are filled in.
        """
        if index not in self._accessors:
            self._accessors[index] = self._read_accessor(self.json["accessors"][index])
        return self._accessors[index]

    def image(self, index: int) -> NDArray[np.uint8]:
        """Pixels of image `index`: uint8 [height, width, 4], sRGB-encoded colour and alpha."""
        from PIL import Image

        entry = self.json["images"][index]
        if "bufferView" in entry:
            view = self.json["bufferViews"][entry["bufferView"]]
            start = view.get("byteOffset", 0)
            data = self.buffers[view["buffer"]][start : start + view["byteLength"]]
        else:
            data = _decode_data_uri(entry["uri"])
        with Image.open(io.BytesIO(data)) as picture:
            return np.asarray(picture.convert("RGBA"))

    def _read_accessor(self, accessor: JsonObject) -> NDArray[Any]:
        dtype = np.dtype(_COMPONENT_DTYPES[accessor["componentType"]])
        shape = _TYPE_SHAPES[accessor["type"]]
        count = accessor["count"]
        if "bufferView" in accessor:
            values = self._read_view(accessor["bufferView"], accessor.get("byteOffset", 0), count, dtype, shape)
        else:
            values = np.zeros((count, *shape), dtype)
        if "sparse" in accessor:
            values = self._apply_sparse(values, accessor["sparse"], dtype, shape)
        if shape == (4, 4):
            values = values.swapaxes(-1, -2)  # stored column by column
        if accessor.get("normalized", False):
            # glTF 2.0 section 3.6.2.2: c / max for unsigned, max(c / max, -1) for signed integers.
            values = np.maximum(values.astype(np.float32) / np.iinfo(dtype).max, -1.0)
        return values

    def _apply_sparse(
        self, values: NDArray[Any], sparse: JsonObject, dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> NDArray[Any]:
        count, indices, replacements = sparse["count"], sparse["indices"], sparse["values"]
        index_dtype = np.dtype(_COMPONENT_DTYPES[indices["componentType"]])
        rows = self._read_view(indices["bufferView"], indices.get("byteOffset", 0), count, index_dtype, ())
        values = values.copy()
        values[rows] = self._read_view(
            replacements["bufferView"], replacements.get("byteOffset", 0), count, dtype, shape
        )
        return values

    def _read_view(
        self, view_index: int, offset: int, count: int, dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> NDArray[Any]:
        view = self.json["bufferViews"][view_index]
        item_size = dtype.itemsize * int(np.prod(shape, dtype=int))
        stride = view.get("byteStride", item_size)
        start = view.get("byteOffset", 0) + offset
        data = np.frombuffer(self.buffers[view["buffer"]], np.uint8)
        if count and start + stride * (count - 1) + item_size > len(data):
            raise GltfError(f"bufferView {view_index} is longer than its buffer; the file is damaged")
        strides = (stride, *np.empty(shape, dtype).strides)
        return np.ndarray((count, *shape), dtype, data.data, start, strides)


def read_glb(path: Path) -> GltfDocument:
    """Read a GLB file.

    Raises:
        GltfError: not a glTF 2.0 binary, or it needs an extension that is not supported (such as Draco).
        OSError: the file cannot be read.
    """
    data = path.read_bytes()
    if len(data) < 20 or struct.unpack_from("<II", data) != (_MAGIC, 2):
        raise GltfError(f"{path} is not a glTF 2.0 binary; export the object as .glb")
    chunks: dict[int, bytes] = {}
    position = 12
    while position + 8 <= len(data):
        length, kind = struct.unpack_from("<II", data, position)
        chunks.setdefault(kind, data[position + 8 : position + 8 + length])
        position += 8 + length
    document: JsonObject = json.loads(chunks[_JSON_CHUNK])
    missing = set(document.get("extensionsRequired", [])) - _SUPPORTED_EXTENSIONS
    if missing:
        raise GltfError(f"{path} requires {', '.join(sorted(missing))}, not supported; export it without")
    buffers = [
        _decode_data_uri(buffer["uri"]) if "uri" in buffer else chunks[_BINARY_CHUNK]
        for buffer in document.get("buffers", [])
    ]
    return GltfDocument(document, buffers)


def _decode_data_uri(uri: str) -> bytes:
    if not uri.startswith("data:"):
        raise GltfError(f"the file needs {uri[:60]!r} beside it; export it as one self-contained .glb")
    return b64decode(uri.partition(",")[2])
