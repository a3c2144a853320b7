"""`python -m ss4d.export`: what it says, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from ss4d.export.__main__ import main
from ss4d.export.formats import FORMATS, Format

ROOT = Path(__file__).parent.parent.parent


def test_formats(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--formats"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(FORMATS)


def test_a_missing_package_is_one_sentence(
    result: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(FORMATS, "spz", Format("spz", "spz", "", packages={"no_such_module": "some-package>=2"}))
    assert main([str(result), "--to", "spz"]) == 1
    error = capsys.readouterr().err
    assert error == ("error: The export to spz needs packages that are not installed: pip install 'some-package>=2'\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "gltf"], "name a result and a format"),
        (["RESULT", "--to", "obj"], "invalid choice"),
        (["RESULT", "--to", "gltf", "--faces", "10"], "--faces is for mesh, not for gltf"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err


def test_no_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--to", "gltf"]) == 1
    assert "name a folder that inference.py wrote" in capsys.readouterr().err


def test_a_folder_of_something_else_is_left_alone(
    result: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "house.glb").write_bytes(b"mine")
    assert main([str(result), "--to", "gltf", "--out", str(tmp_path)]) == 1
    assert "house.glb" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["house.glb"]


def test_frames_of_a_longer_clip_go(result: Path, tmp_path: Path) -> None:
    (tmp_path / "frame_00007.glb").write_bytes(b"old")
    (tmp_path / ".frame_00003.glb.1a2b3c4d.tmp").write_bytes(b"of an export that was killed")
    (tmp_path / ".DS_Store").write_bytes(b"of the Finder")
    assert main([str(result), "--to", "gltf", "--out", str(tmp_path)]) == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == [".DS_Store", *(f"frame_{k:05d}.glb" for k in range(3))]


def test_a_folder_for_a_format_of_one_file(result: Path, tmp_path: Path) -> None:
    for out in (tmp_path, tmp_path / "new"):
        assert main([str(result), "--to", "orbit", "--frames", "2", "--size", "32", "--out", str(out)]) == 0
        assert (out / "orbit.mp4").stat().st_size > 0
