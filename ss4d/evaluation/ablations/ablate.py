"""Train the variants of an ablation, evaluate them, write the tables. Started again, finished runs and results are kept
and a stopped run resumes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from ss4d.evaluation import evaluate
from ss4d.evaluation.ablations.ablation import read_ablation
from ss4d.evaluation.ablations.latents import check_latents
from ss4d.evaluation.ablations.plan import Plan, make_plan
from ss4d.evaluation.ablations.runs import train_run
from ss4d.evaluation.differences import difference_table
from ss4d.evaluation.options import AblateOptions
from ss4d.evaluation.protocol import Protocol
from ss4d.evaluation.results import Result, protocol_folder, read_method
from ss4d.evaluation.selection import comparable
from ss4d.evaluation.subjects.open import open_subjects
from ss4d.evaluation.table_formats import Table, write_tables
from ss4d.evaluation.tables import build_table, has_differences
from ss4d.models.folder import PipelineFolder
from ss4d.training.export import export, find_parts


def run(options: AblateOptions) -> list[str]:
    """Train, evaluate and tabulate; returns what could not be evaluated.

    Raises:
        ValueError: an option, data set or checkpoint that does not fit, before anything is trained; a run that failed
            or was stopped.
    """
    plan = make_plan(read_ablation(options.ablation, options.checkpoint), options)
    if not plan.is_dry:
        check_before_training(plan, options)
    if plan.start is not None:
        train_run(plan.start)
    failed: list[str] = []
    for label, config in plan.variants.items():
        train_run(config)
        if plan.is_dry:
            continue
        if plan.ablation.method == "ours":
            export_variant(config, Path(options.checkpoint), plan.folder / "models" / label)
        for judged in plan.evaluations[label]:
            failed += evaluate.run(judged)
    if not plan.is_dry:
        write_tables(tables(plan), plan.folder)
    return failed


def check_before_training(plan: Plan, options: AblateOptions) -> None:
    """ValueError where what is trained could not be evaluated: objects or views are missing, or latents are of other
    encoders."""
    for judged in plan.evaluations.values():
        for run_options in judged:
            subjects = open_subjects(run_options.load_protocol(), Path(run_options.data))
            subjects.load(subjects.names()[0])
    if plan.ablation.method == "ours":
        config = next(iter(plan.variants.values()))
        projects = config.models.flow.args.get("projection") is not None
        if projects != (PipelineFolder.open(options.checkpoint).view_frame() is not None):
            frames = ("clip", "view") if projects else ("view", "clip")
            raise ValueError(
                f"checkpoint={options.checkpoint} was trained in the frame of the {frames[0]} and "
                f"{plan.ablation.experiment} trains in that of the {frames[1]}: give checkpoint=, whose flows are in "
                "the same frame"
            )
        kind = plan.ablation.experiment.partition("_")[0]
        check_latents(kind, Path(options.data), config.data.resolution, Path(options.checkpoint))


def export_variant(config: DictConfig, checkpoint: Path, out: Path) -> None:
    """A pipeline folder with the run's flow; all other models and the samplers are the checkpoint's."""
    base = PipelineFolder.open(checkpoint)
    samplers = base.sampler("sparse_structure_sampler"), base.sampler("slat_sampler")
    export(find_parts({config.objective.name: Path(config.run_dir)}, checkpoint), out, *samplers)


def tables(plan: Plan) -> list[Table]:
    """The ablation's table, one for each setting, and the differences of its variants."""
    ablation = plan.ablation
    found: list[Table] = []
    results: dict[str, dict[str, list[Result]]] = {}
    protocols: dict[str, Protocol] = {}
    mixed: set[str] = set()
    notes: dict[str, None] = {}  # in order, each once
    for number, setting in enumerate(ablation.settings):
        spec = ablation.table()
        if setting:
            spec = replace(spec, title=f"{spec.title}, {setting}")
        if len(ablation.settings) > 1:
            spec = replace(spec, id=f"{spec.id}_{number + 1}")
        judged = next(iter(plan.evaluations.values()))[number]
        protocol = protocols[setting] = judged.load_protocol()
        found.append(build_table(spec, plan.folder, None, protocol))
        methods = protocol_folder(plan.folder, protocol)
        every = {label: read_method(methods, label, protocol) for label in ablation.variants}
        selection = comparable(every)
        results[setting] = selection.results
        mixed |= selection.mixed
        notes |= dict.fromkeys(selection.notes)
    title = f"{ablation.title}: differences, object by object"
    columns = [column for column in found[0].columns if has_differences(column, next(iter(protocols.values())))]
    table = difference_table(title, columns, results, protocols, mixed)
    table.notes += notes
    return [*found, table]
