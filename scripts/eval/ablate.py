"""Train the variants of an ablation, judge them, write the table: `python -m scripts.eval.ablate NAME [key=value ...]`.

NAME is one of `configs/eval/ablations/`. Options:

  data=DIR             the prepared set to train and judge on; feature_aggregation takes data.mean=DIR data.visible=DIR
  out=DIR              outputs/ablations; runs that variants start from lie in out/runs, all else in out/NAME
  checkpoint=DIR       checkpoints/ss4d-tiny: the models beside an ablated flow, and the image encoder
  start=DIR            a run or checkpoint folder that the variants start from, instead of training one
  protocol.KEY=VALUE   of the protocol; seeds=, steps=, guidance=, weights=, download=, weights_hub=, device= as in
                       scripts.eval.run
  start.KEY=VALUE      of train.py, for the run that the variants start from
  KEY=VALUE            of train.py, for all runs: train.steps=5 threads=1 dry_run=true; what the start sets itself,
                       such as its frames, changes by start.KEY alone, but for train.KEY

Started again, finished runs and results are left alone and a stopped run goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import DictConfig

from scripts.eval.ablation import Ablation, Start, ablation_names, read_ablation
from scripts.eval.ablation_runs import resolve, train_run
from scripts.eval.differences import difference_table
from scripts.eval.latents_check import check_latents
from scripts.eval.options import Command, load_protocol, parse
from scripts.eval.run import evaluate, exit_status
from scripts.eval.tables import Table, build_table, write_tables
from scripts.export import export
from ss4d.evaluation.results import Result, protocol_folder, read_method
from ss4d.evaluation.subject import open_subjects
from ss4d.models.folder import PipelineFolder

EVALUATION = ("seeds", "steps", "guidance", "weights", "download", "weights_hub", "device")  # options of run.py
OWN_KEYS = ("experiment", "run_dir", "init_from", "data.root")  # of train.py, which the ablation sets itself


@dataclass
class Request:
    """A parsed command line."""

    data: Path = Path("data/tiny")
    out: Path = Path("outputs/ablations")
    checkpoint: Path = Path("checkpoints/ss4d-tiny")
    start: Path | None = None
    sets: dict[str, Path] = field(default_factory=dict)  # data sets by name, where those are what varies
    evaluation: list[str] = field(default_factory=list)
    protocol: list[str] = field(default_factory=list)
    start_train: list[str] = field(default_factory=list)
    train: list[str] = field(default_factory=list)


@dataclass
class Plan:
    """What is trained, and where."""

    start: DictConfig | None
    variants: dict[str, DictConfig]  # by label

    @property
    def is_dry(self) -> bool:
        """Whether costs are to be printed, and nothing made."""
        return any(config.dry_run for config in self.variants.values())


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 where all variants were trained and judged, else 1."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] in ("-h", "--help"):
        print(f"{__doc__}\nAblations: {', '.join(ablation_names())}", file=sys.stderr)
        return 2
    return exit_status(lambda: run_ablation(given[0], given[1:]))


def run_ablation(name: str, arguments: Sequence[str]) -> list[str]:
    """Train, judge and tabulate; returns what could not be judged.

    Raises:
        ValueError: an option, data set or checkpoint that does not fit, before anything is trained; a run that failed
            or was stopped.
    """
    checkpoint = next((a.partition("=")[2] for a in arguments if a.startswith("checkpoint=")), str(Request.checkpoint))
    ablation = read_ablation(name, checkpoint)
    request = parse_request(arguments, ablation)
    plan = make_plan(ablation, request)
    folder = request.out / ablation.name
    commands = {label: judging(ablation, request, label) for label in ablation.variants}
    if not plan.is_dry:
        check_before_training(ablation, request, plan, commands)
    if plan.start is not None:
        train_run(plan.start)
    failed: list[str] = []
    for label, config in plan.variants.items():
        train_run(config)
        if plan.is_dry:
            continue
        if ablation.method == "ours":
            export_variant(config, request.checkpoint, folder / "models" / label)
        for command in commands[label]:
            failed += evaluate(command)
    if not plan.is_dry:
        write_tables(build(ablation, request), folder)
    return failed


def parse_request(arguments: Sequence[str], ablation: Ablation) -> Request:
    """Sort the options by whom they are for.

    Raises:
        ValueError: text that is no option, one that the ablation sets itself, a data set that is not named.
    """
    request = Request()
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals and not key.startswith("~"):
            raise ValueError(f"{argument!r} is not of the form key=value, such as data=data/tiny or train.steps=5.")
        if key in ("data", "out", "checkpoint", "start"):
            setattr(request, key, Path(value))
        elif key.partition(".")[0] == "data" and key.partition(".")[2] in ablation.sets:
            request.sets[key.partition(".")[2]] = Path(value)
        elif key in EVALUATION:
            request.evaluation.append(argument)
        elif key.startswith("protocol."):
            request.protocol.append(argument)
        elif key_of(argument) in (*OWN_KEYS, *ablation.vary):
            raise ValueError(f"{key_of(argument)} cannot be given: the ablation {ablation.name} sets it itself.")
        elif key.startswith("start."):
            request.start_train.append(argument.removeprefix("start."))
        else:
            request.train.append(argument)
    check_sets(ablation, request)
    if ablation.start is None and (request.start is not None or request.start_train):
        raise ValueError(f"The variants of {ablation.name} start from nothing: leave start= and start.KEY= out.")
    return request


def check_sets(ablation: Ablation, request: Request) -> None:
    """ValueError where data sets vary and one is not named, or was made by another option than its name says."""
    from omegaconf import OmegaConf

    for name, option in ablation.sets.items():
        if name not in request.sets:
            raise ValueError(f"{ablation.name} needs data.{name}=DIR, a set made with {option} (docs/evaluation.md).")
        key, _, wanted = option.partition("=")
        config = request.sets[name] / "config.yaml"
        if config.exists() and (found := OmegaConf.select(OmegaConf.load(config), key)) != wanted:
            raise ValueError(f"data.{name}={request.sets[name]} must be made with {option}, but {config} says {found}.")


def make_plan(ablation: Ablation, request: Request) -> Plan:
    """The configs of all runs, which train.py accepts."""
    inherited: list[str] = []
    start = None
    if ablation.start is not None:
        run_dir = request.start or request.out / "runs" / ablation.start.name
        inherited = [f"init_from={run_dir}", *ablation.start.train]
        if request.start is None:
            own = start_overrides(ablation.start, request)
            start = resolve(command_line(ablation.start.experiment, run_dir, request.data, own))
    variants = {}
    for label in ablation.variants:
        chosen = [] if ablation.sets else ablation.overrides(label)
        run_dir = request.out / ablation.name / "runs" / label
        overrides = [*inherited, *ablation.train, *request.train, *chosen]
        variants[label] = resolve(command_line(ablation.experiment, run_dir, root(ablation, request, label), overrides))
    return Plan(start, variants)


def start_overrides(start: Start, request: Request) -> list[str]:
    """What train.py is told for a start: a key that it sets itself keeps its value, unless it is of `train` or given
    for the start."""
    fixed = {key_of(override) for override in start.train if not key_of(override).startswith("train.")}
    given = [override for override in request.train if key_of(override) not in fixed]
    return [*start.train, *given, *request.start_train]


def key_of(override: str) -> str:
    """The key that an override changes, adds or removes."""
    return override.partition("=")[0].lstrip("+~")


def command_line(experiment: str, run_dir: Path, data: Path, overrides: Sequence[str]) -> list[str]:
    """Overrides of train.py."""
    return [f"experiment={experiment}", f"run_dir={run_dir}", f"data.root={data}", *overrides]


def root(ablation: Ablation, request: Request, label: str) -> Path:
    """The data set of a variant."""
    return request.sets[ablation.variants[label]] if ablation.sets else request.data


def judging(ablation: Ablation, request: Request, label: str) -> list[Command]:
    """The evaluations of a variant, one for each setting."""
    folder = request.out / ablation.name
    model = folder / ("models" if ablation.method == "ours" else "runs") / label
    own = [f"method={ablation.method}", f"label={label}", f"model={model}", f"out={folder}"]
    data = f"data={root(ablation, request, label)}"
    return [
        parse([f"protocol={ablation.protocol}", *setting, *request.protocol, *own, data, *request.evaluation])
        for setting in protocol_changes(ablation)
    ]


def protocol_changes(ablation: Ablation) -> list[list[str]]:
    """What each setting changes of the protocol."""
    return [[f"protocol.{change}" for change in changes] for changes in ablation.settings.values()]


def check_before_training(ablation: Ablation, request: Request, plan: Plan, commands: dict[str, list[Command]]) -> None:
    """ValueError where what is trained could not be judged: objects or views lack, or latents are of other encoders."""
    for judged in commands.values():
        for command in judged:
            subjects = open_subjects(command.protocol, Path(command.options.data))
            subjects.load(subjects.names()[0])
    if ablation.method == "ours":
        config = next(iter(plan.variants.values()))
        PipelineFolder.open(request.checkpoint)
        kind = ablation.experiment.partition("_")[0]
        check_latents(kind, request.data, config.data.resolution, request.checkpoint)


def export_variant(config: DictConfig, checkpoint: Path, out: Path) -> None:
    """A pipeline folder with the run's flow, all else and the samplers being the checkpoint's."""
    base = PipelineFolder.open(checkpoint).args
    run_dir = Path(config.run_dir)
    export({config.objective.name: run_dir}, out, base["sparse_structure_sampler"], base["slat_sampler"], checkpoint)


def build(ablation: Ablation, request: Request) -> list[Table]:
    """The ablation's table, one for each setting, and the differences of its variants."""
    tables: list[Table] = []
    judged: dict[str, dict[str, list[Result]]] = {}
    folder = request.out / ablation.name
    given = [option.removeprefix("protocol.") for option in request.protocol]
    for number, (setting, changes) in enumerate(ablation.settings.items()):
        spec = ablation.table()
        spec["title"] += f", {setting}" if setting else ""
        if len(ablation.settings) > 1:
            spec["id"] = f"{spec['id']}_{number + 1}"
        tables.append(build_table(spec, folder, None, [*changes, *given]))
        protocol = load_protocol(ablation.protocol, [*changes, *given])
        methods = protocol_folder(folder, protocol)
        judged[setting] = {label: read_method(methods, label, protocol) for label in ablation.variants}
    title = f"{ablation.title}: differences, object by object"
    return [*tables, difference_table(title, tables[0].columns, judged)]


if __name__ == "__main__":
    sys.exit(main())
