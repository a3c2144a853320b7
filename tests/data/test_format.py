"""The names on disk: sets that exist depend on them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ss4d.data.format import Cube, artifact_path, is_mean_of, read_table, resolutions, statistics_path, table_path


def test_files_lie_where_they_always_did():
    root = Path("data")
    assert artifact_path(root, "pose", "fox") == Path("data/pose/fox.safetensors")
    assert artifact_path(root, "render", "fox__Run") == Path("data/render/fox__Run.zip")
    assert table_path(root, "curate") == Path("data/tables/curate.parquet")
    assert statistics_path(root) == Path("data/tables/latent_statistics.json")


def test_tensors_of_the_clips_own_cube_and_of_a_conditioning_videos():
    own, view = Cube(turns=3), Cube(view=2)
    assert (own.coords(64), own.feats(64), own.view_counts(64)) == ("coords_64", "feats_64", "views_64")
    assert (view.coords(32), view.feats(32), view.view_counts(32)) == ("coords_32_2", "feats_32_2", "views_32_2")
    assert (own.latent_coords, own.latents("structure")) == ("coords_3", "structure_mean_3")
    assert (view.latent_coords, view.latents("sparse", "logvar")) == ("coords_2", "sparse_logvar_2")
    assert is_mean_of("sparse", Cube(1).latents("sparse")) and not is_mean_of("sparse", "sparse_logvar_1")
    assert not is_mean_of("sparse", Cube(1).latents("structure"))


def test_resolutions_are_read_from_columns_and_tensors():
    assert resolutions(["clip_name", "voxels_32", "voxels_64", "seen_128"], "voxels") == [64, 32]
    assert resolutions(["similarities", "coords_16_0", "coords_16_1", "coords_8", "feats_4"], "coords") == [16, 8]


def test_a_table_that_is_missing_is_named_with_the_command(tmp_path: Path):
    with pytest.raises(ValueError, match=r"render\.parquet is missing: run `python -m dataset_toolkits render --root"):
        read_table(tmp_path, "render")
