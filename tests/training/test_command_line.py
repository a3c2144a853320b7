"""train.py's command line: what Hydra takes passes, anything else is refused in one sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from small_runs import overrides

from ss4d.training.command_line import compose_config
from ss4d.training.run import run

ROOT = Path(__file__).parents[2]
TINY = "experiment=structure_flow/tiny"


@pytest.fixture(autouse=True)
def no_hydra_before() -> None:
    GlobalHydra.instance().clear()


@pytest.mark.parametrize(
    "overrides",
    [
        ["data.frames=[1,8]", "hydra.run.dir=x", "hydra/job_logging=disabled", "debug=overfit"],
        ["phases=null", "train={steps: 5, log_every: 1}", "models.flow.args.num_blocks=2", "run_dir=a/b"],
        ["+data.category_weight.cat=0.35", "+phases.more.train.steps=3", "+models.flow.args.rope_base=100"],
        ["~models.image_encoder", "objective.image_encoder=a/b", "objective.positional_init=false"],
        ["+hydra.job.env_set.OMP_NUM_THREADS='1'", "run_dir=a b", "run_dir='a=b c'"],
        ["++train.keep=7", "++models.flow.args.window_size=4", "phases=null", "train.steps=1"],
    ],
)
def test_what_fits_passes(overrides: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr("ss4d.training.run.forecast", lambda *_: "forecast")
    run(compose_config([TINY, *overrides, "dry_run=true"]))
    assert capsys.readouterr().out == "forecast\n"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.stepz=5", "unknown key train.stepz: did you mean train.steps?"),
        ("tran.steps=5", "unknown key tran.steps: did you mean train.steps?"),
        ("train.frames=[1]", "unknown key train.frames: did you mean frames?"),
        ("learning_rate=1", "unknown key learning_rate: did you mean train.learning_rate?"),
        ("train={stepz: 5}", "unknown key train.stepz: did you mean train.steps?"),
        ("data={root: x, frame: [8]}", "unknown key data.frame: did you mean data.frames?"),
        ("data.masking.blurr=1", "unknown key data.masking.blurr: did you mean data.masking.blur?"),
        ("models.flow.args.num_block=1", "key models.flow.args.num_block: did you mean models.flow.args.num_blocks?"),
        ("data.category_weight.cat=0.3", "Or add it with +data.category_weight.cat=VALUE"),
        ("+train.stepz=5", "unknown key train.stepz: did you mean train.steps?"),
        ("++train.stepz=5", "unknown key train.stepz: did you mean train.steps?"),
        ("+stepz=5", "unknown key stepz: "),
        ("+objective.drop_conditon=1", "unknown key objective.drop_conditon: did you mean objective.drop_condition?"),
        ("+objective.start_aligned=true", "objective.start_aligned is now called objective.positional_init"),
        ("+wandb.team=a", "unknown key wandb.team: wandb has mode, project"),
        ("+models.flow.arg=3", "unknown key models.flow.arg: did you mean models.flow.args?"),
        ("+phases.varied.train.stepz=1", "unknown key train.stepz: did you mean train.steps?"),
        ("+phases.varied.seed=1", "phases.varied sets seed; a phase may set frames, batch_size"),
        ("~models.image_encodr", "unknown key models.image_encodr: did you mean models.image_encoder?"),
        ("~train.keep", "train.keep is missing: give it a value"),
        ("models.decoder.name=x", "unknown key models.decoder"),
        ("hydra.rnu.dir=x", "unknown key hydra.rnu"),
        ("zzzzzz=1", "unknown key zzzzzz: there are accumulation, "),
        ("train.qqqq=1", "unknown key train.qqqq: train has steps, learning_rate, "),
        ("train.steps", "'train.steps' is not of the form key=value"),
        ("run_dir=a=b", "'run_dir=a=b' is not of the form key=value, such as train.steps=5: a value with '='"),
        ("=5", "'=' stands without a key"),
        ("hydra/job_logging=stdot", "unknown hydra/job_logging stdot: did you mean stdout?"),
        ("+train.keep=5", "Could not append to config. An item is already at 'train.keep'"),
        ("debug=overfits", "unknown debug overfits: did you mean overfit?"),
        (
            "train.steps=20",
            "train.steps = 20 would be ignored, for every phase has steps of its own: set ",
        ),
        ("train=3", "train = 3 must be a mapping"),
        ("train.learning_rate=fast", "train.learning_rate = fast must be a number"),
        ("train.precision=fp8", "train.precision = fp8 must be one of auto, fp32, bf16, fp16"),
        ("data.workers=1.5", "data.workers = 1.5 must be a whole number"),
        ("objective.drop_condition=2", "objective.drop_condition = 2.0 must be between 0 and 1"),
        ("objective.positional_init=maybe", "objective.positional_init = maybe must be true or false"),
        ("objective.name=structure_flo", "objective.name = structure_flo: did you mean structure_flow?"),
        ("frames=4", "frames = 4 must be a list"),
        ("threads=-1", "threads = -1 must be at least 1, or null"),
        ("backend.attention=flas", "backend.attention = 'flas': choose one of auto, torch, sdpa"),
        ("wandb.mode=ofline", "wandb.mode = ofline must be one of disabled, offline, online"),
        ("train.gradient_clip=0", "train.gradient_clip = 0.0 must be above 0, or null"),
        ("train.ema_decay=1.5", "train.ema_decay = 1.5 must be at least 0 and below 1"),
        ("train.warmup_steps=-5", "train.warmup_steps = -5 must be at least 0"),
        ("phases.single.train.steps=2.5", "phase single: train.steps = 2.5 must be a whole number"),
        ("batch_size=1.5", "batch_size = 1.5 must be a whole number"),
        ("accumulation=0.5", "accumulation = 0.5 must be a whole number"),
        ("train.save_every=1.5", "train.save_every = 1.5 must be a whole number"),
        ("train.learning_rate=inf", "train.learning_rate = inf must be a finite number"),
        ("train.betas=[0.9]", "train.betas = [0.9] must be a list of 2"),
        ("train.betas=[0.9,1]", "train.betas[1] = 1.0 must be at least 0 and below 1"),
        ("train.epsilon=0", "train.epsilon = 0.0 must be above 0"),
        ("train.freeze=flow", "train.freeze = flow must be a list"),
        (
            "phases.varied.train.final_learning_rate=1",
            "phase varied: train.final_learning_rate = 1.0 must be at most train.learning_rate = 0.0004",
        ),
        ("data.workers=-1", "data.workers = -1 must be at least 0"),
        ("data.resolution=0", "data.resolution = 0 must be at least 1"),
        ("run_dir=''", "run_dir is empty: name a folder"),
        ("init_from=''", "init_from is empty: name a folder"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(override: str, message: str):
    with pytest.raises(ValueError) as error:
        run(compose_config([TINY, override, "dry_run=true"]))
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("experiment", "changes", "message"),
    [
        (
            "structure_vae",
            ["objective.name=sparse_vae"],
            "objective.name = sparse_vae trains no models.encoder of the class",
        ),
        ("structure_vae", ["~models.decoder"], "models has no decoder, which objective.name = structure_vae trains"),
        (
            "sparse_flow",
            ["objective.image_encoder=null"],
            "objective.image_encoder is null, and models has no image_encod",
        ),
        ("structure_vae", ["models.encoder.args.channels=3"], "SparseStructureEncoder: channels = 3 must be a list"),
        ("structure_vae", ["models.encoder.args.channels=[-4,4]"], "channels[0] = -4 must be at least 0"),
        ("structure_flow", ["models.flow.args.model_channels=abc"], "model_channels = abc must be a whole number"),
        ("structure_flow", ["models.flow.args.num_blocks=0"], "needs a flow with blocks: raise its num_blocks"),
        ("structure_vae", ["train.validate_every=1"], "has no clip of split val among its 2 accepted clips"),
        (
            "structure_flow",
            ["models.image_encoder.args.image_size=48"],
            "has conditioning videos of 32 pixels, but the image encoder takes 48: render them with "
            "render.cond_size=48",
        ),
        ("structure_vae", ["frames=[8]"], "frames = 8, but the longest of 2 clips has 4 frames"),
        ("structure_vae", ["data.root=nowhere"], "nowhere/tables/curate.parquet is missing"),
    ],
)
def test_what_does_not_fit_together_is_refused_before_anything_is_written(
    experiment: str, changes: list[str], message: str, clip_folder: Path, tmp_path: Path
):
    with pytest.raises(ValueError) as error:
        run(compose_config(overrides(experiment, clip_folder, tmp_path / "run", "train.steps=1", *changes)))
    assert message in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_wandb_that_is_not_installed_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ValueError, match=r"wandb.mode = online needs .*pip install"):
        run(compose_config([TINY, "wandb.mode=online", "dry_run=true"]))


def test_experiments_that_do_not_exist_are_refused():
    for name, message in {
        "structure_flow/tinny": r"^unknown experiment structure_flow/tinny: did you mean structure_flow/tiny",
        "zzz": r"^unknown experiment zzz: it is .*structure_vae/tiny",
        "_flow_paper": "^unknown experiment _flow_paper",
    }.items():
        with pytest.raises(ValueError, match=message):
            compose_config([f"experiment={name}"])
    with pytest.raises(ValueError, match=r"^no experiment is named: give experiment=NAME with one of sparse_fl"):
        compose_config(["train.steps=5"])


def call(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / arguments[0]), *arguments[1:]], cwd=folder, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([TINY, "train.stepz=5"], "train.py: unknown key train.stepz: did you mean train.steps?\n"),
        (
            ["-m", "experiment=structure_flow/tiny,sparse_flow/tiny", "models.image_encoder.name=x"],
            "train.py: unknown ",
        ),
        ([TINY, "train.precision=fp8", "dry_run=true"], "train.py: phase single: train.precision = fp8 must be one of"),
    ],
)
def test_the_program_says_so_in_one_line(arguments: list[str], message: str, tmp_path: Path):
    result = call("train.py", *arguments, f"hydra.sweep.dir={tmp_path}", folder=tmp_path)
    assert result.returncode == 1 and result.stderr.splitlines()[-1].startswith(message.rstrip()), result.stderr
    assert "Traceback" not in result.stderr
