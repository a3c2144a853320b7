from __future__ import annotations

import hashlib
import json
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import objaverse_stub
import pytest

from dataset_toolkits.assets import choose_split, find_assets
from dataset_toolkits.collect import CollectOptions, collect, read_evaluation_objects
from dataset_toolkits.engine.stage import StageError
from ss4d.data.format import Row, read_table

JSON = 0x4E4F534A  # type of a chunk of GLB
UID = "34d16c3882f94a31bde584948883a06a"  # of ObjaverseDy


def write(path: Path, content: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content or f"content of {path.name}")
    return path


def run(root: Path, **options: Any) -> dict[str, Row]:
    collect(root, CollectOptions(**options))
    return {row["asset_id"]: row for row in read_table(root, "collect")}


def test_a_folder_with_an_index(tmp_path: Path) -> None:
    write(tmp_path / "assets" / "files" / "fox.glb", "fox")
    entry = {
        "id": "animals/Fox",
        "file": "files/fox.glb",
        "split": "val",
        "category": "animal",
        "group": "foxes",
        "licence": "CC0-1.0",
        "author": "ann",
        "source": "github somewhere",
        "hide_nodes": ["Sword"],
        "clips": ["Attack", "Run", "Walk"],
        "best_clip": "Run",
        "triangles": 12,
    }
    write(tmp_path / "assets" / "index.json", json.dumps({"objects": [entry]}))

    rows = run(tmp_path, folder=str(tmp_path / "assets"))

    assert rows == {
        "animals/Fox": {
            "name": "animals__Fox",
            "asset_id": "animals/Fox",
            "path": str(tmp_path / "assets" / "files" / "fox.glb"),
            "sha256": hashlib.sha256(b"fox").hexdigest(),
            "bytes": 3,
            "split": "val",
            "category": "animal",
            "group": "foxes",
            "licence": "CC0-1.0",
            "author": "ann",
            "source": "github somewhere",
            "hide_nodes": ["Sword"],
            "clips": ["Run", "Attack", "Walk"],
            "status": "done",
            "error": None,
        }
    }


def test_several_indexes_make_one_set(tmp_path: Path) -> None:
    for name in ("fox", "owl"):
        write(tmp_path / name / "files" / f"{name}.glb")
        entry = {"id": name, "file": f"files/{name}.glb", "split": "train"}
        write(tmp_path / name / f"{name}_index.json", json.dumps({"objects": [entry]}))
    rows = run(tmp_path, indexes=[str(tmp_path / name / f"{name}_index.json") for name in ("owl", "fox")])
    assert {name: Path(row["path"]).parent.parent.name for name, row in rows.items()} == {"owl": "owl", "fox": "fox"}
    with pytest.raises(StageError, match=r"the index .*nowhere\.json cannot be read: No such file"):
        run(tmp_path, indexes=[str(tmp_path / "nowhere.json")])


def test_a_folder_without_an_index(tmp_path: Path) -> None:
    folder = tmp_path / "ein Ordner ü"
    for name in ("a.glb", "sub dir/bär.FBX", "b.usdz", "both.glb", "both.fbx", "notes.txt"):
        write(folder / name)

    rows = run(tmp_path, folder=str(folder), val_share=0.0)

    assert sorted(rows) == ["a", "b", "both.fbx", "both.glb", "sub dir/bär"]
    assert rows["sub dir/bär"]["name"] == "sub_dir__b_r"
    assert {row["split"] for row in rows.values()} == {"train"}
    assert rows["a"]["group"] == "a"
    assert rows["a"]["clips"] == []
    assert {row["split"] for row in run(tmp_path, folder=str(folder), val_share=1.0).values()} == {"val"}


def test_links_to_other_folders_are_followed(tmp_path: Path) -> None:
    """Each file once, by its own name rather than a link's; a link to a folder above ends nowhere."""
    folder, disk = tmp_path / "assets", tmp_path / "disk"
    for path in (folder / "own" / "a.glb", disk / "pack" / "b.glb", disk / "c.glb"):
        write(path)
    (folder / "otherdisk").symlink_to(disk)
    (folder / "also own").symlink_to(folder / "own")
    (disk / "pack" / "back").symlink_to(folder)
    (folder / "nowhere").symlink_to(tmp_path / "gone")
    (folder / "d.glb").symlink_to(write(tmp_path / "d of elsewhere.glb"))
    rows = run(tmp_path, folder=str(folder))
    assert sorted(rows) == ["d", "otherdisk/c", "otherdisk/pack/b", "own/a"]
    assert {row["status"] for row in rows.values()} == {"done"}


def test_split_by_hash() -> None:
    splits = [choose_split(f"object {i}", 0.1) for i in range(2000)]
    assert 150 < splits.count("val") < 250
    assert splits == [choose_split(f"object {i}", 0.1) for i in range(2000)]


def test_files_that_cannot_be_read_fail_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "assets"
    write(folder / "good.glb")
    (folder / "empty.glb").touch()
    write(folder / "rig.stl")
    write(folder / "parts.gltf", json.dumps({"buffers": [{"uri": "missing.bin"}]}))
    write(folder / "damaged.gltf", "no json")
    names = ("good.glb", "empty.glb", "gone.glb", "rig.stl", "parts.gltf", "damaged.gltf")
    index = {"objects": [{"id": name, "file": name, "split": "train"} for name in names]}
    write(folder / "index.json", json.dumps(index))

    failed = collect(tmp_path, CollectOptions(folder=str(folder)))

    errors = {row["asset_id"]: row["error"] for row in read_table(tmp_path, "collect") if row["status"] == "failed"}
    assert failed == len(errors) == 5
    assert errors["empty.glb"] == f"{folder}/empty.glb is empty"
    assert errors["gone.glb"] == f"{folder}/gone.glb cannot be read: No such file or directory"
    assert errors["rig.stl"].startswith("rig.stl is none of .glb, .gltf")
    assert errors["parts.gltf"] == f"{folder}/missing.bin cannot be read: No such file or directory"
    assert "damaged.gltf is not glTF" in errors["damaged.gltf"]
    assert "FAILED collect gone.glb" in capsys.readouterr().out


@pytest.mark.parametrize("ending", ["gltf", "glb"])
def test_content_of_gltf_includes_its_buffers(tmp_path: Path, ending: str) -> None:
    text = json.dumps({"buffers": [{"uri": "a%20b.bin"}, {"uri": "data:,x"}], "images": [{"bufferView": 0}]})
    for name in ("one", "two"):
        file = write(tmp_path / "assets" / name / f"scene.{ending}", text)
        if ending == "glb":
            length = len(text)
            file.write_bytes(struct.pack("<4sIIII", b"glTF", 2, 20 + length, length, JSON) + text.encode())
        write(tmp_path / "assets" / name / "a b.bin", name)

    rows = run(tmp_path, folder=str(tmp_path / "assets"))

    assert [row["status"] for row in rows.values()] == ["done", "done"]
    written = (tmp_path / "assets" / "one" / f"scene.{ending}").read_bytes()
    assert rows["one/scene"]["sha256"] == hashlib.sha256(written + b"one").hexdigest()
    assert rows["one/scene"]["bytes"] == len(written) + 3


def test_duplicates_by_content(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write(tmp_path / "assets" / f"{name}.glb", "same" if name != "b" else "other")
    rows = run(tmp_path, folder=str(tmp_path / "assets"))
    assert [row["status"] for row in rows.values()] == ["done", "done", "refused"]
    assert rows["c"]["error"] == "same content as a"


def test_evaluation_objects_are_refused(tmp_path: Path) -> None:
    folder, kept_out = tmp_path / "assets", tmp_path / "consistent4d"
    write(folder / "dy" / f"{UID}.glb")
    write(folder / "renamed.glb", "skull")
    write(folder / "good.glb")
    write(kept_out / "skull.glb", "skull")

    rows = run(tmp_path, folder=str(folder), evaluation_folders=[str(kept_out)])

    assert {name: row["status"] for name, row in rows.items()} == {
        f"dy/{UID}": "refused",
        "renamed": "refused",
        "good": "done",
    }
    assert rows[f"dy/{UID}"]["error"] == f"evaluation object {UID} of ObjaverseDy"
    assert rows["renamed"]["error"] == "same content as the evaluation object skull.glb"

    rows = run(tmp_path, folder=str(folder), evaluation_folders=[str(kept_out)], for_evaluation=True)
    assert {row["status"] for row in rows.values()} == {"done"}


def test_evaluation_objects_are_known_by_the_id_in_a_pack_and_by_the_name_of_the_file(tmp_path: Path) -> None:
    files = {f"pack/{UID}": "a.glb", "b": f"{UID}.glb", "c": "c.glb"}
    for name in files.values():
        write(tmp_path / "assets" / name)
    index = {"objects": [{"id": id, "file": name, "split": "train"} for id, name in files.items()]}
    write(tmp_path / "assets" / "index.json", json.dumps(index))
    rows = run(tmp_path, folder=str(tmp_path / "assets"))
    assert [row["status"] for row in rows.values()] == ["refused", "refused", "done"]
    assert {rows[name]["error"] for name in (f"pack/{UID}", "b")} == {f"evaluation object {UID} of ObjaverseDy"}


def test_listed_evaluation_objects(tmp_path: Path) -> None:
    shipped = read_evaluation_objects([])
    assert Counter(shipped.uids.values()) == {"ObjaverseDy": 20, "Consistent4D": 7}
    assert all(len(uid) == 32 and int(uid, 16) for uid in shipped.uids)

    listed = write(tmp_path / "list.txt", f"# comment\nuid1 SetA  # why\nuid2 SetB {'f' * 64}\n\n")
    evaluation = read_evaluation_objects([], listed)
    assert evaluation.uids == {"uid1": "SetA", "uid2": "SetB"}
    assert evaluation.hashes == {"f" * 64: "SetB"}


def test_objaverse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = objaverse_stub.install(monkeypatch)
    uids = write(tmp_path / "uids.txt", "aaa\nunknown\nunreachable\nbbb\naaa\n")

    rows = run(tmp_path, objaverse_uids=str(uids))

    assert list(rows) == ["aaa", "unknown", "unreachable", "bbb"]
    assert calls == [["aaa", "unreachable", "bbb"], ["aaa"], ["unreachable"], ["bbb"]]  # all at once, then one by one
    assert [row["status"] for row in rows.values()] == ["done", "failed", "failed", "done"]
    assert rows["unknown"]["error"] == "Objaverse has no object of this uid"
    assert rows["unreachable"]["error"] == "it could not be fetched: OSError: HTTP Error 404: Not Found"
    aaa = rows["aaa"]
    assert aaa["path"] == str(tmp_path / "assets" / "hf-objaverse-v1" / "glbs" / "000-000" / "aaa.glb")
    assert aaa["sha256"] == hashlib.sha256(b"content of aaa.glb").hexdigest()
    assert (aaa["licence"], aaa["author"], aaa["category"]) == ("by", "ann", "animals-pets")
    assert aaa["source"] == "https://sketchfab.com/3d-models/aaa"


def test_objaverse_xl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas", reason="pandas comes with objaverse")
    calls = objaverse_stub.install(monkeypatch)
    unreachable = "https://other.org/unreachable"
    wanted = write(tmp_path / "wanted.txt", f"{objaverse_stub.GITHUB}\n{'2' * 64}\n{unreachable}\n{'9' * 64}\n")

    rows = run(tmp_path, objaverse_xl=str(wanted))

    sketchfab = "https://sketchfab.com/3d-models/ccc"
    assert list(rows) == [objaverse_stub.GITHUB, sketchfab, unreachable, "9" * 64]
    assert len(calls) == 4
    assert [row["status"] for row in rows.values()] == ["done", "done", "failed", "failed"]
    assert rows[unreachable]["error"] == "it could not be fetched: OSError: HTTP Error 404: Not Found"
    assert rows["9" * 64]["error"] == "Objaverse-XL has no object of this identifier"
    github = rows[objaverse_stub.GITHUB]
    assert github["path"].endswith("assets/github/repos/maker/models/rigs/walk%20cycle.glb")
    assert (github["licence"], github["author"]) == ("MIT License", "maker")
    assert github["name"] == "https_____github.com__maker__models__blob__c0ffee__rigs__walk_20cycle.glb"


def test_only_some(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write(tmp_path / "assets" / f"{name}.glb")
    assert list(run(tmp_path, folder=str(tmp_path / "assets"), only=["c", "a"])) == ["a", "c"]
    with pytest.raises(StageError, match=r"collect\.only names assets that no source has: d, e"):
        run(tmp_path, folder=str(tmp_path / "assets"), only=["e", "d", "a"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "needs a list objects"),
        ('{"objects": [{"id": "a"}]}', "needs a list objects whose entries have id, file and split: KeyError"),
        ('{"objects": [' + ", ".join(['{"id": "a", "file": "f", "split": "train"}'] * 2) + "]}", "two assets have the"),
    ],
)
def test_bad_index(tmp_path: Path, content: str, message: str) -> None:
    write(tmp_path / "assets" / "index.json", content)
    with pytest.raises(StageError, match=message):
        run(tmp_path, folder=str(tmp_path / "assets"))


def test_bad_sources(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"collect needs a source: collect\.folder=DIR"):
        run(tmp_path)
    with pytest.raises(StageError, match="is not a folder"):
        run(tmp_path, folder=str(tmp_path / "nowhere"))
    with pytest.raises(StageError, match=r"holds no \.glb"):
        run(tmp_path, folder=str(tmp_path))
    with pytest.raises(StageError, match=r"collect\.objaverse_uids=.*cannot be read"):
        run(tmp_path, objaverse_uids=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"collect\.val_share is a share from 0 to 1, not 2"):
        CollectOptions(val_share=2)


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "objaverse", None)
    uids = write(tmp_path / "uids.txt", "aaa")
    with pytest.raises(StageError, match=r"pip install objaverse==0\.1\.7"):
        run(tmp_path, objaverse_uids=str(uids))


def test_two_formats_of_one_object_share_split_and_group(tmp_path: Path):
    """Their ids differ by the ending; by those some would be held out from the others."""
    for number in range(60):
        for ending in ("glb", "fbx"):
            (tmp_path / f"animal{number}.{ending}").write_bytes(b"")
    (tmp_path / "alone.glb").write_bytes(b"")
    assets = {asset.asset_id: asset for asset in find_assets(tmp_path, val_share=0.3)}
    pairs = [(assets[f"animal{number}.glb"], assets[f"animal{number}.fbx"]) for number in range(60)]
    assert all(a.split == b.split and a.group == b.group == a.asset_id[:-4] for a, b in pairs)
    assert {a.split for a, _ in pairs} == {"train", "val"} and assets["alone"].group is None
