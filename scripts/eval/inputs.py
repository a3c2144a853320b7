"""What another method needs to take part: `python -m scripts.eval.inputs protocol=NAME data=DIR out=FOLDER`.

Writes for every object `FOLDER/<object>/input/<frame>.png` (RGBA), `cameras.json` (the evaluation views, OpenCV world
to camera, intrinsics in units of the image size, z up, the front facing -y) and `protocol.txt`, the hash that a folder
of results must carry.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from PIL import Image

from scripts.eval.options import Command, parse
from ss4d.evaluation.method_folder import HASH_FILE
from ss4d.evaluation.subject import file_name, open_subjects


def main(arguments: list[str] | None = None) -> int:
    try:
        write_inputs(parse(sys.argv[1:] if arguments is None else arguments))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def write_inputs(command: Command) -> None:
    """Write the inputs of all objects."""
    protocol, out = command.protocol, Path(command.options.out)
    subjects = open_subjects(protocol, Path(command.options.data))
    for name in subjects.names():
        subject, folder = subjects.load(name), out / file_name(name)
        (folder / "input").mkdir(parents=True, exist_ok=True)
        for frame, image in enumerate(subject.video):
            Image.fromarray(image.numpy()).save(folder / "input" / f"{frame:05d}.png")
        views = [{"extrinsics": c.extrinsics.tolist(), "intrinsics": c.intrinsics.tolist()} for c in subject.cameras]
        cameras = {"size": protocol.size, "frames": subject.frames, "views": views}
        (folder / "cameras.json").write_text(json.dumps(cameras, indent=1) + "\n")
        (folder / HASH_FILE).write_text(protocol.hash() + "\n")
    print(f"{len(subjects.names())} objects in {out}")


if __name__ == "__main__":
    sys.exit(main())
