"""The web app in a real browser, from upload to download; a second visitor waits, and nothing else is served."""

from __future__ import annotations

import http.client
import json
import os
import select
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Page, chromium, opened_page
from PIL import Image

from ss4d.viewer.result import read_result

pytest.importorskip("gradio", reason="needs Gradio: pip install -e '.[app]'")

ROOT = Path(__file__).parent.parent.parent
CLIP = ROOT / "assets" / "demo.mp4"
SWIFTSHADER = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
SECONDS = 240.0  # that a busy machine may take for anything
WAITING = "document.querySelector('#result').innerText"
EXAMPLE = "[...document.querySelectorAll('button')].find((b) => /jumps/.test(b.innerText))"
SET_NUMBER = """((place, value) => {
    const input = document.querySelector(place + " input[type=number]");
    input.value = value;
    for (const name of ["input", "change", "blur"]) input.dispatchEvent(new Event(name, { bubbles: true }));
})"""

pytestmark = pytest.mark.slow


@dataclass
class App:
    """A running app."""

    port: int
    temporary: Path  # its folder is in here

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def folder(self) -> Path:
        (folder,) = self.temporary.glob("ss4d-app-*")
        return folder

    def jobs(self) -> list[Path]:
        return [*(self.folder / "jobs").glob("*")]

    def get(self, path: str) -> tuple[int, str]:
        """Ask for a path as it is written; browsers and urllib would take out its dots."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)) as connection:
            connection.putrequest("GET", path, skip_host=False)
            connection.endheaders()
            answer = connection.getresponse()
            return answer.status, answer.read().decode("utf-8", "replace")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    temporary = tmp_path_factory.mktemp("app")
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "app.py", "--port", str(port)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary), "no_proxy": "127.0.0.1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    app = App(port, temporary)
    try:
        assert process.stdout is not None and str(port) in process.stdout.readline()
        end = time.monotonic() + SECONDS
        while socket.socket().connect_ex(("127.0.0.1", port)):
            assert time.monotonic() < end
            time.sleep(0.1)
        yield app
    finally:
        process.terminate()
        process.wait(60)
    assert not list(temporary.glob("ss4d-app-*"))


@pytest.mark.skipif(chromium() is None, reason="needs Chromium: apt-get install chromium")
def test_from_upload_to_download(app: App, tmp_path: Path) -> None:
    binary = chromium()
    assert binary
    with opened_page(binary, tmp_path / "first", *SWIFTSHADER) as first:
        start(app, first)
        give(first, CLIP)
        assert ready_to_generate(first)
        first.evaluate(f"{SET_NUMBER}('#frames', 2)")
        first.evaluate(f"{SET_NUMBER}('#steps', 2)")
        first.evaluate("document.querySelector('#generate').click()")
        first.wait(f"/model|structure|latents/.test({WAITING})", SECONDS)
        with opened_page(binary, tmp_path / "second", *SWIFTSHADER) as second:
            start(app, second)
            second.wait(f"!!{EXAMPLE}", SECONDS)
            second.evaluate(f"{EXAMPLE}.click()")
            assert ready_to_generate(second)
            second.evaluate("document.querySelector('#generate').click()")
            second.wait(f"/queue: 1/.test({WAITING})", SECONDS)
            second.screenshot(tmp_path / "waits.png")
            second.evaluate("document.querySelector('#cancel').click()")
            second.wait(f"/Cancelled/.test({WAITING})", SECONDS)
            first.wait("!!document.querySelector('#result iframe')", SECONDS)
            # The frame is of another origin for the page, so its content is looked at in a page of its own.
            player = first.evaluate("document.querySelector('#result iframe').src")
            second.call("Page.navigate", url=player)
            second.wait("!!document.body && document.body.classList.contains('ready')", SECONDS)
        first.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        first.evaluate("document.querySelector('#result').scrollIntoView()")
        first.evaluate("document.querySelector('#result a').click()")
        until((tmp_path / "demo.zip").is_file)
        until(lambda: player_is_drawn(first, tmp_path / "result.png"))
    zipfile.ZipFile(tmp_path / "demo.zip").extractall(tmp_path)
    result = read_result(tmp_path / "demo")
    assert len(result.gaussians) == 2 and min(len(frame) for frame in result.gaussians) > 1000
    until(lambda: not app.jobs())  # both pages are closed


def start(app: App, page: Page) -> None:
    for domain in ("Page", "Runtime", "DOM"):
        page.call(f"{domain}.enable")
    page.call("Page.navigate", url=app.url)
    page.wait("!!document.querySelector('#clip input[type=file]')", SECONDS)
    text = page.evaluate("document.body.innerText")
    assert "at most 100 MB and 60 seconds" in " ".join(text.split())


def give(page: Page, file: Path) -> None:
    """Choose a file for upload."""
    root = page.call("DOM.getDocument")["root"]["nodeId"]
    node = page.call("DOM.querySelector", nodeId=root, selector="#clip input[type=file]")["nodeId"]
    page.call("DOM.setFileInputFiles", nodeId=node, files=[str(file)])


def ready_to_generate(page: Page) -> bool:
    """Whether the preview is there in the end, and the button can be pressed."""
    page.wait("!!document.querySelector('#preview img')?.naturalWidth", SECONDS)
    page.wait("!document.querySelector('#generate').disabled", SECONDS)
    return True


def player_is_drawn(page: Page, path: Path) -> bool:
    """Whether a screenshot shows more than one colour in the middle of the player's frame."""
    place = "(() => { const r = document.querySelector('#result iframe').getBoundingClientRect();"
    x, y = page.evaluate(f"{place} return [r.x + r.width / 2, r.y + r.height / 2] }})()")
    page.screenshot(path)
    box = (int(x) - 100, int(y) - 100, int(x) + 100, int(y) + 100)
    return float(np.ptp(np.asarray(Image.open(path).convert("L").crop(box), float))) > 50


def until(condition: Any) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.skipif(chromium() is None, reason="needs Chromium: apt-get install chromium")
def test_a_zip_named_mp4_is_refused_on_the_page(app: App, tmp_path: Path) -> None:
    binary = chromium()
    assert binary
    with zipfile.ZipFile(tmp_path / "clip.mp4", "w") as archive:
        archive.writestr("clip.txt", "no video" * 1000)
    with opened_page(binary, tmp_path / "profile", *SWIFTSHADER) as page:
        start(app, page)
        give(page, tmp_path / "clip.mp4")
        page.wait("!!document.querySelector('#preview [role=alert]')", SECONDS)
        sentence = page.evaluate("document.querySelector('#preview [role=alert]').innerText")
        assert sentence.startswith("clip.mp4 cannot be read as a video")
        assert page.evaluate("document.querySelector('#generate').disabled")


def test_an_upload_of_2_gb_is_refused(app: App) -> None:
    """While it is sent: the answer comes long before its end, and nothing of it stays."""
    before = sum(1 for _ in app.folder.rglob("*"))
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="big.mp4"\r\n\r\n'
    request = f"POST /gradio_api/upload HTTP/1.1\r\nHost: x\r\nContent-Length: {2 * 10**9}\r\n"
    sent, block = 0, bytes(2**20)
    with closing(socket.create_connection(("127.0.0.1", app.port), SECONDS)) as connection:
        connection.sendall(request.encode() + b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" + head)
        while not select.select([connection], [], [], 0)[0]:
            connection.sendall(block)
            sent += len(block)
        assert b" 413 " in connection.recv(1000)
    assert sent < 3 * 10**8
    assert sum(1 for _ in app.folder.rglob("*")) == before


def test_paths_outside_are_refused(app: App) -> None:
    uploads = app.folder / "uploads"
    for path in (
        "/results/x/../../../../../../etc/passwd",
        "/results/..%2f..%2f..%2fetc%2fpasswd/player.html",
        "/results/x/..%2f..%2f..%2f..%2fetc%2fpasswd",
        f"/gradio_api/file={uploads}/../../../../../../../../etc/passwd",
        f"/gradio_api/file={uploads}/..%2f..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "/gradio_api/file=../../../../../../../../etc/passwd",
        "/gradio_api/file=/etc/passwd",
        f"/gradio_api/file={ROOT}/README.md",
        f"/gradio_api/file={app.folder}/jobs",
    ):
        status, text = app.get(path)
        assert status in (403, 404) and "root:" not in text and len(text.splitlines()) == 1, path


def test_a_clip_that_was_not_uploaded_is_refused(app: App) -> None:
    _, text = app.get("/config")
    config = json.loads(text)
    ids = {part["id"]: part["type"] for part in config["components"]}
    take = next(event["id"] for event in config["dependencies"] if "video" in [ids[i] for i in event["inputs"]])
    for path in ("../../../../../../../../etc/passwd", "/etc/passwd", str(CLIP)):
        data = [{"path": path, "meta": {"_type": "gradio.FileData"}}, 2]
        asked = {"data": data, "fn_index": take, "session_hash": "outside"}
        request = urllib.request.Request(
            f"{app.url}gradio_api/queue/join", json.dumps(asked).encode(), {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=SECONDS).read()
        for line in urllib.request.urlopen(f"{app.url}gradio_api/queue/data?session_hash=outside", timeout=SECONDS):
            message = json.loads(line.decode().removeprefix("data: ") or "{}") if line.startswith(b"data: ") else {}
            if message.get("msg") == "process_completed":
                assert message["success"] is False, message
                break
    assert not app.jobs() and not list(app.folder.rglob("passwd"))
