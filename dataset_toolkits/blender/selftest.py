"""Run by `./setup.sh blender`: renders one picture with Workbench, which needs OpenGL, and says whether it shows."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import bpy


def main() -> int:
    """0 where a cube is seen in the middle of the picture, else 1."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    bpy.ops.mesh.primitive_cube_add()
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.location = (0, 0, 5)
    scene.collection.objects.link(camera)
    scene.camera = camera
    scene.render.engine = "BLENDER_WORKBENCH"
    scene.render.resolution_x = scene.render.resolution_y = 16
    scene.render.film_transparent = True
    scene.render.image_settings.color_mode = "RGBA"
    with tempfile.TemporaryDirectory() as folder:
        scene.render.filepath = str(Path(folder) / "picture.png")
        bpy.ops.render.render(write_still=True)
        pixels = bpy.data.images.load(scene.render.filepath).pixels[:]
    alpha = pixels[4 * (8 * 16 + 8) + 3]
    return 0 if alpha > 0.9 and pixels[3] == 0.0 else 1


if __name__ == "__main__":
    sys.exit(main())
