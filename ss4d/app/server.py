"""The server of the web app: the page, and a route for the files of a job."""

from __future__ import annotations

import socket
import threading

import gradio as gr
import uvicorn
from fastapi import FastAPI, Response
from fastapi.responses import FileResponse, PlainTextResponse

from ss4d.app.jobs import Jobs
from ss4d.app.page import STYLE, THEME, build_page

GONE = "There is no such file: results are removed when their page is closed."
LIFETIME = 3600.0  # seconds that files stay which nobody uses, though their page is open
ROUND = 300.0  # seconds between looks for them


def build_server(jobs: Jobs) -> FastAPI:
    """The web application; GRADIO_TEMP_DIR must be `jobs.uploads` when Gradio is imported."""
    server = FastAPI(openapi_url=None)

    @server.get("/results/{token}/{name:path}")
    def result_file(token: str, name: str) -> Response:
        path = jobs.file(token, name)
        if path is None:
            return PlainTextResponse(GONE, 404)
        return FileResponse(path, headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"})

    page = build_page(jobs)
    # As `launch` does; of a mounted page Gradio would take any path of this machine for an upload, and serve a copy.
    page.has_launched = True
    return gr.mount_gradio_app(
        server,
        page,
        path="/",
        max_file_size=jobs.limits.megabytes * 10**6,
        show_error=False,
        ssr_mode=False,
        run_history=False,
        footer_links=[],
        css=STYLE,
        theme=THEME,
    )


def listen(host: str, port: int) -> socket.socket:
    """A socket at an address; port 0: any that is free.

    Raises:
        ValueError: the address cannot be taken.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"the app cannot listen at {host}, port {port} ({reason}): choose another --port") from error


def serve(jobs: Jobs, host: str, port: int) -> None:
    """Serve until interrupted; raises as `listen`."""
    address = listen(host, port)
    stopped = threading.Event()

    def keep_clean() -> None:
        while not stopped.wait(ROUND):
            jobs.remove_old(LIFETIME)

    server = build_server(jobs)
    jobs.examples = set(jobs.uploads.rglob("*"))  # Gradio has copied them by now
    threading.Thread(target=keep_clean, daemon=True).start()
    place = f"[{host}]" if ":" in host else host
    print(f"The web app is at http://{place}:{address.getsockname()[1]}", flush=True)
    try:
        # Open pages hold connections for ever; they are not waited for.
        uvicorn.Server(uvicorn.Config(server, log_level="warning", timeout_graceful_shutdown=1)).run([address])
    finally:
        stopped.set()
