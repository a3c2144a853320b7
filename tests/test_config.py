"""Unknown keys are refused by name with the nearest valid one; what Hydra would take passes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from ss4d.config import build_section, check_overrides

CONFIGS = Path(__file__).parents[1] / "configs"
TINY = "experiment=structure_flow/tiny"


@dataclass(frozen=True)
class Kettle:
    litres: float
    colour: str = "red"
    marks: list[int] = field(default_factory=list)


def test_a_section_becomes_its_dataclass() -> None:
    assert build_section(Kettle, {"litres": 2.0, "marks": [1]}, "kitchen.kettle") == Kettle(2.0, "red", [1])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"litre": 1}, r"^unknown key kitchen\.kettle\.litre: did you mean kitchen\.kettle\.litres\?$"),
        ({"litres": 1, "x": 2}, r"^unknown key kitchen\.kettle\.x: kitchen\.kettle has litres, colour, marks$"),
        ({"colour": "blue"}, r"^kitchen\.kettle\.litres is missing: give it a value$"),
        (3, r"^kitchen\.kettle = 3 must be a mapping of options$"),
    ],
)
def test_a_section_that_does_not_fit_is_refused(values: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_section(Kettle, values, "kitchen.kettle")


VALID = [
    [TINY],
    [TINY, "train.steps=5", "data.frames=[1,8]", "hydra.run.dir=x", "hydra/job_logging=disabled"],
    [TINY, "train={steps: 5, log_every: 1}", "models.flow.args.num_blocks=2", "run_dir=a/b"],
    [TINY, "+data.category_weight.cat=0.35", "data.category_weight={cat: 0.35}"],
    [TINY, "~models.image_encoder", "objective.image_encoder=a/b", "+models.flow.args.rope_base=100"],
    [TINY, "+hydra.job.env_set.OMP_NUM_THREADS='1'"],
    [TINY, "++train.steps=7", "++models.flow.args.window_size=4"],
]


@pytest.mark.parametrize("overrides", VALID)
def test_what_hydra_takes_passes(overrides: list[str]) -> None:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        compose("train", overrides)
    check_overrides(overrides, CONFIGS, "train")


def test_sweeps_flags_and_help_pass() -> None:
    check_overrides(["--multirun", "experiment=structure_flow/tiny,sparse_flow/tiny", "seed=1,2"], CONFIGS, "train")
    check_overrides(["--cfg", "job", TINY], CONFIGS, "train")
    check_overrides(["--help"], CONFIGS, "train")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.stepz=5"], "unknown key train.stepz: did you mean train.steps?"),
        (["tran.steps=5"], "unknown key tran.steps: did you mean train.steps?"),
        (["train.frames=[1]"], "unknown key train.frames: did you mean frames?"),
        (["learning_rate=1"], "unknown key learning_rate: did you mean train.learning_rate?"),
        (["train={stepz: 5}"], "unknown key train.stepz: did you mean train.steps?"),
        (["data={root: x, frame: [8]}"], "unknown key data.frame: did you mean data.frames?"),
        (["models.flow.args.num_block=1"], "models.flow.args.num_block is not there yet: add it with +models.flow"),
        (["data.category_weight.cat=0.3"], "is not there yet: add it with +data.category_weight.cat=0.3"),
        (["+train.stepz=5"], "unknown key train.stepz: did you mean train.steps?"),
        (["++train.stepz=5"], "unknown key train.stepz: did you mean train.steps?"),
        (["~models.image_encodr"], "unknown key models.image_encodr: did you mean models.image_encoder?"),
        (["models.decoder.name=x"], "unknown key models.decoder.name: did you mean"),
        (["hydra.rnu.dir=x"], "unknown key hydra.rnu.dir: did you mean hydra.run.dir?"),
        (["zzzzzz=1"], "unknown key zzzzzz: there are accumulation, "),
        (["train.qqqq=1"], "unknown key train.qqqq: train has steps, learning_rate, "),
        (["train.steps"], "'train.steps' is not of the form key=value"),
        (["=5"], "'=5' is not of the form key=value"),
        (["hydra/job_logging=stdot"], "hydra/job_logging=stdot: "),
    ],
)
def test_unknown_keys_are_refused_in_one_line(overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError) as error:
        check_overrides([TINY, *overrides], CONFIGS, "train")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_unknown_experiments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^unknown experiment structure_flow/tinny: did you mean structure_flow/tiny"):
        check_overrides(["experiment=structure_flow/tinny"], CONFIGS, "train")
    with pytest.raises(ValueError, match=r"^unknown experiment zzz: choose one of .*structure_vae/tiny"):
        check_overrides(["experiment=zzz"], CONFIGS, "train")
    with pytest.raises(
        ValueError, match=r"^no experiment is named: give experiment=NAME with one of sparse_flow/paper"
    ):
        check_overrides(["train.steps=5"], CONFIGS, "train")


def test_a_key_must_be_known_to_every_experiment_of_a_sweep() -> None:
    check_overrides([TINY, "models.image_encoder.args.channels=24"], CONFIGS, "train")
    with pytest.raises(ValueError, match=r"unknown key models\.image_encoder\.name"):
        check_overrides(
            ["-m", "experiment=structure_flow/tiny,sparse_flow/tiny", "models.image_encoder.name=x"], CONFIGS, "train"
        )


def test_importing_it_does_not_import_hydra() -> None:
    """The models import it, and generating needs no Hydra."""
    program = "import sys, ss4d.config; sys.exit('hydra' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
