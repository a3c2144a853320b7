"""Pack what training the flows needs of a prepared set into parts for another machine, or unpack them there.

    python scripts/pack_training_set.py pack data/tiny parts --part-mb 60
    python scripts/pack_training_set.py unpack parts /tmp/data

A part is a tar archive of whole clips: their latents, and of their pictures the conditioning videos alone. The tables
go into every part, so that the parts that have arrived are a prepared set: clips of missing parts are left out of it.
"""

from __future__ import annotations

import argparse
import io
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

TABLES = ("curate", "render", "features", "encode")
STATISTICS = "latent_statistics.json"


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="pack_training_set.py"
    )
    parser.add_argument("action", choices=("pack", "unpack"))
    parser.add_argument("source", type=Path, help="pack: the prepared set; unpack: the folder of parts")
    parser.add_argument("target", type=Path, help="pack: the folder of parts; unpack: the prepared set to make")
    parser.add_argument("--part-mb", type=float, default=60.0, help="largest size of a part (default: 60)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    given = parse_arguments(arguments)
    try:
        if given.action == "pack":
            print(f"{pack(given.source, given.target, int(given.part_mb * 2**20))} parts in {given.target}")
        else:
            print(f"{unpack(given.source, given.target)} clips in {given.target}")
    except ValueError as error:
        print(f"pack_training_set.py: {error}", file=sys.stderr)
        return 2
    return 0


def pack(root: Path, target: Path, part_bytes: int) -> int:
    """Write `target/part-000.tar` and so on; returns how many.

    Raises:
        ValueError: a table of the set is missing, or a clip alone is larger than a part.
    """
    import pyarrow.parquet

    for name in TABLES:
        if not (root / "tables" / f"{name}.parquet").exists():
            raise ValueError(f"{root} has no table {name}: run `python -m dataset_toolkits {name} --root {root}` first")
    table = pyarrow.parquet.read_table(root / "tables" / "encode.parquet").to_pylist()
    clips = [row["name"] for row in table if row["status"] == "done"]
    tables = [root / "tables" / f"{name}.parquet" for name in TABLES] + [root / "tables" / STATISTICS]
    head = sum(_padded(path.stat().st_size) for path in tables)
    target.mkdir(parents=True, exist_ok=True)
    groups: list[list[str]] = []
    size = part_bytes
    for clip in clips:
        needed = sum(_padded(len(content)) for _, content in _members(root, clip))
        if head + needed + tarfile.RECORDSIZE > part_bytes:
            raise ValueError(f"clip {clip} needs {needed / 2**20:.2f} MB, more than a part: raise --part-mb")
        if size + needed + tarfile.RECORDSIZE > part_bytes:
            groups.append([])
            size = head
        groups[-1].append(clip)
        size += needed
    for old in target.glob("part-*.tar"):  # of an earlier set, which unpacking would mix with this one
        old.unlink()
    for number, group in enumerate(groups):
        _write_part(target / f"part-{number:03d}.tar", root, tables, group)
    return len(groups)


def _write_part(path: Path, root: Path, tables: list[Path], clips: list[str]) -> None:
    with tarfile.open(path, "w") as part:
        for table in tables:
            part.add(table, f"tables/{table.name}")
        for clip in clips:
            for name, content in _members(root, clip):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                part.addfile(member, io.BytesIO(content))


def unpack(source: Path, root: Path) -> int:
    """Make a prepared set of the parts in `source`; returns its number of clips.

    Raises:
        ValueError: there are no parts, or one is damaged.
    """
    import pyarrow.parquet

    parts = sorted(source.glob("part-*.tar"))
    if not parts:
        raise ValueError(f"{source} holds no part-*.tar")
    for path in parts:
        try:
            with tarfile.open(path) as part:
                part.extractall(root, filter="data")
        except tarfile.TarError as error:
            raise ValueError(f"{path} is damaged ({error}): copy it again") from error
    there = {path.stem for path in (root / "encode").glob("*.safetensors")}
    for name in TABLES:
        path = root / "tables" / f"{name}.parquet"
        table = pyarrow.parquet.read_table(path)
        keep = [clip in there for clip in table["clip_name"].to_pylist()]
        pyarrow.parquet.write_table(table.filter(keep), path)
    return len(there)


def _members(root: Path, clip: str) -> Iterator[tuple[str, bytes]]:
    yield f"encode/{clip}.safetensors", (root / "encode" / f"{clip}.safetensors").read_bytes()
    pictures = io.BytesIO()
    with zipfile.ZipFile(root / "render" / f"{clip}.zip") as whole, zipfile.ZipFile(pictures, "w") as chosen:
        for item in whole.infolist():
            if item.filename == "transforms.json" or item.filename.startswith("cond/"):
                chosen.writestr(item, whole.read(item))
    yield f"render/{clip}.zip", pictures.getvalue()


def _padded(size: int) -> int:
    """Bytes of a file of this size in a tar archive."""
    return tarfile.BLOCKSIZE + -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


if __name__ == "__main__":
    sys.exit(main())
