"""The web app: upload a video, see what the model will see, generate, play, download: `python app.py`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from inference import DEFAULT_MODEL

NEEDED = "The web app needs packages that are not installed: pip install -e '.[app]'"


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--model", default=str(DEFAULT_MODEL), help="checkpoint folder or Hub id (lizb6626/SS4D)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0: for other machines too")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--max-megabytes", type=int, default=100, help="size of an upload")
    parser.add_argument("--max-seconds", type=int, default=60, help="length of a clip")
    parser.add_argument("--max-frames", type=int, default=32, help="frames of a result")
    options = parser.parse_args(argv)
    for name in ("max_megabytes", "max_seconds", "max_frames"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, but it is {getattr(options, name)}")
    return options


def main(argv: list[str] | None = None) -> int:
    options = parse_arguments(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # through the `finally` below, like an interrupt
    from ss4d.app.folder import work_folder
    from ss4d.app.jobs import Jobs, Limits

    limits = Limits(options.max_megabytes, options.max_seconds, options.max_frames)
    from ss4d.models.checkpoint import CheckpointError
    from ss4d.models.folder import PipelineFolder

    model = str(Path(options.model).resolve()) if Path(options.model).exists() else options.model
    try:
        PipelineFolder.open(model)
    except CheckpointError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    with work_folder() as folder:
        jobs = Jobs(folder, model, limits)
        os.environ["GRADIO_TEMP_DIR"] = str(jobs.uploads)  # read when Gradio is imported
        try:
            from ss4d.app.server import serve
        except ModuleNotFoundError as error:
            print(f"error: {NEEDED} ({error.name} is missing)", file=sys.stderr)
            return 1
        try:
            serve(jobs, options.host, options.port)
        except KeyboardInterrupt:
            pass
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        finally:
            jobs.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
