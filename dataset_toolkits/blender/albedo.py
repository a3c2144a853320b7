"""Base colours and emission for Workbench, which knows an image, or a colour, or vertex colours, but not their product,
nor where on a surface an image lies if its material says so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import bpy
import numpy as np
from mathutils import Matrix
from numpy.typing import NDArray

from dataset_toolkits.blender.errors import JobError

WHITE, BLACK = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)
BLANK = "ss4d blank"
CUTOFF = 0.5  # glTF's default
COLOUR_SOCKETS = ("Base Color", "Color")


@dataclass(frozen=True)
class UVs:
    """Texture coordinates: `matrix` [2, 3] times (u, v, 1) of a UV layer, of the mesh's own where no name is given."""

    layer: str = ""
    matrix: tuple[tuple[float, ...], ...] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))


@dataclass(frozen=True)
class Colour:
    """The product of `factor` (linear), the picture of the node `image` at `uvs` and the vertex colours `attribute`."""

    factor: tuple[float, float, float] = WHITE
    image: Any = None
    uvs: UVs = UVs()
    attribute: str | None = None
    uses_alpha: bool = field(default=False)  # the image's alpha cuts holes

    def times(self, other: Colour) -> Colour:
        red, green, blue = (a * b for a, b in zip(self.factor, other.factor, strict=True))
        return replace(
            self,
            factor=(red, green, blue),
            image=self.image or other.image,
            uvs=self.uvs if self.image else other.uvs,
            attribute=self.attribute if self.attribute is not None else other.attribute,
        )


def base_colour(material: Any) -> Colour:
    """What the shader of a material multiplies to its base colour, as far as importers build such shaders."""
    shader = _material_shader(material)
    if shader is None:
        return Colour(tuple(material.diffuse_color[:3]))
    socket = next(shader.inputs[name] for name in COLOUR_SOCKETS if name in shader.inputs)
    colour = _trace(socket)
    cut = any(link.from_node == colour.image and link.from_socket.name == "Alpha" for link in material.node_tree.links)
    return replace(colour, uses_alpha=cut)


def emission(material: Any) -> Colour:
    """The light that a material sends out by itself."""
    shader = _material_shader(material)
    if shader is None or "Emission Color" not in shader.inputs:
        return Colour(BLACK)
    strength = shader.inputs["Emission Strength"].default_value
    return _trace(shader.inputs["Emission Color"]).times(Colour((strength,) * 3))


class Surfaces:
    """One colour of every material, base colour or emission, as Workbench can show it: by the colour type TEXTURE, and
    where that is not the whole colour, `has_factors`, the colour type VERTEX shows the factor that is missing.

    Args:
        name: of the layers that are added to the meshes.
        colours: by material; that of None is the factor to Blender's colour of faces without one.
    """

    def __init__(self, name: str, colours: Mapping[Any, Colour]):
        self.colours = colours
        self.has_factors = any(
            colour.attribute is not None or (colour.factor != WHITE and (colour.image is not None or material is None))
            for material, colour in colours.items()
        )
        self._uv_layers: dict[Any, str | None] = {}
        self._attributes: dict[Any, str] = {}
        for mesh in bpy.data.meshes:
            if len(mesh.loops):
                slots = _Slots(mesh, colours)
                self._uv_layers[mesh] = _add_uvs(slots, f"ss4d_{name}_uv")
                if self.has_factors:
                    self._attributes[mesh] = _add_factors(slots, f"ss4d_{name}")

    @property
    def black(self) -> bool:
        """Whether there is nothing to show."""
        return all(max(colour.factor) <= 0 for colour in self.colours.values())

    def show(self) -> None:
        """Set the open scene up for these colours."""
        for material, colour in self.colours.items():
            if material is None:
                continue
            material.diffuse_color = (*(WHITE if self.has_factors else colour.factor), 1.0)
            if material.node_tree:
                material.node_tree.nodes.active = colour.image or _blank(material.node_tree)
        for mesh, layer in self._uv_layers.items():
            if layer:
                mesh.uv_layers.active = mesh.uv_layers[layer]
        for mesh, attribute in self._attributes.items():
            mesh.color_attributes.active_color = mesh.color_attributes[attribute]


def prepare_colours() -> tuple[Surfaces, Surfaces | None]:
    """The base colours of the open scene, which are shown from now on, and its emission where there is any."""
    materials = list(bpy.data.materials)
    base = {None: Colour()} | {material: base_colour(material) for material in materials}
    glow = {None: Colour(BLACK)} | {material: emission(material) for material in materials}
    _set_alpha([*base.values(), *glow.values()])
    surfaces, light = Surfaces("base", base), Surfaces("emission", glow)
    surfaces.show()
    return surfaces, None if light.black else light


def _set_alpha(colours: list[Colour]) -> None:
    """Images cut holes where their alpha is below `CUTOFF`, and none in opaque materials: Workbench would cut both,
    and at another value."""
    cut = {colour.image.image for colour in colours if colour.image and colour.uses_alpha}
    for image in {colour.image.image for colour in colours if colour.image} - {None}:
        if image not in cut:
            image.alpha_mode = "NONE"
        elif image.channels == 4 and len(image.pixels):
            pixels = np.empty(len(image.pixels), np.float32)
            image.pixels.foreach_get(pixels)
            pixels[3::4] = pixels[3::4] >= CUTOFF
            image.alpha_mode = "STRAIGHT"  # the importer's CHANNEL_PACKED is no transparency to Workbench
            image.pixels.foreach_set(pixels)


def _blank(tree: Any) -> Any:
    """A node that shows the material's own colour: without an active image Workbench takes any other."""
    node = tree.nodes.get(BLANK)
    if node is None:
        node = tree.nodes.new("ShaderNodeTexImage")
        node.name = BLANK
    return node


class _Slots:
    """The material slots of a mesh with their colours, and which corners of its faces belong to them."""

    def __init__(self, mesh: Any, colours: Mapping[Any, Colour]):
        self.mesh = mesh
        self.colours = [colours[material] for material in mesh.materials] or [colours[None]]
        sizes, materials = np.empty(len(mesh.polygons), np.int32), np.empty(len(mesh.polygons), np.int32)
        mesh.polygons.foreach_get("loop_total", sizes)
        mesh.polygons.foreach_get("material_index", materials)
        self._of_corner = np.repeat(np.clip(materials, 0, len(self.colours) - 1), sizes)

    def __iter__(self) -> Iterator[tuple[Colour, NDArray[np.bool_]]]:
        """Each slot's colour and its corners, bool [C]."""
        for index, colour in enumerate(self.colours):
            yield colour, self._of_corner == index


def _add_uvs(slots: _Slots, name: str) -> str | None:
    """The name of the UV layer that puts the images where the materials want them: Workbench knows neither which layer
    an image takes nor that its coordinates are transformed. None where the mesh has none."""
    layers = slots.mesh.uv_layers
    own = next((layer.name for layer in layers if layer.active_render), None)
    if own is None or all(colour.uvs.layer in ("", own) and colour.uvs == UVs(colour.uvs.layer) for colour, _ in slots):
        return own
    values = np.empty((len(slots.mesh.loops), 2), np.float32)
    for colour, corners in slots:
        layer = layers.get(colour.uvs.layer) or layers[own]
        points = np.ones((len(slots.mesh.loops), 3), np.float32)
        points[:, :2] = _read_uvs(layer)
        values[corners] = (points @ np.array(colour.uvs.matrix, np.float32).T)[corners]
    added = layers.new(name=name)
    if added is None:
        raise JobError(f"the mesh {slots.mesh.name} has {len(layers)} UV maps, of which Blender knows no more")
    added.uv.foreach_set("vector", values.ravel())
    return added.name


def _read_uvs(layer: Any) -> NDArray[np.float32]:
    values = np.empty(2 * len(layer.uv), np.float32)
    layer.uv.foreach_get("vector", values)
    return values.reshape(-1, 2)


def _add_factors(slots: _Slots, name: str) -> str:
    """Vertex colours that hold factor x the file's own vertex colours, one value per corner."""
    mesh = slots.mesh
    values = np.ones((len(mesh.loops), 4), np.float32)
    for colour, corners in slots:
        values[corners, :3] = colour.factor
        if colour.attribute is not None:
            values[corners, :3] *= _corner_colours(mesh, colour.attribute)[corners]
    attribute = mesh.color_attributes.new(name, "FLOAT_COLOR", "CORNER")
    attribute.data.foreach_set("color", values.ravel())
    return attribute.name


def _corner_colours(mesh: Any, name: str) -> NDArray[np.float32]:
    """Linear colours [C, 3]; without a name the mesh's default; white where the mesh has none."""
    attributes = mesh.color_attributes
    attribute = attributes.get(name) if name else attributes.get(attributes.default_color_name)
    if attribute is None:
        return np.ones((len(mesh.loops), 3), np.float32)
    colours = np.empty((len(attribute.data), 4), np.float32)
    attribute.data.foreach_get("color", colours.ravel())
    if attribute.domain == "POINT":
        corners = np.empty(len(mesh.loops), np.int32)
        mesh.loops.foreach_get("vertex_index", corners)
        colours = colours[corners]
    return colours[:, :3]


def _material_shader(material: Any) -> Any:
    """The node that has a material's colours, or None."""
    output = material.node_tree.get_output_node("ALL") if material.use_nodes else None
    return _shader(output.inputs["Surface"]) if output else None


def _shader(socket: Any) -> Any:
    """The first node with a colour behind a surface socket: importers mix it with transparency, in the last input."""
    for link in socket.links:
        node = link.from_node
        if any(name in node.inputs for name in COLOUR_SOCKETS) and node.type != "BSDF_TRANSPARENT":
            return node
        for inner in reversed(node.inputs):
            found = _shader(inner) if inner.type == "SHADER" else None
            if found:
                return found
    return None


def _trace(socket: Any) -> Colour:
    """The colour that arrives at a socket."""
    if not socket.is_linked:
        value = socket.default_value
        return Colour((value[0], value[1], value[2]) if hasattr(value, "__len__") else (value,) * 3)
    node = socket.links[0].from_node
    if node.type == "TEX_IMAGE":
        return Colour(image=node, uvs=_trace_uvs(node.inputs["Vector"]))
    if node.type == "VERTEX_COLOR":
        return Colour(attribute=node.layer_name)
    inputs = [inner for inner in node.inputs if inner.type == "RGBA"]
    if node.type in ("MIX", "MIX_RGB") and node.blend_type == "MULTIPLY":
        return _trace(inputs[0]).times(_trace(inputs[1]))
    return _trace(inputs[0]) if inputs else Colour()


def _trace_uvs(socket: Any) -> UVs:
    """The coordinates that arrive at a socket, but for what repeats or mirrors them."""
    if not socket.is_linked:
        return UVs()
    node = socket.links[0].from_node
    if node.type == "UVMAP":
        return UVs(node.uv_map)
    before = _trace_uvs(next((inner for inner in node.inputs if inner.is_linked), socket.node.inputs[0]))
    if node.type != "MAPPING":
        return before
    location, rotation, scale = (node.inputs[name].default_value for name in ("Location", "Rotation", "Scale"))
    matrix = Matrix.LocRotScale(location, rotation, scale)
    if node.vector_type == "TEXTURE":
        matrix.invert_safe()
    rows = np.array(matrix)[:2][:, [0, 1, 3]] @ np.vstack([before.matrix, (0.0, 0.0, 1.0)])
    return UVs(before.layer, tuple(tuple(row) for row in rows.tolist()))
