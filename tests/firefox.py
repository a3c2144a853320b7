"""Firefox driven over its Marionette protocol, plain JSON on a socket, which needs no package.

It draws WebGL without a GPU only where it has a display, so it is given one that nobody sees, by Xvfb.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BINARIES = ("firefox", "firefox-esr")
SECONDS = 300  # that anything may take; a busy machine must not fail the tests
PREFERENCES = {
    "marionette.port": 0,  # a free one, which is written into the profile
    "webgl.force-enabled": True,  # by Mesa's software renderer
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
}


def firefox() -> str | None:
    """The browser's path, where there is one, and a display for it."""
    return next((path for name in BINARIES if shutil.which("Xvfb") and (path := shutil.which(name))), None)


class Page:
    """The window of the browser."""

    def __init__(self, connection: socket.socket):
        self.connection, self.stream, self.count = connection, connection.makefile("rb"), 0
        self._read()  # its greeting
        self.call("WebDriver:NewSession", capabilities={"alwaysMatch": {"timeouts": {"script": 1000 * SECONDS}}})

    def call(self, method: str, **params: Any) -> Any:
        """Send a command and wait for its answer."""
        self.count += 1
        message = json.dumps([0, self.count, method, params]).encode()
        self.connection.sendall(b"%d:%s" % (len(message), message))
        _, number, error, result = self._read()
        assert number == self.count and error is None, error
        return result

    def _read(self) -> Any:
        """A message: its length in decimal digits, a colon, JSON."""
        length = b""
        while not length.endswith(b":"):
            byte = self.stream.read(1)
            assert byte, "the browser ended"
            length += byte
        return json.loads(self.stream.read(int(length[:-1])))

    def open(self, path: Path) -> None:
        self.call("WebDriver:Navigate", url=path.as_uri())

    def evaluate(self, script: str) -> Any:
        """The value of an expression on the page, or what its promise resolves to."""
        code = f"const done = arguments[0]; Promise.resolve({script}).then(done)"
        return self.call("WebDriver:ExecuteAsyncScript", script=code, args=[], sandbox=None)["value"]

    def press(self, key: str) -> None:
        """A key down and up."""
        actions = [{"type": kind, "value": key} for kind in ("keyDown", "keyUp")]
        self.call("WebDriver:PerformActions", actions=[{"type": "key", "id": "keyboard", "actions": actions}])

    def wait(self, script: str) -> None:
        """Until an expression is true."""
        end = time.monotonic() + SECONDS
        while not self.evaluate(script):
            assert time.monotonic() < end, f"{script} did not become true"
            time.sleep(0.1)


@contextmanager
def opened_page(binary: str, profile: Path) -> Iterator[Page]:
    """A window of a new browser with a profile of its own, an empty folder."""
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in PREFERENCES.items()]
    (profile / "user.js").write_text("".join(lines))
    arguments = [binary, "--marionette", "--no-remote", "--profile", str(profile)]
    with opened_display() as display:
        environment = {**os.environ, "HOME": str(profile), "DISPLAY": display}
        with (
            ended(subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)),
            socket.create_connection(("127.0.0.1", port_of(profile)), timeout=SECONDS) as connection,
        ):
            yield Page(connection)


@contextmanager
def opened_display() -> Iterator[str]:
    """The name of a display in memory."""
    read, write = os.pipe()
    arguments = ["Xvfb", "-displayfd", str(write), "-screen", "0", "800x700x24", "-nolisten", "tcp"]
    with ended(subprocess.Popen(arguments, pass_fds=[write], stderr=subprocess.DEVNULL)):
        os.close(write)
        with os.fdopen(read) as said:
            yield f":{said.readline().strip()}"


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Afterwards the process has ended."""
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def port_of(profile: Path) -> int:
    """The port that the browser listens to, once it does."""
    file, end = profile / "MarionetteActivePort", time.monotonic() + SECONDS
    while not (file.is_file() and file.read_text()):
        assert time.monotonic() < end, "the browser does not listen"
        time.sleep(0.2)
    return int(file.read_text())
