from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dataset_toolkits.config import ToolkitConfig, load_config, save_config
from dataset_toolkits.features.stage import FeaturesOptions
from dataset_toolkits.render import RenderOptions
from ss4d.models.image_encoder import DinoImageEncoder

CONFIGS = Path(__file__).parents[2] / "configs" / "data"


def test_defaults_where_there_is_nothing(tmp_path: Path) -> None:
    assert load_config(tmp_path, None, []) == ToolkitConfig()


def test_overrides_are_kept_for_later_stages(tmp_path: Path) -> None:
    overrides = ["curate.min_motion=0.5", "voxelize.resolutions=[8, 4]", "collect.folder=a b/ü", "collect.val_share=1"]
    config = load_config(tmp_path, None, overrides)
    assert config.curate.min_motion == 0.5
    assert config.voxelize.resolutions == [8, 4]
    assert config.collect.folder == "a b/ü"
    assert isinstance(config.collect.val_share, float)
    assert config.curate.min_frames == ToolkitConfig().curate.min_frames

    save_config(tmp_path, config)
    assert load_config(tmp_path, None, []) == config
    assert load_config(tmp_path, None, ["collect.folder=null"]).collect.folder is None
    assert not list((tmp_path / "tmp").iterdir())


def test_saving_the_same_again_leaves_the_file_alone(tmp_path: Path) -> None:
    save_config(tmp_path, ToolkitConfig())
    before = (tmp_path / "config.yaml").stat()
    save_config(tmp_path, ToolkitConfig())
    assert (tmp_path / "config.yaml").stat().st_ino == before.st_ino


def test_a_file_replaces_what_was_kept(tmp_path: Path) -> None:
    save_config(tmp_path, load_config(tmp_path, None, ["curate.min_motion=0.5", "curate.min_frames=7"]))
    file = tmp_path / "other.yaml"
    file.write_text("curate:\n  min_frames: 3\n")
    config = load_config(tmp_path, file, ["curate.min_seconds=2"])
    assert config.curate.min_frames == 3
    assert config.curate.min_motion == ToolkitConfig().curate.min_motion
    assert config.curate.min_seconds == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("curate.min_moton=1", r"unknown key curate\.min_moton: did you mean curate\.min_motion\?"),
        ("voxelise.resolutions=[1]", r"unknown key voxelise: did you mean voxelize\?"),
        ("seed=1", r"unknown key seed: did you mean report\.seed\?"),
        ("curate.min_frames=few", r"^curate\.min_frames = few must be a whole number$"),
        ("curate.min_frames=null", r"^curate\.min_frames = null must be a whole number$"),
        ("voxelize.resolutions=64", r"^voxelize\.resolutions = 64 must be a list"),
        ("curate=3", "^curate = 3 must be a mapping of options$"),
        ("curate.min_frames.x=3", r"^curate\.min_frames = .* must be a whole number$"),
        ("curate.min_frames", "is not of the form key=value"),
        ("=3", "is not of the form key=value"),
        ("curate.min_frames=[3", r"^curate\.min_frames = \[3 must be a whole number$"),
        ("curate.min_motion=-1", r"curate\.min_motion is at least 0, not -1"),
    ],
)
def test_bad_overrides(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load_config(tmp_path, None, [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("curate: [", "cannot be read as YAML"),
        ("- 1", "must map keys to values"),
        (
            "curate: {min_moton: 1}",
            r"file\.yaml: unknown key curate\.min_moton: did you mean curate\.min_motion",
        ),
        ("7: {}", "unknown key 7"),
    ],
)
def test_bad_files(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "file.yaml"
    file.write_text(content)
    with pytest.raises(ValueError, match=message):
        load_config(tmp_path, file, [])
    with pytest.raises(ValueError, match=r"nowhere\.yaml cannot be read"):
        load_config(tmp_path, tmp_path / "nowhere.yaml", [])


def test_empty_file_means_defaults(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("# nothing\n")
    assert load_config(tmp_path, None, []) == ToolkitConfig()


def test_the_papers_file_is_the_defaults_with_dinov2(tmp_path: Path) -> None:
    config = load_config(tmp_path, CONFIGS / "paper.yaml", [])
    render = RenderOptions(cond_size=DinoImageEncoder.image_size)  # which DINOv2 takes as they are
    assert config == replace(ToolkitConfig(), features=FeaturesOptions(extractor="dinov2"), render=render)
    assert (config.pose.frames, config.pose.sampling, config.voxelize.resolutions) == (36, "consecutive", [64])


def test_the_file_of_ss4d_tiny(tmp_path: Path) -> None:
    config = load_config(tmp_path, CONFIGS / "tiny.yaml", [])
    assert (config.pose.frames, config.pose.clips_per_asset) == (16, 3)
    assert (config.curate.static, config.curate.clips_per_asset) == (True, 1)
    assert (config.voxelize.frame, config.voxelize.resolutions, config.features.resolutions) == ("view", [32], [32])
    assert (config.features.extractor, config.features.aggregation) == ("small", "visible")
    assert (config.render.cond_views, config.render.cond_around, config.render.cond_around_static) == (1, 3, 9)
