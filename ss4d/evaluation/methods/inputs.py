"""What another method needs to take part: `python -m scripts.eval run protocol=NAME data=DIR inputs=FOLDER`.

Writes for every object `FOLDER/<object>/input/<frame>.png` (RGBA), `cameras.json` (the camera of the input, as the data
set or the protocol says, and the evaluation views; OpenCV world to camera, intrinsics in units of the image size, z up,
the front facing -y) and `protocol.txt`, the hash that a folder of results must carry.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image

from ss4d.cameras import Camera
from ss4d.evaluation.methods.external_files import HASH_FILE
from ss4d.evaluation.protocol import Protocol
from ss4d.evaluation.subjects.subject import SubjectSet, file_name


def entries(camera: Camera) -> dict[str, Any]:
    """A camera as JSON values."""
    return {"extrinsics": camera.extrinsics.tolist(), "intrinsics": camera.intrinsics.tolist()}


def write_inputs(subjects: SubjectSet, protocol: Protocol, out: Path) -> None:
    """Write the inputs of all objects."""
    for name in subjects.names():
        subject, folder = subjects.load(name), out / file_name(name)
        (folder / "input").mkdir(parents=True, exist_ok=True)
        for frame, image in enumerate(subject.video):
            Image.fromarray(image.numpy()).save(folder / "input" / f"{frame:05d}.png")
        views = [entries(camera) for camera in subject.cameras]
        cameras = {
            **{"size": protocol.size, "frames": subject.frames},
            **{"input": entries(subject.input_camera), "views": views},
        }
        (folder / "cameras.json").write_text(json.dumps(cameras, indent=1) + "\n")
        (folder / HASH_FILE).write_text(protocol.hash() + "\n")
    print(f"{len(subjects.names())} objects in {out}")
