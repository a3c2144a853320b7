"""The options of each evaluation command. Importing them is cheap, so that `--help` answers at once."""

from __future__ import annotations

from dataclasses import MISSING, Field, dataclass, fields
from typing import Any

from ss4d.evaluation.protocol import Protocol, load_protocol, names_in
from ss4d.evaluation.typed import option

PROTOCOL = f"{', '.join(names_in())}, or a .yaml file"
METHODS = (
    "ours, reconstruction, nearest_clip, alpha_copy, average_occupancy, true_voxels, truth, views, gaussians or meshes"
)
CHANGES = "of the protocol (docs/evaluation.md)"
DEVICE = "cpu or cuda: where the models run"
PRECISION = "fp32, bf16 or fp16, instead of the checkpoint's (on a CPU: of fp32)"


# Options of `run` that some methods alone read.
METHODS_WITH = {
    **dict.fromkeys(("steps", "guidance", "refine", "precision"), ("ours",)),
    "model": ("ours", "reconstruction"),
    "results": ("views", "gaussians", "meshes"),
    **dict.fromkeys(("axes", "azimuth"), ("gaussians", "meshes")),
}


@dataclass(kw_only=True)
class ProtocolOptions:
    """A protocol and the data set it is about."""

    protocol: str = option(PROTOCOL)
    changes: list[str] = option(CHANGES, [], prefix="protocol.")
    data: str = option("the protocol's data set", "data/tiny")

    def load_protocol(self) -> Protocol:
        """The protocol with its changes."""
        return load_protocol(self.protocol, self.changes)


@dataclass(kw_only=True)
class JudgingOptions:
    """How methods are run and their results judged."""

    seeds: list[int] = option("of methods that sample; others take the first", [0, 1, 2])
    steps: int | None = option("ours: sampling steps, instead of the checkpoint's", None)
    guidance: float | None = option("ours: guidance strength, instead of the checkpoint's", None)
    refine: bool = option("ours: true: align results with the pixels of their input (ss4d.refine)", False)
    weights: str | None = option("folder with the weights of the metrics' networks", None)
    download: bool = option("true: fetch weights that are not in that folder from the Hub", False)
    weights_hub: str | None = option("Hub repository with the weights of networks that have none of their own", None)
    device: str = option(DEVICE, "cpu")


@dataclass(kw_only=True)
class RunOptions(JudgingOptions, ProtocolOptions):
    """Of `run`, and of each method of a suite."""

    method: str = option(METHODS, "ours")
    label: str | None = option("the method's name in results and tables, instead of method=", None)
    out: str = option("the folder of results", "outputs/eval")
    model: str = option("ours, reconstruction: checkpoint folder, run folder or Hub id", "checkpoints/ss4d-tiny")
    precision: str | None = option(f"ours: {PRECISION}", None)
    results: str | None = option("views, gaussians, meshes: the folder that another method wrote", None)
    axes: str | None = option(
        "which way is up in the files: y_up (meshes without it), z_up; gaussians also y_down (without it as they say)",
        None,
    )
    azimuth: str = option("gaussians, meshes: degrees to turn results by; gaussians: method or object finds them", "0")
    shard: str = option("this process's part of the objects, i/n with i from 0", "0/1")
    inputs: str | None = option("write the inputs for another method into this folder, and judge nothing", None)

    @property
    def name(self) -> str:
        """The method's name in results."""
        return self.label or self.method

    def check_used(self) -> None:
        """ValueError for an option that would change nothing: one that the method, or writing inputs, does not read."""
        changed = [item.name for item in fields(self) if item.default_factory is MISSING and self._is_changed(item)]
        for name in changed:
            if self.inputs is not None and name not in ("protocol", "data", "inputs"):
                raise ValueError(f"{name}={getattr(self, name)} has no meaning with inputs=, which judges no method.")
            if self.method not in METHODS_WITH.get(name, (self.method,)):
                of = " and ".join(METHODS_WITH[name])
                raise ValueError(f"{name}={getattr(self, name)} is an option of method={of}, not of {self.method}.")

    def _is_changed(self, item: Field[Any]) -> bool:
        return item.default is not MISSING and getattr(self, item.name) != item.default


@dataclass(kw_only=True)
class SuiteOptions:
    """Of `suite`."""

    suite: str = option(f"{', '.join(names_in('suites'))}, or a .yaml file", positional=True)
    arguments: list[str] = option("options of `run`, which hold for all methods", [], prefix="*")


@dataclass(kw_only=True)
class AblateOptions(JudgingOptions):
    """Of `ablate`."""

    ablation: str = option(", ".join(names_in("ablations")), positional=True)
    data: str = option("prepared set to train and judge on; see also data.mean=, data.visible=", "data/tiny")
    out: str = option("the folder of runs and results; starts are in OUT/runs", "outputs/ablations")
    checkpoint: str = option("the models beside an ablated flow, and the image encoder", "checkpoints/ss4d-tiny")
    start: str | None = option("run or checkpoint folder to start from, instead of training one", None)
    changes: list[str] = option(CHANGES, [], prefix="protocol.")
    start_train: list[str] = option("of train.py, for the start alone", [], prefix="start.")
    train: list[str] = option("of train.py, for all runs: train.steps=5 threads=1 dry_run=true", [], prefix="*")


@dataclass(kw_only=True)
class TablesOptions:
    """Of `tables`."""

    results: str = option("the folder of results", "outputs/eval")
    out: str = option("the folder of tables", "outputs/tables")
    study: str | None = option("folder of a user study, for Table 3", None)
    against: str | None = option("a method: also tabulate the differences of all others from it", None)
    changes: list[str] = option("of the protocols, as they were given to `run`", [], prefix="protocol.")


@dataclass(kw_only=True)
class FiguresOptions(ProtocolOptions):
    """Of `figures`."""

    methods: list[str] = option("labels of methods with results, a row each: [ours,nearest_clip]")
    objects: list[str] = option("names of objects; by default the first four", [])
    results: str = option("the folder of results", "outputs/eval")
    seed: int = option("whose results are shown", 0)
    size: int = option("pixels of a picture", 128)
    out: str = option("the picture to write", "outputs/figure.png")


@dataclass(kw_only=True)
class TimingOptions:
    """Of `timing`."""

    clip: str = option("a video or a folder of images", positional=True)
    model: str = option("checkpoint folder or Hub id", "checkpoints/ss4d-tiny")
    label: str = option("the method's name in Table 4", "ours")
    frames: int = option("frames to take, evenly over the clip", 16)
    repeats: int = option("warm runs", 3)
    seed: int = option("of all runs", 0)
    device: str | None = option(f"{DEVICE}; by default cuda where there is one", None)
    precision: str | None = option(PRECISION, None)
    results: str = option("the folder of results", "outputs/eval")


@dataclass(kw_only=True)
class StudyOptions:
    """Of `study`."""

    action: str = option("build: make the page; aggregate: average the answers", positional=True)
    study: str = option("the folder of the study", positional=True)
    protocol: str = option(f"build: {PROTOCOL}", "davis")
    changes: list[str] = option(CHANGES, [], prefix="protocol.")
    data: str = option("build: the protocol's data set", "data/davis")
    methods: list[str] = option("build: labels of methods with results, [ours,DG4D]", [])
    results: str = option("build: the folder of results", "outputs/eval")
    seed: int = option("build: whose results are shown", 0)
    checks: int = option("build: attention checks, whose results are of another object", 2)
