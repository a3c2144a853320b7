"""A headless Chromium driven over the DevTools protocol through a pipe, which needs no package."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BINARIES = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 120  # that anything may take; a busy machine must not fail the tests


def chromium() -> str | None:
    """The browser's path, where there is one."""
    return next((path for name in BINARIES if (path := shutil.which(name))), None)


class Page:
    """A tab of the browser."""

    def __init__(self, read: int, write: int):
        self.read, self.write, self.count, self.session = read, write, 0, ""
        self.buffer = b""
        self.events: list[dict[str, Any]] = []  # what the browser said unasked
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.count:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            chunk = os.read(self.read, 2**16)
            assert chunk, "the browser ended"
            self.buffer += chunk
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def open(self, path: Path) -> None:
        """Go to a file and wait until it is loaded."""
        self.evaluate("window.leaving = true")  # navigate answers while the page of before still stands
        self.call("Page.navigate", url=path.as_uri())
        self.wait("!window.leaving && document.readyState === 'complete' && location.protocol === 'file:'")

    def evaluate(self, script: str) -> Any:
        """The value of an expression on the page, or what its promise resolves to."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = SECONDS) -> None:
        """Until an expression is true."""
        end = time.monotonic() + seconds
        while not self.evaluate(script):
            assert time.monotonic() < end, f"{script} did not become true"
            time.sleep(0.05)

    def press(self, key: str) -> None:
        """A key down and up, as from a keyboard."""
        codes = {
            **{"Enter": ("\r", "Enter", 13), "Tab": ("\t", "Tab", 9), "ArrowRight": ("", "ArrowRight", 39)},
            **{"ArrowLeft": ("", "ArrowLeft", 37), "Home": ("", "Home", 36), "End": ("", "End", 35)},
        }
        text, code, number = codes.get(key, (key, f"Digit{key}", ord(key[0])))
        common = {"key": key, "code": code, "windowsVirtualKeyCode": number}
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def screenshot(self, path: Path) -> None:
        """What the page looks like, as PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextmanager
def opened_page(binary: str, profile: Path, *options: str) -> Iterator[Page]:
    """A page in a new browser with a profile of its own, started with further options."""
    to_browser, commands = os.pipe()
    answers, from_browser = os.pipe()
    options = (
        *("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"),
        *("--window-size=1000,900", f"--user-data-dir={profile}", *options),
    )
    process = subprocess.Popen(
        # The browser reads commands at 3 and writes answers at 4; bash puts the pipes there, sh knows only one digit.
        ["bash", "-c", f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}', binary, *options, "about:blank"],
        pass_fds=(to_browser, from_browser),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_browser)
    os.close(from_browser)
    try:
        yield Page(answers, commands)
    finally:
        os.close(commands)  # a browser whose pipe closes ends
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(answers)
