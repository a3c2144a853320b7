"""A job's process: `inference.py`, ended when the app that started it ends: `python -m ss4d.app.worker ARGUMENTS`."""

from __future__ import annotations

import os
import sys
import threading


def end_with_the_app() -> None:
    """The app holds the other end of standard input and writes nothing: it is closed when the app is gone."""
    os.read(sys.stdin.fileno(), 1)  # not through the buffer, whose lock must be free when Python ends
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=end_with_the_app, daemon=True).start()
    import inference

    sys.exit(inference.main(only_there=True))  # a visitor's result is in the app's folder, or nowhere
