"""The documented command that renders Consistent4D's objects, with stand-ins for files that only Objaverse has."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import objaverse_stub
import pytest
from gltf_builder import CUBE_TRIANGLES, CUBE_VERTICES, GltfBuilder
from small_runs import fit

from dataset_toolkits.__main__ import main as toolkit
from dataset_toolkits.blender.process import BlenderProcess
from scripts.eval.__main__ import main as evaluation
from ss4d.data.format import read_table

ROOT = Path(__file__).parents[2]
# What is smaller than documented, so that it takes seconds; everything else is as the page says.
SMALL = [
    *("render.size=32", "render.views=4", "pose.frames=3", "render.engine=BLENDER_WORKBENCH", "render.cond_size=32"),
    *("render.cond_views=1", "voxelize.resolutions=[16]"),
]


@dataclass(frozen=True)
class Documented:
    """What docs/evaluation.md says of Consistent4D: its uids, as the page's `grep` finds them, and toolkit options."""

    uids: list[str]
    options: list[str]


def documented() -> Documented:
    page = (ROOT / "docs" / "evaluation.md").read_text()
    command = re.search(r"`python\s+-m dataset_toolkits (all --root data/objaversedy [^`]*)`", page)
    pattern = re.search(r"the same with `grep '([^']*Consistent4D)'`", page)
    assert command is not None and pattern is not None
    lines = (ROOT / "ss4d" / "data" / "evaluation_objects.txt").read_text().splitlines()
    uids = [line.split()[0] for line in lines if re.search(pattern[1], line)]
    return Documented(uids, shlex.split(command[1])[3:])


@pytest.mark.slow
def test_the_seven_objects_are_rendered_judged_and_not_trained_on(
    tmp_path: Path, blender: BlenderProcess, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    uids = documented().uids
    assert len(uids) == 7
    monkeypatch.setattr(objaverse_stub, "ANNOTATIONS", {uid: {"license": "by"} for uid in uids})

    def write(path: Path) -> str:
        """A box that slides, each a little further: files of one content count once."""
        builder = GltfBuilder()
        node = builder.node("box", mesh=builder.mesh(CUBE_VERTICES, CUBE_TRIANGLES))
        builder.animation("Slide", node, "translation", [0, 1], [[0, 0, 0], [0, 0, 0.5 + 0.01 * uids.index(path.stem)]])
        path.parent.mkdir(parents=True, exist_ok=True)
        return str(builder.write(path))

    monkeypatch.setattr(objaverse_stub, "_write", write)
    objaverse_stub.install(monkeypatch)
    monkeypatch.chdir(tmp_path)
    Path("uids.txt").write_text("\n".join(uids) + "\n")
    root = tmp_path / "consistent4d_rendered"
    assert toolkit(["all", "--root", str(root), "--workers", "1", *documented().options, *SMALL]) == 0
    rows = [row for row in read_table(root, "features") if row["status"] == "done"]
    assert len(rows) == 7 and all(row["seen_16"] > 0 for row in rows)

    changes = ["protocol.size=32", "protocol.crop_size=32", "protocol.voxel_resolution=16", "protocol.figure_views=[0]"]
    given = ["protocol=consistent4d_rendered", *changes, f"data={root}", f"out={tmp_path / 'out'}"]
    assert evaluation(["run", *given, "method=true_voxels"]) == 0
    assert "7 of 7 results of true_voxels" in capsys.readouterr().out
    assert evaluation(["tables", f"results={tmp_path / 'out'}", f"out={tmp_path / 'tables'}", *changes]) == 0
    table = (tmp_path / "tables" / "tables.md").read_text()
    assert "7 objects" in table and "| SS4D |" in table  # the published rows beside it
    with pytest.raises(ValueError, match=r"has evaluation objects, such as .* of Consistent4D \(7 in all\)"):
        fit("structure_vae", root, tmp_path, "train.steps=1", "data.split=null")
