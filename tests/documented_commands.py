"""Commands as documentation has them, read by their own parsers without doing what they say."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import app
import inference
from dataset_toolkits import __main__ as toolkit
from dataset_toolkits.config import ToolkitConfig, load_config
from scripts import export as export_checkpoint
from scripts import pack_training_set
from scripts.bench import __main__ as bench
from scripts.eval.__main__ import COMMANDS
from ss4d.backend import Backend
from ss4d.config import load_options, option_keys
from ss4d.doctor import __main__ as doctor
from ss4d.evaluation.ablations.ablation import read_ablation
from ss4d.evaluation.ablations.plan import make_plan
from ss4d.evaluation.options import METHODS
from ss4d.evaluation.protocol import Protocol, load_protocol
from ss4d.evaluation.suite import method_options, read_suite
from ss4d.evaluation.typed import from_arguments
from ss4d.export import __main__ as export_result
from ss4d.training.command_line import compose_config
from ss4d.training.objectives import OBJECTIVES, objective_options
from ss4d.training.phases import read_phases
from ss4d.training.run import RunOptions
from ss4d.viewer import __main__ as viewer

ROOT = Path(__file__).parents[1]
PLACEHOLDERS = {"N": "1", "S": "1", "i/n": "0/1", "DEGREES": "30", "STAGE": "render", "COMMAND": "run", "FORMAT": "usd"}
SYSTEM = {"ssh", "cp", "cut", "grep", "ffmpeg", "apt-get", "chrt"}  # programs whose options are not ours


def check(line: str) -> None:
    """Read a line of a shell.

    Raises:
        ValueError: a program, file or option that does not exist.
    """
    words: list[str] = []
    for word in [*split(line), ";"]:
        if word in (";", "|", "&&"):
            if words:
                check_one(words)
            words = []
        else:
            words.append(PLACEHOLDERS.get(word, word))


def split(line: str) -> list[str]:
    """Words, without a comment and the file that output goes to."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";|&>")
    lexer.whitespace_split = True
    words = list(lexer)
    return words[: words.index(">")] if ">" in words else words


def check_one(words: Sequence[str]) -> None:
    while re.match(r"[A-Z_]+=", words[0]):  # a variable of the environment
        words = words[1:]
    program, rest = words[0], list(words[1:])
    if program in SYSTEM:
        return
    if program == "python":
        name, rest = (rest[1], rest[2:]) if rest[0] == "-m" else (rest[0], rest[1:])
        program = f"python -m {name}" if words[1] == "-m" else f"python {name}"
    if program not in PARSERS:
        raise ValueError(f"{' '.join(words)}: unknown program {program}")
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
            PARSERS[program](rest)
    except SystemExit as end:  # of argparse
        if end.code:
            raise ValueError(f"{' '.join(words)}: {errors.getvalue().splitlines()[-1]}") from end


def check_inference(arguments: list[str]) -> None:
    options = inference.parse_arguments(arguments)
    inference.check(options)
    Backend.parse(options.backend)


def check_training(arguments: list[str]) -> None:
    if {"-h", "--help"} & set(arguments):
        return
    is_sweep = "-m" in arguments
    keys = [word for word in arguments if word != "-m" and not word.startswith(("hydra/", "hydra."))]
    compose(tuple(re.sub(r"^([^\[{]*=[^\[{,]*),.*", r"\1", word) if is_sweep else word for word in keys))


@cache
def compose(overrides: tuple[str, ...]) -> None:
    """Everything that train.py checks before it looks at data."""
    from omegaconf import OmegaConf

    config = compose_config(overrides)
    content: Any = OmegaConf.to_container(config, resolve=True)
    load_options(RunOptions, content)
    read_phases(config)
    objective_options(content["objective"])


def check_evaluation(arguments: list[str]) -> None:
    if not arguments:  # named alone
        return
    if arguments[0] not in COMMANDS:
        raise ValueError(f"scripts.eval: there is no command {arguments[0]}")
    name, rest = arguments[0], arguments[1:]
    if "--help" in rest:
        return
    options = from_arguments(COMMANDS[name].options, rest)
    if name == "suite":
        for judged in method_options(read_suite(options.suite), options.arguments):
            check_method(judged)
    elif name == "ablate":
        plan = make_plan(read_ablation(options.ablation, options.checkpoint), options)
        for run_options in (each for variant in plan.evaluations.values() for each in variant):
            check_method(run_options)
    elif name == "run":
        check_method(options)
    elif name == "study" and options.action not in ("build", "aggregate"):
        raise ValueError(f"scripts.eval study: there is no action {options.action}")
    elif name in ("figures", "study"):
        load_protocol(options.protocol, options.changes)


def check_method(options) -> None:
    options.load_protocol()
    if options.method not in re.split(", | or ", METHODS):
        raise ValueError(f"scripts.eval: there is no method {options.method}")


def check_toolkit(arguments: list[str]) -> None:
    given = toolkit.parse_arguments(arguments)
    load_config(ROOT / "no-such-set", given.config and ROOT / given.config, given.overrides)


def check_torchrun(arguments: list[str]) -> None:
    from torch.distributed.run import get_args_parser

    given = get_args_parser().parse_args(arguments)
    if given.training_script != "train.py":
        raise ValueError(f"torchrun: {given.training_script} is no script for it")
    check_training(given.training_script_args)


def check_setup(arguments: list[str]) -> None:
    if arguments[0] not in setup_commands():
        raise ValueError(f"setup.sh: there is no command {arguments[0]}")


@cache
def setup_commands() -> set[str]:
    usage = subprocess.run(["bash", ROOT / "setup.sh", "help"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"^  ([a-z]+)  ", usage, re.MULTILINE))


def check_pip(arguments: list[str]) -> None:
    """Names are those of pyproject.toml, extras too."""
    table = (ROOT / "pyproject.toml").read_text().split("[project.optional-dependencies]\n")[1].split("\n\n[")[0]
    extras = re.findall(r"^(\w+) = \[", table, re.MULTILINE)
    known = re.findall(r'"([\w-]+)', table)
    for word in arguments:
        if match := re.fullmatch(r"\.\[(.*)\]", word):
            if missing := set(match[1].split(",")) - set(extras):
                raise ValueError(f"pip: pyproject.toml has no extra {', '.join(missing)}")
        elif word not in ("install", "-e") and re.split(r"[<>=\[]", word)[0] not in known:
            raise ValueError(f"pip: pyproject.toml does not name {word}")


def check_folder(arguments: list[str]) -> None:
    if not (ROOT / arguments[0]).is_dir():
        raise ValueError(f"cd: there is no folder {arguments[0]}")


def check_npm(arguments: list[str]) -> None:
    import json

    if arguments[0] == "run":
        scripts = json.loads((ROOT / "viewer" / "package.json").read_text())["scripts"]
        if arguments[1] not in scripts:
            raise ValueError(f"npm: viewer/package.json has no script {arguments[1]}")
    elif "--prefix" in arguments:
        check_folder(arguments[arguments.index("--prefix") + 1 :])


def check_batch_job(arguments: list[str]) -> None:
    check(arguments[arguments.index("--wrap") + 1].replace("$SLURM_ARRAY_TASK_ID", "0"))


PARSERS: dict[str, Callable[[list[str]], object]] = {
    "python inference.py": check_inference,
    "python train.py": check_training,
    "python app.py": app.parse_arguments,
    "python scripts/export.py": export_checkpoint.parse_arguments,
    "python scripts/pack_training_set.py": pack_training_set.parse_arguments,
    "python -m dataset_toolkits": check_toolkit,
    "python -m scripts.eval": check_evaluation,
    "python -m scripts.bench": bench.parse_arguments,
    "python -m ss4d.doctor": doctor.parse_arguments,
    "python -m ss4d.export": export_result.parse_arguments,
    "python -m ss4d.viewer": viewer.parse_arguments,
    "./setup.sh": check_setup,
    "torchrun": check_torchrun,
    "sbatch": check_batch_job,
    "pip": check_pip,
    "cd": check_folder,
    "npm": check_npm,
}


@cache
def option_names() -> dict[str, set[str]]:
    """Dotted keys of all options by their first part; names without a dot are under ""."""
    experiments = [path.relative_to(ROOT / "configs/experiment") for path in ROOT.glob("configs/experiment/*/*.yaml")]
    keys = {*option_keys(ToolkitConfig), *(f"protocol.{key}" for key in option_keys(Protocol))}
    keys |= {key for path in experiments for key in training_keys(path.with_suffix("").as_posix())}
    keys |= {f"objective.{key}" for objective in OBJECTIVES.values() for key in option_keys(objective.Options)}
    keys |= {item.name for command in COMMANDS.values() for item in fields(command.options)}
    keys |= {f"data.{name}" for name in read_ablation("feature_aggregation", "").sets}
    keys |= {"experiment", "debug", "attention", "convolution", "rasterizer"}
    found: dict[str, set[str]] = {}
    for key in keys:
        found.setdefault(key.partition(".")[0] if "." in key else "", set()).add(key)
    return found


@cache
def training_keys(experiment: str) -> set[str]:
    from omegaconf import OmegaConf

    def walk(section, prefix: str):
        for name, value in section.items():
            yield f"{prefix}{name}"
            if isinstance(value, dict):
                yield from walk(value, f"{prefix}{name}.")

    return set(walk(OmegaConf.to_container(compose_config([f"experiment={experiment}"])), ""))


def check_option(text: str) -> None:
    """An option alone, such as `data.quarter_turns` or `render.size=256`.

    Raises:
        ValueError: there is none of that name.
    """
    key = text.partition("=")[0].removeprefix("+").removeprefix("start.").rstrip(".*")
    section = key.partition(".")[0] if "." in key else ""
    known = option_names().get(section, set())
    if section in ("phases", "models", "hydra") or key.startswith("data.category_weight."):  # names are free
        return
    if key not in known and not any(other.startswith(f"{key}.") for other in known):
        raise ValueError(f"there is no option {key}")
