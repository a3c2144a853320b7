"""`python -m scripts.bench released`, with a checkout whose classes take what the released ones do."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa

from scripts.bench import released
from scripts.bench.__main__ import main
from scripts.bench.flash import stand_in_for_flash
from scripts.bench.sizes import SIZES, Size, tiny

MODELS = """
import torch
from ss4d.models.registry import create_model
from ss4d.sparse import SparseTensor as Ours

class Wrapped(torch.nn.Module):
    def __init__(self, **args):
        super().__init__()
        self.model = create_model(type(self).__name__, **args)
        self.load_state_dict, self.state_dict = self.model.load_state_dict, self.model.state_dict

class SparseStructureFlow4DModel(Wrapped):
    def forward(self, x, t, cond, num_frames):
        assert num_frames == len(x) == len(t) == len(cond)
        return self.model(x[None], t[None], cond[None])[0] + OFFSET

def of(x, num_frames):
    coords = torch.cat([torch.zeros_like(x.coords[:, :1]), x.coords], dim=1)
    return Ours(x.feats, coords, num_frames=num_frames)

class SLatFlow4DModel(Wrapped):
    def forward(self, x, t, cond, num_frames):
        return self.model(of(x, num_frames), t[None], cond[None])

class Frame:
    def __init__(self, gaussians):
        self.get_xyz, self.get_scaling = gaussians.xyz, gaussians.scale * SCALE
        self.get_rotation, self.get_opacity, self.get_features = gaussians.rotation, gaussians.opacity, gaussians.sh

class SLatGaussianDecoder(Wrapped):
    def forward(self, x, num_frames):
        return [Frame(gaussians) for gaussians in self.model(of(x, num_frames))[0]]
"""
SPARSE = """
class SparseTensor:
    def __init__(self, feats, coords):
        self.feats, self.coords = feats, coords
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The fake checkout; small clips, of few voxels."""
    files = {
        "models": MODELS.replace("OFFSET", "0").replace("SCALE", "1.0"),
        "modules": "",
        "modules/sparse": SPARSE,
        "modules/sparse/conv": "",
    }
    for name, text in files.items():
        (tmp_path / "trellis" / name).mkdir(parents=True)
        (tmp_path / "trellis" / name / "__init__.py").write_text(text)
    (tmp_path / "trellis/__init__.py").write_text("import a_renderer_that_is_not_there\n")
    monkeypatch.setitem(SIZES, "tiny", lambda: Size(tiny().models, 32, 60, 5, tiny().cond_channels, 128))
    monkeypatch.setattr(released, "FRAMES", dict.fromkeys(released.GOALS, 2))
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)
    for name in [name for name in sys.modules if name.split(".")[0] in ("trellis", "flash_attn")]:
        del sys.modules[name]


def test_a_table_of_both(checkout: Path, capsys: pytest.CaptureFixture[str]):
    out = checkout / "RELEASED"
    main(["released", "--checkout", str(checkout), "--size", "tiny", "--repeats", "2", "--out", str(out)])
    report = json.loads(out.with_suffix(".json").read_text())
    assert list(report) == [
        *("structure flow", "structure flow, a further step"),
        *("sparse flow", "sparse flow, new voxels", "sparse flow, a further step"),
        *("Gaussian decoder", "Gaussian decoder, new voxels"),
    ]
    for row in report.values():
        assert row["difference"] < 1e-4 and row["ratio"] == row["ours"] / row["released"]
        assert all(len(seconds) == 2 and min(seconds) > 0 for seconds in row["seconds"].values())
    table = capsys.readouterr().out
    assert table == out.with_suffix(".md").read_text()
    assert re.findall(r"^\| ([\w ,]+) \| [\d.]+ \| [\d.]+ \| \*\*[\d.]+\*\* \|", table, re.MULTILINE) == list(report)


@pytest.mark.parametrize(
    ("stage", "right", "wrong"),
    [("structure flow", "[0] + 0", "[0] + 1"), ("Gaussian decoder", "gaussians.scale * 1.0", "gaussians.scale * 1.01")],
)
def test_another_output_is_refused(checkout: Path, stage: str, right: str, wrong: str):
    file = checkout / "trellis/models/__init__.py"
    file.write_text(file.read_text().replace(right, wrong))
    with pytest.raises(SystemExit, match=rf"^error: {stage}: the two outputs differ by \S+ standard deviations$"):
        main(["released", "--checkout", str(checkout), "--size", "tiny", "--repeats", "1", "--stages", stage])


def test_a_checkout_that_is_not_one(tmp_path: Path):
    with pytest.raises(SystemExit, match=r"has no trellis/models: pass the root of a clone of Lizb6626/SS4D$"):
        main(["released", "--checkout", str(tmp_path)])


def test_a_package_that_is_missing_is_named(checkout: Path):
    (checkout / "trellis/modules/sparse/conv/__init__.py").write_text("import spconv_is_not_there\n")
    with pytest.raises(SystemExit, match="does not load here: No module named 'spconv_is_not_there'"):
        main(["released", "--checkout", str(checkout), "--size", "tiny"])


def test_the_stand_in_for_flash_attention():
    torch.manual_seed(0)
    flash, (q, k, v), bounds = stand_in_for_flash(), torch.randn(3, 7, 2, 4), torch.tensor([0, 3, 7]).int()
    qkv, kv = torch.stack([q, k, v], 1), torch.stack([k, v], 1)
    halves = [sdpa(*(x[rows].transpose(0, 1) for x in (q, k, v))) for rows in (slice(3), slice(3, 7))]
    expected = torch.cat([half.transpose(0, 1) for half in halves])
    for out in (
        flash.flash_attn_varlen_qkvpacked_func(qkv, bounds, 4),
        flash.flash_attn_varlen_kvpacked_func(q, kv, bounds, bounds, 4, 4),
        flash.flash_attn_varlen_func(q, k, v, bounds, bounds, 4, 4),
    ):
        torch.testing.assert_close(out, expected)
    whole = sdpa(*(x.transpose(0, 1) for x in (q, k, v))).transpose(0, 1)
    for out in (
        flash.flash_attn_qkvpacked_func(qkv[None]),
        flash.flash_attn_kvpacked_func(q[None], kv[None]),
        flash.flash_attn_func(q[None], k[None], v[None]),
    ):
        torch.testing.assert_close(out[0], whole)
