"""What the choices that published protocols leave open are worth: the same results scored under each alternative.

    python -m scripts.eval assumptions protocol=NAME data=DIR method=METHOD

A method runs once for every object and seed; its results are scored under the protocol and under each alternative, and
the scores are kept like those of `run`. The table goes to OUT/assumptions.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ss4d.evaluation import evaluate
from ss4d.evaluation.methods.create import create_method
from ss4d.evaluation.methods.method import Method
from ss4d.evaluation.options import RunOptions
from ss4d.evaluation.prediction import Prediction
from ss4d.evaluation.protocol import Protocol, load_protocol
from ss4d.evaluation.results import protocol_folder, read_method
from ss4d.evaluation.subjects.subject import Subject, SubjectSet
from ss4d.evaluation.summary import summarise
from ss4d.evaluation.table_formats import Column, Row, Table, write_tables
from ss4d.evaluation.tables import origin

COLUMNS = [
    *(
        Column("lpips_vgg", "LPIPS, VGG ↓", 3),
        Column("lpips_alex", "LPIPS, AlexNet ↓", 3),
        Column("clip", "CLIP-S ↑", 3),
    ),
    *(Column("psnr", "PSNR ↑", 2), Column("ssim", "SSIM ↑", 3), Column("fvd", "FVD ↓", 0)),
    *(Column("flickering", "Flickering ↓", 2), Column("flickering_target", "of the truth", 2)),
]


def alternatives(protocol: Protocol, given_pictures: bool = False) -> dict[str, list[str]]:
    """Changes of a protocol by what they do, those alone that change it.

    Args:
        given_pictures: the results are pictures of the protocol's views over its background.
    """
    margin = 0.0 if protocol.crop_margin else 0.05
    found = {
        "as the protocol says": [],
        "tight box": ["crop_shape=tight"],
        "a box per frame": ["crop_per=frame"],
        "a tight box per frame": ["crop_shape=tight", "crop_per=frame"],
        f"margin of {margin:g}": [f"crop_margin={margin}"],
        "no box": ["crop=false"],
        "resized by bicubic": ["crop_filter=bicubic"],
        "resized to the nearest": ["crop_filter=nearest"],
        f"resized to {protocol.crop_size // 2} pixels": [f"crop_size={protocol.crop_size // 2}"],
        "black background": [] if given_pictures else ["background=[0,0,0]"],
        "views within 30 degrees of level": (
            [] if given_pictures or protocol.dataset != "prepared" else ["views.highest_elevation=30"]
        ),
        "CLIP ViT-L/14": ["clip_model=openai/clip-vit-large-patch14"] if "clip" in protocol.metrics else [],
        "FVD over steps of time": ["fvd_variant=steps_of_time"] if "fvd" in protocol.metrics else [],
        "FVD as Consistent4D": ["fvd_variant=consistent4d"] if "fvd" in protocol.metrics else [],
    }
    first = next(iter(found))
    return {name: changes for name, changes in found.items() if changes or name == first}


class Remembering(Method):
    """A method whose results are kept in memory, so that other protocols score the very same ones."""

    def __init__(self, method: Method, results: dict[tuple[str, int], Prediction]):
        super().__init__()
        self.method, self.results = method, results
        self.samples, self.identity = method.samples, method.identity

    def files(self, name: str) -> list[Path]:
        return list(self.method.files(name))

    def predict(self, subject: Subject, seed: int) -> Prediction:
        key = (subject.name, seed)
        if key not in self.results:
            prediction = self.method.predict(subject, seed)
            if prediction.views is not None:  # they are of one protocol's cameras
                return prediction
            self.results[key] = prediction
        return self.results[key]


def run(options: RunOptions) -> list[str]:
    """Score a method's results under the protocol and its alternatives, and write the table.

    Raises:
        ValueError: as `evaluate.run`.
    """
    results: dict[tuple[str, int], Prediction] = {}
    base = options.load_protocol()
    methods: list[Method] = []

    def create(options: RunOptions, protocol: Protocol, subjects: SubjectSet) -> Method:
        if options.method == "truth" or not methods:  # the truth is each protocol's own
            methods[:] = [create_method(options, protocol, subjects)]
        return Remembering(methods[0], results)

    table = Table("assumptions", f"{base.title}: what the choices are worth", COLUMNS)
    failed: list[str] = []
    for name, changes in alternatives(base, options.method == "views").items():
        given = [*options.changes, *changes]
        failed += [f"{name}: {sentence}" for sentence in evaluate.run(replace(options, changes=given), create)]
        protocol = load_protocol(options.protocol, given)
        folder = protocol_folder(Path(options.out), protocol)
        if found := read_method(folder, options.name, protocol):
            summary = summarise(folder, found, protocol)
            row = Row(name, False, [summary.metrics.get(column.metric) for column in COLUMNS], origin(summary))
            table.rows.append(replace(row, is_bound=True))  # protocols do not compete
    write_tables([table], Path(options.out) / "assumptions")
    return failed
