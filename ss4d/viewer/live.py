"""A result on a remote machine, seen in a browser: `python -m ss4d.viewer --live RESULT`, by viser.

The browser draws the Gaussians with viser's own renderer while the camera moves; on request this machine renders the
same view with our rasteriser.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import viser
from torch import Tensor

from ss4d.cameras import Camera, world_to_camera
from ss4d.gaussians import Gaussians, GaussianSequence, rasterize
from ss4d.gaussians.projection import camera_rotations
from ss4d.viewer.result import Result
from ss4d.visualize import to_uint8

PICTURE_HEIGHT = 512  # pixels
NODE = "/object"


@dataclass
class LiveViewer:
    """A running server. Frames are sent one by one, when they are shown."""

    sequence: GaussianSequence
    server: viser.ViserServer
    timeline: viser.GuiSliderHandle[int]
    playing: viser.GuiCheckboxHandle
    rate: viser.GuiNumberHandle[float]
    count: viser.GuiMarkdownHandle
    stopped: threading.Event = field(default_factory=threading.Event)
    pictures: dict[int, Any] = field(default_factory=dict)  # for each client the image in its panel

    def show(self, index: int) -> None:
        """Send a frame to all browsers."""
        gaussians = self.sequence[index]
        self.server.scene.add_gaussian_splats(
            NODE,
            centers=gaussians.xyz.numpy(),
            covariances=covariances(gaussians).numpy(),
            rgbs=gaussians.rgb.clamp(0, 1).numpy(),
            opacities=gaussians.opacity.numpy(),
        )
        self.count.content = f"frame {index + 1} of {len(self.sequence)}, {len(gaussians):,} Gaussians"

    def send_picture(self, client: viser.ClientHandle) -> None:
        """Render what a browser sees, and put it into its panel."""
        view = client.camera
        camera = camera_of(np.asarray(view.position), np.asarray(view.wxyz), view.fov, view.aspect)
        image = render(self.sequence[self.timeline.value], camera, view.aspect)
        if client.client_id in self.pictures:
            self.pictures[client.client_id].image = image
        else:
            self.pictures[client.client_id] = client.gui.add_image(image, label="Rasteriser", format="png")

    def play(self) -> None:
        """Step through the clip until stopped; a slow connection slows it down and leaves no frame out."""
        while not self.stopped.wait(1 / max(self.rate.value, 0.1)):
            if self.playing.value:
                self.timeline.value = (self.timeline.value + 1) % len(self.sequence)  # type: ignore[misc]  # shows it as well

    def stop(self) -> None:
        self.stopped.set()
        self.server.stop()


def start_live(result: Result, host: str = "127.0.0.1", port: int = 8080) -> LiveViewer:
    """Start to serve a result; `LiveViewer.stop` ends it."""
    server = viser.ViserServer(host=host, port=port, label=result.title, verbose=False)
    server.scene.set_up_direction("+z")
    server.initial_camera.position = result.orbit.camera(0.0, result.orbit.elevation).centre.numpy()
    server.initial_camera.look_at = (0.0, 0.0, 0.0)
    server.initial_camera.fov = math.radians(result.orbit.fov_deg)
    last = max(len(result.gaussians) - 1, 1)  # a slider needs two places
    viewer = LiveViewer(
        result.gaussians,
        server,
        server.gui.add_slider("Frame", 0, last, 1, 0, disabled=len(result.gaussians) == 1),
        server.gui.add_checkbox("Play", False, disabled=len(result.gaussians) == 1),
        server.gui.add_number("Frames a second", result.fps, min=min(0.1, result.fps), max=max(60.0, result.fps)),
        server.gui.add_markdown(""),
    )
    button = server.gui.add_button("Picture", hint="Render this view with the rasteriser of SS4D")
    viewer.timeline.on_update(lambda _: viewer.show(viewer.timeline.value))

    @button.on_click
    def _(event: viser.GuiEvent[viser.GuiButtonHandle]) -> None:
        if event.client is not None:
            viewer.send_picture(event.client)

    @server.on_client_disconnect
    def _(client: viser.ClientHandle) -> None:
        viewer.pictures.pop(client.client_id, None)

    viewer.show(0)
    threading.Thread(target=viewer.play, daemon=True).start()
    return viewer


def serve_live(result: Result, host: str, port: int) -> None:
    """Serve a result until interrupted."""
    viewer = start_live(result, host, port)
    print(f"{len(result.gaussians)} frames at http://{host}:{viewer.server.get_port()}, until Ctrl-C", flush=True)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        viewer.stop()


def covariances(gaussians: Gaussians) -> Tensor:
    """R S S R^T of each Gaussian, [M, 3, 3]."""
    axes = camera_rotations(gaussians.rotation, torch.eye(4)) * gaussians.scale.T  # [3, 3, M]
    return torch.einsum("ijm,kjm->mik", axes, axes)


def camera_of(position: np.ndarray, wxyz: np.ndarray, fov: float, aspect: float) -> Camera:
    """Our camera for a browser's.

    Args:
        position: [3] of its centre.
        wxyz: quaternion from the camera (x right, y down, z forward) to the world.
        fov: of the height, radians.
        aspect: width over height.
    """
    world_from_camera = camera_rotations(torch.from_numpy(wxyz)[None].float(), torch.eye(4))[..., 0]
    focal = 0.5 / math.tan(fov / 2)
    intrinsics = torch.tensor([[focal / aspect, 0.0, 0.5], [0.0, focal, 0.5], [0.0, 0.0, 1.0]])
    return Camera(world_to_camera(torch.from_numpy(position).double(), world_from_camera.T.double()), intrinsics)


def render(gaussians: Gaussians, camera: Camera, aspect: float) -> np.ndarray:
    """Our rasteriser's picture on white, uint8 [H, W, 3]."""
    size = (PICTURE_HEIGHT, max(1, round(PICTURE_HEIGHT * aspect)))
    return to_uint8(rasterize(gaussians, camera, size).colour)
