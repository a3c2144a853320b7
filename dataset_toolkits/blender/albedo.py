"""Base colours for Workbench, which knows an image, or a colour, or vertex colours, but not their product."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import bpy
import numpy as np
from numpy.typing import NDArray

DEFAULT = (0.8, 0.8, 0.8)  # Blender's colour where a mesh has no material
FACTORS = "ss4d_factors"  # name of the vertex colours made here
CUTOFF = 0.5  # glTF's default
COLOUR_SOCKETS = ("Base Color", "Color")


@dataclass(frozen=True)
class BaseColour:
    """The product of `factor` (linear), the picture of the node `image` and the vertex colours `attribute`."""

    factor: tuple[float, float, float] = (1.0, 1.0, 1.0)
    image: Any = None
    attribute: str | None = None
    uses_alpha: bool = field(default=False)  # the image's alpha cuts holes

    def times(self, other: BaseColour) -> BaseColour:
        red, green, blue = (a * b for a, b in zip(self.factor, other.factor, strict=True))
        return replace(
            self,
            factor=(red, green, blue),
            image=self.image or other.image,
            attribute=self.attribute if self.attribute is not None else other.attribute,
        )


def base_colour(material: Any) -> BaseColour:
    """What the shader of a material multiplies to its base colour, as far as importers build such shaders."""
    if material is None:
        return BaseColour(DEFAULT)
    output = material.node_tree.get_output_node("ALL") if material.use_nodes else None
    shader = _shader(output.inputs["Surface"]) if output else None
    if shader is None:
        return BaseColour(tuple(material.diffuse_color[:3]))
    socket = next(shader.inputs[name] for name in COLOUR_SOCKETS if name in shader.inputs)
    colour = _trace(socket)
    cut = any(link.from_node == colour.image and link.from_socket.name == "Alpha" for link in material.node_tree.links)
    return replace(colour, uses_alpha=cut)


def prepare_colours() -> bool:
    """Set the open scene up for Workbench's colour type TEXTURE; where that is not the whole colour, True is returned
    and the colour type VERTEX shows the factor that is missing."""
    colours = {material: base_colour(material) for material in bpy.data.materials}
    _set_alpha(list(colours.values()))
    has_factors = any(
        colour.attribute is not None or (colour.image is not None and min(colour.factor) < 0.999)
        for colour in colours.values()
    )
    for material, colour in colours.items():
        material.diffuse_color = (*((1.0, 1.0, 1.0) if has_factors else colour.factor), 1.0)
        if material.node_tree:
            material.node_tree.nodes.active = colour.image
    if has_factors:
        for mesh in bpy.data.meshes:
            _add_factors(mesh, colours)
    return has_factors


def _set_alpha(colours: list[BaseColour]) -> None:
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


def _add_factors(mesh: Any, colours: dict[Any, BaseColour]) -> None:
    """Vertex colours that hold factor x the file's own vertex colours, one value per corner."""
    if not len(mesh.loops):
        return
    slots = [colours[material] if material else BaseColour() for material in mesh.materials] or [BaseColour()]
    sizes, materials = np.empty(len(mesh.polygons), np.int32), np.empty(len(mesh.polygons), np.int32)
    mesh.polygons.foreach_get("loop_total", sizes)
    mesh.polygons.foreach_get("material_index", materials)
    slot_of_corner = np.repeat(np.clip(materials, 0, len(slots) - 1), sizes)
    values = np.ones((len(mesh.loops), 4), np.float32)
    for index, colour in enumerate(slots):
        corners = slot_of_corner == index
        values[corners, :3] = colour.factor
        if colour.attribute is not None:
            values[corners, :3] *= _corner_colours(mesh, colour.attribute)[corners]
    attribute = mesh.color_attributes.new(FACTORS, "FLOAT_COLOR", "CORNER")
    attribute.data.foreach_set("color", values.ravel())
    mesh.color_attributes.active_color = attribute


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


def _trace(socket: Any) -> BaseColour:
    """The colour that arrives at a socket."""
    if not socket.is_linked:
        value = socket.default_value
        return BaseColour((value[0], value[1], value[2]) if hasattr(value, "__len__") else (value,) * 3)
    node = socket.links[0].from_node
    if node.type == "TEX_IMAGE":
        return BaseColour(image=node)
    if node.type == "VERTEX_COLOR":
        return BaseColour(attribute=node.layer_name)
    inputs = [inner for inner in node.inputs if inner.type == "RGBA"]
    if node.type in ("MIX", "MIX_RGB") and node.blend_type == "MULTIPLY":
        return _trace(inputs[0]).times(_trace(inputs[1]))
    return _trace(inputs[0]) if inputs else BaseColour()
