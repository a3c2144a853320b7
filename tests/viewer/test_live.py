"""A result served live: a browser connects, asks for a picture, and gets what the rasteriser makes of its view."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import Page, chromium, opened_page
from PIL import Image

pytest.importorskip("viser", reason="needs viser: pip install -e '.[live]'")

from ss4d.cameras import orbit_camera
from ss4d.gaussians import Gaussians, GaussianSequence, rasterize
from ss4d.viewer.__main__ import main
from ss4d.viewer.live import LiveViewer, camera_of, covariances, start_live
from ss4d.viewer.result import Result

SWIFTSHADER = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
BUTTON = "[...document.querySelectorAll('button')].find((button) => button.textContent.includes('Picture'))"
IMAGE = "[...document.images].find((image) => image.naturalHeight === 512)"


def frame(seed: int) -> Gaussians:
    generator = torch.Generator().manual_seed(seed)
    xyz, rotation = 0.4 * torch.randn(300, 3, generator=generator), torch.randn(300, 4, generator=generator)
    scale, opacity = torch.full((300, 3), 0.03), torch.full((300, 1), 0.8)
    sh = torch.rand(300, 1, 3, generator=generator)
    return Gaussians(xyz.clamp(-0.5, 0.5), scale, torch.nn.functional.normalize(rotation, dim=1), opacity, sh)


@pytest.fixture
def viewer() -> Iterator[LiveViewer]:
    viewer = start_live(Result(GaussianSequence([frame(0), frame(1)]), 64, None, 12.0, "two frames"), port=0)
    yield viewer
    viewer.stop()


def test_a_browsers_camera_is_ours() -> None:
    expected = orbit_camera(70.0, 20.0)
    rows = expected.extrinsics[:3, :3].double().numpy()  # world to camera
    # The quaternion of its transpose, by the trace; this rotation's is far from -1.
    w = np.sqrt(1 + np.trace(rows)) / 2
    turn = rows.T
    x, y, z = turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]
    wxyz = np.array([w, x / (4 * w), y / (4 * w), z / (4 * w)])
    position = -rows.T @ expected.extrinsics[:3, 3].double().numpy()
    found = camera_of(position, wxyz, np.radians(40.0), 1.0)
    torch.testing.assert_close(found.extrinsics, expected.extrinsics, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.intrinsics, expected.intrinsics)


def test_covariances_have_the_scales_as_axes() -> None:
    gaussians = frame(0)
    gaussians.scale = torch.tensor([[0.01, 0.02, 0.03]]).expand(300, 3)
    values = torch.linalg.eigvalsh(covariances(gaussians).double()).sqrt()
    torch.testing.assert_close(values.float(), gaussians.scale, rtol=1e-3, atol=1e-6)


def test_no_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--live", str(tmp_path)]) == 1
    assert "name a folder that inference.py wrote" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(chromium() is None, reason="needs Chromium: apt-get install chromium")
def test_a_picture_on_request(viewer: LiveViewer, tmp_path: Path) -> None:
    binary = chromium()
    assert binary
    with opened_page(binary, tmp_path, *SWIFTSHADER) as page:
        page.call("Page.navigate", url=f"http://127.0.0.1:{viewer.server.get_port()}")
        page.wait(f"!!{BUTTON}", 90)
        for index in (0, 1):
            viewer.timeline.value = index  # type: ignore[misc]
            page.wait(f"document.body.textContent.includes('frame {index + 1} of 2')")
            before = page.evaluate(f"{IMAGE}?.src")
            page.evaluate(f"{BUTTON}.click()")
            page.wait(f"!!{IMAGE} && {IMAGE}.src !== {before!r}".replace("None", "undefined"), 60)
            found = read_picture(page)
            (client,) = viewer.server.get_clients().values()
            view = client.camera
            camera = camera_of(view.position, view.wxyz, view.fov, view.aspect)
            colour = rasterize(viewer.sequence[index], camera, found.shape[:2]).colour.clamp(0, 1).permute(1, 2, 0)
            assert np.abs(found - colour.numpy()).max() < 1 / 255
            assert (found.min(axis=-1) < 0.9).mean() > 0.05
        page.screenshot(tmp_path / "live.png")


def read_picture(page: Page) -> np.ndarray:
    """The picture in the panel, [H, W, 3] in [0, 1]."""
    draw = (
        f"(() => {{ const image = {IMAGE}, canvas = document.createElement('canvas');"
        "canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;"
        "canvas.getContext('2d').drawImage(image, 0, 0); return canvas.toDataURL() })()"
    )
    data = base64.b64decode(page.evaluate(draw).split(",")[1])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) / 255.0


@pytest.mark.parametrize("fps", [0.05, 120.0])
def test_any_rate_is_taken(fps: float) -> None:
    start_live(Result(GaussianSequence([frame(0), frame(1)]), 64, None, fps, "two frames"), port=0).stop()
