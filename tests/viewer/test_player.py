"""The player in a real browser: what it shows is what the rasteriser makes, and every control does what it says."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import Page, chromium, opened_page
from PIL import Image
from player_pictures import PSNR_MIN, picture, psnr, rasterized

from ss4d.cameras import Orbit
from ss4d.gaussians import Gaussians, GaussianSequence
from ss4d.viewer.page import write_player

OPTIONS = [
    *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),  # WebGL without a GPU
    *("--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
READ_BACK = "GPU stall due to ReadPixels"  # how a browser without a GPU puts the canvas on the page
# Seconds of the processor, all of the browser's processes together: a busy machine must not fail the tests.
PICTURES_PER_SECOND_MIN = 3.0  # at 256 pixels
FIRST_FRAME_SECONDS_MAX = 5.0
COUNT_PICTURES = """(() => {
    const { prototype } = WebGL2RenderingContext, draw = prototype.drawElements;
    window.pictures = 0;
    prototype.drawElements = function (...rest) { window.pictures++; return draw.apply(this, rest) };
})()"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="needs Chromium: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    binary = chromium()
    assert binary
    with opened_page(binary, tmp_path_factory.mktemp("profile"), *OPTIONS) as page:
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        yield page


@pytest.fixture
def page(browser: Page, result: Path) -> Iterator[Page]:
    """The player, freshly opened at 256 x 256; after the test the browser must have had nothing to complain about."""
    browser.events.clear()
    open_player(browser, result / "player.html", 256, 256)
    yield browser
    assert not complaints(browser)


def open_player(page: Page, path: Path, width: int, height: int, touch: bool = False) -> None:
    page.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=touch)
    page.call("Emulation.setTouchEmulationEnabled", enabled=touch, maxTouchPoints=2)
    page.open(path)
    page.wait("document.body.classList.contains('ready')")


def processor_seconds(page: Page) -> float:
    """What all processes of the browser have computed so far."""
    session, page.session = page.session, ""  # the browser is asked, not the page
    try:
        return sum(process["cpuTime"] for process in page.call("SystemInfo.getProcessInfo")["processInfo"])
    finally:
        page.session = session


def complaints(page: Page) -> list[str]:
    """Errors and warnings of the console, and requests for anything but the file itself."""
    page.evaluate("0")  # collects what is still under way
    found = []
    for event in page.events:
        params = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            found.append(str(params["exceptionDetails"]))
        elif event.get("method") == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            found.append(str(params["args"]))
        elif event.get("method") == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            found.append(params["entry"]["text"])
        elif event.get("method") == "Network.requestWillBeSent":
            url = params["request"]["url"]
            if not url.startswith(("data:", "blob:")) and not url.endswith("/player.html"):
                found.append(url)
    return [complaint for complaint in found if READ_BACK not in complaint]


def frame_shown(page: Page) -> int:
    return page.evaluate("ss4d.player.index")


def drag(page: Page, start: tuple[int, int], end: tuple[int, int], **options: int | str) -> None:
    common = {"button": "left", "buttons": 1, "pointerType": "mouse", **options}
    page.call("Input.dispatchMouseEvent", type="mousePressed", x=start[0], y=start[1], clickCount=1, **common)
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=end[0], y=end[1], **common)
    page.call("Input.dispatchMouseEvent", type="mouseReleased", x=end[0], y=end[1], clickCount=1, **common)


def camera(page: Page) -> dict[str, float]:
    return page.evaluate("ss4d.player.camera")


def test_the_first_frame_is_there_within_seconds(browser: Page, result: Path) -> None:
    started = processor_seconds(browser)
    open_player(browser, result / "player.html", 512, 512)
    assert processor_seconds(browser) - started < FIRST_FRAME_SECONDS_MAX
    assert not complaints(browser)


def test_scrubbed_frames_match_the_rasterizer(page: Page, sequence: GaussianSequence, orbit: Orbit) -> None:
    pictures = []
    for frame in (0, 2, 3):
        page.evaluate(
            f"timeline.value = {frame}; timeline.dispatchEvent(new Event('input')); ss4d.player.show({frame})"
        )
        page.wait(f"ss4d.player.index === {frame}")
        pictures.append(picture(page))
        assert psnr(pictures[-1], rasterized(sequence[frame], orbit)) > PSNR_MIN
        assert page.evaluate("time.textContent") == f"{frame + 1} / 4"
        assert page.evaluate("count.textContent") == f"{len(sequence[frame]):,} Gaussians"
    assert all(psnr(a, b) < 35 for a, b in zip(pictures, [*pictures[1:], pictures[0]], strict=True))


@pytest.mark.parametrize(("azimuth", "elevation"), [(90, 15), (200, -40), (10, 89)])
def test_other_sides_match_the_rasterizer(
    azimuth: float, elevation: float, page: Page, sequence: GaussianSequence, orbit: Orbit
) -> None:
    page.evaluate(f"ss4d.player.camera = {{...ss4d.player.camera, azimuth: {azimuth}, elevation: {elevation}}}; 0")
    assert psnr(picture(page), rasterized(sequence[0], orbit, azimuth, elevation)) > PSNR_MIN


@pytest.mark.parametrize("size", [(900, 700), (360, 640), (1400, 900)], ids=str)
def test_the_object_is_clear_of_all_controls(
    size: tuple[int, int], browser: Page, result: Path, sequence: GaussianSequence, orbit: Orbit, tmp_path: Path
) -> None:
    open_player(browser, result / "player.html", *size)
    boxes = browser.evaluate(
        "Object.fromEntries(['header', '#tools', '#side', 'footer'].map((query) => {"
        "const element = document.querySelector(query); element.style.visibility = 'hidden';"
        "const box = element.getBoundingClientRect(); return [query, [box.left, box.top, box.right, box.bottom]] }))"
    )
    browser.wait("getComputedStyle(document.getElementById('wait')).opacity === '0'")  # the cover has faded
    browser.screenshot(tmp_path / "page.png")
    shown = np.asarray(Image.open(tmp_path / "page.png").convert("RGB")) / 255.0
    assert shown.shape[:2] == size[::-1] and (shown.min(axis=-1) < 0.9).mean() > 0.02
    for left, top, right, bottom in (np.round(box).astype(int) for box in boxes.values()):
        assert (shown[top:bottom, left:right] == 1).all()
    if size == (900, 700):  # where the room's bounds are whole pixels
        top, bottom = int(boxes["#tools"][3]), int(boxes["footer"][1])
        side, left = bottom - top, (size[0] - (bottom - top)) // 2
        expected = rasterized(sequence[0], orbit, size=(side, side))
        assert psnr(shown[top:bottom, left : left + side], expected) > PSNR_MIN


def test_it_plays_fast_enough_and_pauses(page: Page) -> None:
    page.evaluate(COUNT_PICTURES)
    started = processor_seconds(page)
    page.press(" ")
    page.wait("pictures >= 12")
    assert page.evaluate("ss4d.player.playback.playing && ss4d.player.rate > 0")
    assert page.evaluate("pictures") / (processor_seconds(page) - started) >= PICTURES_PER_SECOND_MIN
    page.press(" ")
    page.wait("!ss4d.player.playback.playing")
    page.evaluate("new Promise((resolve) => setTimeout(resolve, 300))")
    frame = frame_shown(page)
    page.evaluate("new Promise((resolve) => setTimeout(resolve, 600))")
    assert frame_shown(page) == frame


def test_the_input_goes_in_step(page: Page) -> None:
    sources = []
    for frame in range(4):
        page.evaluate(f"ss4d.player.show({frame})")
        page.wait(f"ss4d.player.index === {frame}")
        sources.append(page.evaluate("document.getElementById('input-frame').src"))
    assert len(set(sources)) == 4 and all(source.startswith("data:image/webp") for source in sources)


def test_keys(page: Page, orbit: Orbit) -> None:
    for key, frame in (("ArrowRight", 1), ("ArrowRight", 2), ("End", 3), ("ArrowRight", 0), ("ArrowLeft", 3)):
        page.press(key)
        page.wait(f"ss4d.player.index === {frame}")
    page.press("3")
    assert camera(page)["azimuth"] == 180
    page.press("r")
    assert camera(page)["azimuth"] == 0 and camera(page)["radius"] == orbit.radius
    page.press("5")
    assert camera(page)["elevation"] == 89 and camera(page)["fov"] == orbit.fov_deg
    page.press("v")
    page.wait("document.body.classList.contains('voxels')")
    assert page.evaluate("count.textContent").endswith(" voxels")
    page.press(".")
    page.press("l")
    page.wait("speed.textContent === '2×' && loop.textContent === 'Bounce'")


def test_once_stops_at_the_end(page: Page) -> None:
    page.press("l")
    page.press("l")
    page.wait("loop.textContent === 'Once'")
    page.press(" ")
    page.wait("ss4d.player.index === 3 && !ss4d.player.playback.playing")


def test_what_comes_next_is_what_is_decoded_ahead(page: Page) -> None:
    """There and back, and around again when the loop is changed on the way back."""
    walk = """([loop, index, steps]) => {
        const { playback } = ss4d.player, seen = [];
        [playback.loop, playback.playing, playback.due] = [loop, true, 0];
        for (let step = 1; step <= steps; step++) {
            const next = playback.next(index);
            index = playback.advance(index, 1e9 * step);
            seen.push(next === index ? index : -1);
        }
        return seen;
    }"""
    last = page.evaluate("ss4d.player.clip.length") - 1
    there_and_back = [*range(1, last + 1), *range(last - 1, -1, -1)]
    assert page.evaluate(f"({walk})({json.dumps(['bounce', 0, 2 * last + 1])})") == [*there_and_back, 1]
    assert page.evaluate(f"({walk})({json.dumps(['bounce', last, 1])})") == [last - 1]
    assert page.evaluate(f"({walk})({json.dumps(['loop', last - 1, 3])})") == [last, 0, 1]


def test_mouse(page: Page, orbit: Orbit) -> None:
    page.call("Emulation.setDeviceMetricsOverride", width=500, height=500, deviceScaleFactor=1, mobile=False)
    before = picture(page)
    drag(page, (250, 250), (290, 260))
    turned = camera(page)
    assert turned["azimuth"] == pytest.approx(360 - 40 * 0.45) and turned["elevation"] == pytest.approx(10 * 0.45)
    assert psnr(before, picture(page)) < 30
    drag(page, (250, 250), (290, 250), button="right", buttons=2)
    assert camera(page)["azimuth"] == turned["azimuth"]
    width = 2 * orbit.radius * np.tan(np.radians(orbit.fov_deg) / 2)  # of the room between the bars, at the target
    side = page.evaluate("document.querySelector('footer').offsetTop - tools.offsetTop - tools.offsetHeight")
    assert np.linalg.norm(page.evaluate("ss4d.player.camera.target")) == pytest.approx(40 / side * width)
    page.call("Input.dispatchMouseEvent", type="mouseWheel", x=250, y=250, deltaX=0, deltaY=-200)
    page.wait(f"ss4d.player.camera.radius < {0.95 * orbit.radius}")


def test_voxels_and_background(page: Page) -> None:
    page.evaluate("kind.click()")
    page.wait("document.body.classList.contains('voxels')")
    voxels = picture(page)
    assert (voxels[0, 0] == 1).all() and (voxels.min(axis=-1) < 0.9).mean() > 0.05
    page.press("b")
    page.wait("document.getElementById('background').title.includes('Grey')")
    assert picture(page)[0, 0] == pytest.approx(0.5, abs=0.01)


def test_a_screenshot_is_saved(page: Page, result: Path, tmp_path: Path) -> None:
    page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.press("s")
    end = time.monotonic() + 10
    while not (tmp_path / "demo-00000.png").is_file():
        assert time.monotonic() < end
        time.sleep(0.1)
    page.evaluate("new Promise((resolve) => setTimeout(resolve, 300))")
    assert Image.open(tmp_path / "demo-00000.png").size == (256, 256)


def test_a_phone_by_touch(browser: Page, result: Path, orbit: Orbit) -> None:
    browser.events.clear()
    open_player(browser, result / "player.html", 360, 640, touch=True)
    overflow = (
        "document.documentElement.scrollWidth > innerWidth || document.documentElement.scrollHeight > innerHeight"
    )
    assert not browser.evaluate(overflow)
    inside = (
        "[...document.querySelectorAll('button, input')].filter((e) => e.offsetParent && !e.closest('dialog'))"
        ".every((e) => { const r = e.getBoundingClientRect();"
        "return r.left >= 0 && r.right <= innerWidth && r.top >= 0 && r.bottom <= innerHeight })"
    )
    assert browser.evaluate(inside)
    touch(browser, [[(180, 300)], [(220, 300)]])
    assert camera(browser)["azimuth"] == pytest.approx(360 - 40 * 0.45)
    touch(browser, [[(150, 300), (210, 300)], [(120, 300), (240, 300)]])
    assert camera(browser)["radius"] == pytest.approx(orbit.radius / 2, abs=0.05)
    tap = browser.evaluate("(() => { const r = next.getBoundingClientRect(); return [r.x + 9, r.y + 9] })()")
    touch(browser, [[tuple(tap)]])
    browser.wait("ss4d.player.index === 1")
    assert not complaints(browser)


def touch(page: Page, moments: list[list[tuple[float, float]]]) -> None:
    """Fingers down at the first moment, moved through the others, and up."""
    for index, points in enumerate(moments):
        fingers = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)]
        page.call("Input.dispatchTouchEvent", type="touchMove" if index else "touchStart", touchPoints=fingers)
    page.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])


def test_a_file_cut_short_says_so(browser: Page, result: Path, tmp_path: Path) -> None:
    text = (result / "player.html").read_text("utf-8")
    (tmp_path / "player.html").write_text(text[: text.index('<script type="text/plain" id="frame-2"')], "utf-8")
    open_player(browser, tmp_path / "player.html", 256, 256)
    browser.evaluate("ss4d.player.show(2)")
    browser.wait("document.body.classList.contains('failed')")
    assert "Frame 3 is missing: the file is cut short" in browser.evaluate("message.textContent")
    drawn = browser.evaluate("ss4d.player.drawn.length")
    browser.evaluate("ss4d.player.redraw()")  # the frame of before, as when the window changes its size
    browser.wait(f"ss4d.player.drawn.length > {drawn}")
    assert browser.evaluate("document.body.classList.contains('failed')")
    browser.evaluate("ss4d.player.show(1)")  # a whole frame is shown without the message, though the next is missing
    browser.wait("ss4d.player.index === 1 && !document.body.classList.contains('failed')")
    browser.evaluate("ss4d.player.togglePlay()")
    browser.wait("document.body.classList.contains('failed') && !document.body.classList.contains('playing')")


@pytest.mark.parametrize("end", ['id="frame-1"', 'id="frame-0">', 'id="clip">'])
def test_a_file_without_a_whole_first_frame_says_so(browser: Page, result: Path, tmp_path: Path, end: str) -> None:
    text = (result / "player.html").read_text("utf-8")
    place = text.index("<script>ss4d.start()") if end == 'id="frame-1"' else text.index(end) + len(end) + 100
    (tmp_path / "player.html").write_text(text[:place], "utf-8")
    browser.open(tmp_path / "player.html")
    browser.wait("document.body.classList.contains('failed')")
    assert browser.evaluate("message.textContent") == "The file is cut short."


def test_a_single_frame_and_an_empty_one(browser: Page, tmp_path: Path) -> None:
    rotation = torch.tensor([[1.0, 0, 0, 0]])
    # Thinner than a pixel, so that the checkpoint's own screen filter makes what is seen of it.
    dot = Gaussians(
        *(
            torch.zeros(1, 3),
            torch.tensor([[0.1, 0.1, 0.002]]),
            rotation,
            torch.full((1, 1), 0.9),
            torch.zeros(1, 1, 3),
        ),
        kernel_size=0.7,
    )
    empty = Gaussians(*(torch.zeros(0, *size) for size in ((3,), (3,), (4,), (1,), (1, 3))))
    browser.events.clear()
    write_player(tmp_path / "player.html", GaussianSequence([dot]), title="</script>&<b>one")
    open_player(browser, tmp_path / "player.html", 256, 256)
    assert browser.evaluate("document.title") == "</script>&<b>one"
    assert psnr(picture(browser), rasterized(dot, Orbit())) > PSNR_MIN
    write_player(tmp_path / "player.html", GaussianSequence([empty]))
    open_player(browser, tmp_path / "player.html", 256, 256)
    browser.wait("count.textContent === '0 Gaussians'")
    assert (picture(browser) == 1).all()
    assert not complaints(browser)
