"""Files are written atomically, and numba's cache needs no home."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from places import ROOT, as_nobody, content, reachable

from ss4d.files import use_writable_numba_cache, written_atomically


def test_an_atomic_write_leaves_the_old_file_if_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    with written_atomically(path) as temporary:
        temporary.write_text("old")
    with pytest.raises(ValueError, match="no"), written_atomically(path) as temporary:
        temporary.write_text("half")
        raise ValueError("no")
    assert content(tmp_path) == {"file.txt": "old"}
    assert path.stat().st_mode & 0o777 == 0o644


CACHE = """
    import os
    from ss4d.files import use_writable_numba_cache
    use_writable_numba_cache()
    print(os.environ.get("NUMBA_CACHE_DIR", "as it is"))
"""


@pytest.mark.skipif(not ROOT, reason="needs two users")
def test_whoever_compiles_has_that_cache(tmp_path: Path) -> None:
    (reachable(tmp_path) / "tmp").mkdir()
    os.chmod(tmp_path / "tmp", 0o1777)
    script = "import ss4d.compiled, numba; print(numba.config.CACHE_DIR)"
    answer = as_nobody(script, TMPDIR=str(tmp_path / "tmp"))
    assert answer.stdout.strip() == str(tmp_path / "tmp" / "ss4d-numba-65534"), answer.stderr


@pytest.mark.skipif(not ROOT, reason="needs two users")
def test_numba_gets_a_cache_where_there_is_no_home(tmp_path: Path) -> None:
    (reachable(tmp_path) / "tmp").mkdir()
    os.chmod(tmp_path / "tmp", 0o1777)
    answer = as_nobody(CACHE, TMPDIR=str(tmp_path / "tmp"))
    assert answer.stdout.strip() == str(tmp_path / "tmp" / "ss4d-numba-65534"), answer.stderr
    (tmp_path / "tmp" / "ss4d-numba-65534").rmdir()
    (tmp_path / "tmp" / "ss4d-numba-65534").mkdir()  # another user was there first
    place = Path(as_nobody(CACHE, TMPDIR=str(tmp_path / "tmp")).stdout.strip())
    assert place.parent == tmp_path / "tmp" and place.name != "ss4d-numba-65534" and place.stat().st_uid == 65534
    assert as_nobody(CACHE, NUMBA_CACHE_DIR="/somewhere").stdout.strip() == "/somewhere"


def test_a_writable_cache_of_numba_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    use_writable_numba_cache()
    assert "NUMBA_CACHE_DIR" not in os.environ
