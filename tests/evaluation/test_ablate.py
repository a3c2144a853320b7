"""The ablations' command, on the four clips that ship with the repository."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from scripts.eval.__main__ import main
from ss4d.evaluation.ablations.ablation import read_ablation
from ss4d.evaluation.ablations.latents import check_latents
from ss4d.evaluation.ablations.plan import make_plan
from ss4d.evaluation.options import AblateOptions
from ss4d.evaluation.protocol import names_in
from ss4d.evaluation.typed import from_arguments
from ss4d.models import create_model
from ss4d.models.checkpoint import load_model
from ss4d.nested import leaves
from ss4d.training.checkpointing import CheckpointStore

ROOT = Path(__file__).parents[2]
CLIPS, CHECKPOINT = ROOT / "assets" / "four_clips", ROOT / "checkpoints" / "ss4d-tiny"
OBJECTS = "quaternius_ultimate_monsters/Orc,quaternius_mech_pack/George"
JUDGED = [
    *("protocol.split=train", "protocol.size=64", "protocol.crop_size=32", "protocol.views.rendered=[0,1]"),
    *("protocol.frames=2", f"protocol.objects=[{OBJECTS}]", "protocol.figure_frames=[0]"),
]
TRAINED = [
    *("data.quarter_turns=[0]", "batch_size=1", "data.tokens_per_batch=6000", "threads=1"),
    *("train.save_every=1", "train.warmup_steps=1"),
]
SMALL_VAE = [
    *("models.encoder.args.num_blocks=1", "models.decoder.args.num_blocks=1"),
    *("models.encoder.args.model_channels=24", "models.decoder.args.model_channels=24"),
    *("models.decoder.args.num_heads=3", "models.decoder.args.representation_config.num_gaussians=2", "frames=[2]"),
]
UNWATCHED = [  # the four clips hold none out
    *("train.validate_every=0", "train.preview_every=0", "start.train.validate_every=0", "start.train.preview_every=0")
]


def arguments(out: Path, *more: str, data: Path = CLIPS) -> list[str]:
    return [f"data={data}", f"out={out}", f"checkpoint={CHECKPOINT}", *JUDGED, *TRAINED, *more]


def made(folder: Path) -> dict[str, int]:
    """When results, exported models and checkpoints were written."""
    paths = [*folder.rglob("result.json"), *folder.rglob("manifest.json"), *folder.rglob("ckpts/*.safetensors")]
    return {str(path): path.stat().st_mtime_ns for path in paths if "models" not in path.parts}


def test_six_ablations_are_described():
    assert names_in("ablations") == [
        *("compression", "feature_aggregation", "masking"),
        *("positional_encoding", "temporal_alignment", "window_size"),
    ]


@pytest.mark.parametrize("name", names_in("ablations"))
def test_variants_differ_in_what_the_ablation_names_and_in_nothing_else(name: str, tmp_path: Path):
    """By the configs of train.py, which accepts them all; every model of them can be built."""
    sets = [f"data.{kind}={tmp_path / kind}" for kind in ("mean", "visible")] if name == "feature_aggregation" else []
    ablation = read_ablation(name, str(CHECKPOINT))
    plan = make_plan(ablation, from_arguments(AblateOptions, [name, *sets, f"out={tmp_path}"]))
    assert len(plan.variants) == len(ablation.variants) >= 2
    configs: list[dict[str, Any]] = []
    for label, config in plan.variants.items():
        configs.append(dict(leaves(OmegaConf.to_container(config, resolve=True))))
        configs[-1].pop("run_dir")
        assert config.phases is None and configs[-1]["init_from"] == (plan.start and plan.start.run_dir), label
        for spec in config.models.values():
            args: Any = OmegaConf.to_container(spec.args, resolve=True)
            with torch.device("meta"):
                create_model(spec.name, **args)
    differing = {key for key in configs[0] if len({json.dumps(config[key]) for config in configs}) > 1}
    assert differing == set(ablation.vary)
    assert all(len({json.dumps(config[key]) for config in configs}) == len(configs) for key in differing)
    table = ablation.table()
    assert table.rows is not None and set(table.rows.values()) == set(ablation.variants)
    assert table.protocol == ablation.protocol


def test_a_dry_run_says_what_all_variants_would_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["ablate", "compression", *arguments(tmp_path, "dry_run=true", "data.category_weight=null")]) == 0
    out = capsys.readouterr().out
    assert out.count("would train") == out.count("step on a device") == 5
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_stopped_and_started_again_it_goes_on_and_redoes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    command = [
        "temporal_alignment",
        *arguments(tmp_path, *SMALL_VAE, *UNWATCHED, "train.steps=4", "start.train.steps=1"),
    ]
    folder = tmp_path / "temporal_alignment"
    second = folder / "runs" / "reconstruction"
    save = CheckpointStore.save

    def save_and_stop(store: CheckpointStore, *arguments: Any) -> None:
        save(store, *arguments)
        if store.folder == second / "checkpoints":
            os.kill(os.getpid(), signal.SIGTERM)

    former = signal.signal(signal.SIGTERM, signal.SIG_DFL)  # another test's library may have left one that exits
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointStore, "save", save_and_stop)
        assert main(["ablate", *command]) == 1
    signal.signal(signal.SIGTERM, former)
    assert f"{second} was stopped before its end; the same command resumes" in capsys.readouterr().err
    before = made(folder / "runs" / "reconstruction_unaligned") | made(tmp_path / "runs")
    judged = made(next(folder.glob("ss4d_assets-*")))
    assert len(judged) == 2

    assert main(["ablate", *command]) == 0
    out = capsys.readouterr().out
    assert out.count("is trained already") == 2 and out.count("resuming at step") == 1
    after = made(tmp_path)
    assert all(after[path] == written for path, written in (before | judged).items())
    tables = (folder / "tables.md").read_text()
    assert "| with temporal alignment | 30.58 | 2.22 | 157.16 | n/a | paper* |" in tables
    assert tables.count("this code, 2 objects, 1 seed") == 2

    assert main(["ablate", *command]) == 0
    assert made(tmp_path) == after and (folder / "tables.md").read_text() == tables
    assert main(["ablate", *command, "train.steps=3"]) == 1
    assert "was trained with train.steps=4, but now it is 3: give another out=DIR" in capsys.readouterr().err
    start = tmp_path / "runs" / "structure_vae"
    weights = next((Path(str(path)) for path in tmp_path.rglob("init_from.sha256")), None)
    assert weights is not None, start
    weights.write_text("of an earlier start")
    assert main(["ablate", *command]) == 1
    assert f"{weights.parent} began with other weights of" in capsys.readouterr().err


def test_an_ablated_flow_is_refused_with_a_checkpoint_of_another_frame(tmp_path: Path, capsys):
    checkpoint = shutil.copytree(CHECKPOINT, tmp_path / "checkpoint")
    about = json.loads((checkpoint / "pipeline.json").read_text())
    del about["args"]["frame"]
    (checkpoint / "pipeline.json").write_text(json.dumps(about))
    options = [text for text in arguments(tmp_path) if not text.startswith("checkpoint=")]
    assert main(["ablate", "masking", *options, f"checkpoint={checkpoint}"]) == 1
    said = capsys.readouterr().err
    assert "was trained in the frame of the clip and structure_flow/tiny trains in that of the view" in said


@pytest.mark.slow
def test_an_ablated_flow_is_judged_within_the_shipped_checkpoint(tmp_path: Path):
    """Masking: with and without an occluder, the image encoder and all other models being the checkpoint's."""
    quick = ["train.steps=1", "frames=[2]", "data.tokens_per_batch=1024", "data.category_weight=null", "steps=1"]
    assert main(["ablate", "masking", *arguments(tmp_path, *quick, "seeds=[0]")]) == 0
    assert OmegaConf.load(tmp_path / "runs/per_frame_structure_flow/config.yaml").frames == [1]
    folder = tmp_path / "masking"
    tables = (folder / "tables.md").read_text()
    assert "Masking augmentation, inputs as they are" in tables and "a quarter of the object hidden" in tables
    assert tables.count("| with_masking | 0.") == tables.count("| without_masking | 0.") == 2
    assert len(list(folder.glob("ss4d_assets-*"))) == 2
    frozen = [path.read_bytes() for path in folder.glob("models/*/ckpts/image_encoder.safetensors")]
    assert frozen == [(CHECKPOINT / "ckpts/image_encoder.safetensors").read_bytes()] * 2


def test_latents_of_another_encoder_are_refused(tmp_path: Path):
    from ss4d.models.checkpoint import read_json, save_model

    other = tmp_path / "other"
    for kind, name in (("structure", "sparse_structure_encoder"), ("sparse", "slat_encoder")):
        check_latents(kind, CLIPS, 32, CHECKPOINT)
        spec = read_json(CHECKPOINT / f"ckpts/{name}.json")
        model = load_model(CHECKPOINT / "ckpts" / name)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        save_model(model, other / "ckpts" / name, spec["name"], spec["args"], torch.float16)
        with pytest.raises(ValueError, match=rf"The {kind} latents of .* were made by another encoder than .*{name}"):
            check_latents(kind, CLIPS, 32, other)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["temporal_alignement"], "There is no ablation 'temporal_alignement': did you mean temporal_alignment?"),
        (["masking", "train.stepps=5"], "did you mean train.steps?"),
        (["masking", "data.masking.probability=0.1"], "cannot be given: the ablation masking sets it itself"),
        (["masking", "run_dir=x"], "run_dir cannot be given"),
        (["masking", "fast"], "'fast' is not of the form key=value"),
        (["compression", "start=runs/tiny/sparse_flow"], "The variants of compression start from nothing"),
        (["compression", "protocol.frame=2"], "unknown key frame: did you mean frames?"),
        (["compression", "data=nowhere"], "There is no data set of protocol ss4d_assets at nowhere"),
        (["compression", f"data={CLIPS}", "protocol.split=train"], "but protocol ss4d_assets needs view 3 at 256"),
        (["feature_aggregation", f"data.mean={CLIPS}"], "needs data.visible=DIR, a set made with"),
    ],
)
def test_bad_input_gets_a_sentence_before_anything_is_trained(
    given: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["ablate", *given, f"out={tmp_path}", f"checkpoint={CHECKPOINT}"]) == 1
    assert says in capsys.readouterr().err and not any(tmp_path.iterdir())


def test_a_set_of_another_aggregation_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "config.yaml").write_text("features: {aggregation: visible}\n")
    sets = [f"data.visible={tmp_path / 'set'}", f"data.mean={tmp_path / 'set'}"]
    assert main(["ablate", "feature_aggregation", *sets, f"out={tmp_path / 'out'}"]) == 1
    assert "must be made with features.aggregation=mean, but" in capsys.readouterr().err
