"""Blender's engines, set up so that both show base colour x the same light, fixed in the world:
`ambient` from everywhere and `key` from the upper left in front, both 1 for white."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import bpy
import numpy as np
from mathutils import Vector

from dataset_toolkits.blender.albedo import Surfaces, prepare_colours
from dataset_toolkits.blender.errors import JobError
from dataset_toolkits.blender.pixels import Layers, Picture, read_layers, to_picture

TO_LIGHT = Vector((-0.4, -0.6, 0.7)).normalized()
WORKBENCH_SHARE = 0.934  # of a lamp's light that Workbench shows on white, measured; all of the ambient light


class Engine(Protocol):
    """Renders the scene as it stands, from its camera."""

    def render(self, size: int, folder: Path) -> Picture:
        """A picture of `size` x `size` pixels; temporary files go to `folder`."""
        ...


def make_engine(
    engine: str,
    samples: int,
    supersampling: int,
    bounces: int,
    ambient: float,
    key: float,
    device: str,
    threads: int,
) -> Engine:
    """Set up the open scene for an engine; the arguments are those of `RenderOptions`."""
    _set_up_output(threads)
    if engine == "CYCLES":
        return Cycles(samples, bounces, ambient, key, device)
    return Workbench(supersampling, ambient, key)


class Cycles:
    """Path tracing: textures, transparency and shadows as the materials have them."""

    def __init__(self, samples: int, bounces: int, ambient: float, key: float, device: str):
        scene = bpy.context.scene
        scene.render.engine = "CYCLES"
        scene.render.use_persistent_data = True  # between cameras only the camera changes
        settings = scene.cycles
        settings.samples, settings.seed = samples, 0
        settings.use_adaptive_sampling = settings.use_denoising = False
        settings.pixel_filter_type = "BOX"  # alpha is the covered share of the pixel itself
        settings.filter_width = 1.0
        settings.max_bounces = settings.diffuse_bounces = settings.glossy_bounces = bounces
        settings.transmission_bounces = bounces
        settings.transparent_max_bounces = 32
        settings.caustics_reflective = settings.caustics_refractive = False
        settings.device = device
        if device == "GPU":
            _enable_gpu()
        scene.world = bpy.data.worlds.new("light")
        scene.world.use_nodes = True
        background = scene.world.node_tree.nodes["Background"].inputs
        background["Color"].default_value, background["Strength"].default_value = (1, 1, 1, 1), ambient
        sun = bpy.data.lights.new("key", "SUN")
        sun.energy = key * math.pi  # W/m2; a white diffuse surface that faces it then sends out `key`
        sun.angle = 0.0
        lamp = bpy.data.objects.new("key", sun)
        lamp.rotation_euler = TO_LIGHT.to_track_quat("Z", "Y").to_euler()
        scene.collection.objects.link(lamp)

    def render(self, size: int, folder: Path) -> Picture:
        return to_picture(_render(size, folder), 1)


class Workbench:
    """Rasterisation, fast: base colours, emission and cutouts, no shadows, no other effects of materials."""

    def __init__(self, supersampling: int, ambient: float, key: float):
        scene = bpy.context.scene
        scene.render.engine = "BLENDER_WORKBENCH"
        scene.display.render_aa = "OFF"  # its own anti-aliasing takes twice as long as more pixels do
        self._supersampling = supersampling
        self._base, self._emission = prepare_colours()
        shading = scene.display.shading
        shading.light, shading.studio_light, shading.use_world_space_lighting = "STUDIO", "Default", True
        shading.studiolight_rotate_z = 0.0
        shading.show_specular_highlight = shading.show_shadows = shading.show_cavity = False
        shading.show_object_outline = shading.show_backface_culling = shading.show_xray = False
        system = bpy.context.preferences.system
        system.use_studio_light_edit = True  # take the lights below, not those read at the start
        system.light_ambient = (ambient,) * 3
        for light in system.solid_lights:  # all four count, whether in use or not
            light.use, light.smooth, light.diffuse_color, light.specular_color = True, 0.0, (0, 0, 0), (0, 0, 0)
        light = system.solid_lights[0]
        light.diffuse_color = (key / WORKBENCH_SHARE,) * 3
        light.direction = (TO_LIGHT.x, TO_LIGHT.z, -TO_LIGHT.y)  # y is up

    def render(self, size: int, folder: Path) -> Picture:
        """Light on the base colours, plus emission where there is any."""
        size *= self._supersampling
        layers = self._layers(self._base, "STUDIO", size, folder)
        if self._emission is not None:
            self._emission.show()
            glow = self._layers(self._emission, "FLAT", size, folder)
            self._base.show()
            # A hole in the base colour is none in the emission: take it from what is seen only.
            light = layers.light.copy()
            light[..., :3] += np.where((glow.depth == layers.depth)[..., None], glow.light[..., :3], 0)
            layers = replace(layers, light=light)
        return to_picture(layers, self._supersampling)

    def _layers(self, surfaces: Surfaces, light: str, size: int, folder: Path) -> Layers:
        """`light` on the textures; where colours are products, times an evenly lit pass of the other factor."""
        shading = bpy.context.scene.display.shading
        shading.light, shading.color_type = light, "TEXTURE"
        layers = _render(size, folder)
        if not surfaces.has_factors:
            return layers
        shading.light, shading.color_type = "FLAT", "VERTEX"
        factors = _render(size, folder).light
        factors[..., 3] = 1
        return replace(layers, light=layers.light * factors)


def _set_up_output(threads: int) -> None:
    scene = bpy.context.scene
    scene.render.threads_mode, scene.render.threads = "FIXED", threads
    scene.render.film_transparent = True
    scene.render.use_compositing = scene.render.use_sequencer = False
    scene.render.resolution_percentage = 100
    scene.view_settings.view_transform = "Standard"
    for layer in scene.view_layers:
        layer.use_pass_z = True
    image = scene.render.image_settings
    image.file_format, image.color_depth, image.exr_codec = "OPEN_EXR_MULTILAYER", "32", "NONE"


def _render(size: int, folder: Path) -> Layers:
    scene = bpy.context.scene
    scene.render.resolution_x = scene.render.resolution_y = size
    path = folder / "render.exr"
    scene.render.filepath = str(path)
    bpy.ops.render.render(write_still=True)
    return read_layers(path)


def _enable_gpu() -> None:
    preferences: Any = bpy.context.preferences.addons["cycles"].preferences
    for backend in ("OPTIX", "CUDA", "HIP", "ONEAPI", "METAL"):
        try:
            preferences.compute_device_type = backend
        except TypeError:  # not in this build of Blender
            continue
        devices = preferences.get_devices_for_type(backend)
        if devices:
            for device in devices:
                device.use = device.type == backend
            return
    raise JobError("render.device=GPU, but Blender finds no GPU here; use render.device=CPU")
