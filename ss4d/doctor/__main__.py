"""What this machine has and lacks for the next run: `python -m ss4d.doctor`.

Every optional package is looked for, and where it is there a small self-test says whether it works: implementations of
`ss4d.backend` are compared with the reference, in another process, since a broken kernel can end a process.
The exit status is 1 where `inference.py` with the same --model, --out, --device and --num-frames would fail.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from ss4d.doctor.finding import BROKEN, Finding
from ss4d.doctor.machine import devices, machine
from ss4d.doctor.next_run import checkpoints, memory, places
from ss4d.doctor.packages import backends, extras, required_packages
from ss4d.failures import ROOT, run_command, without_folders
from ss4d.files import use_writable_numba_cache


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ss4d.doctor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=str(ROOT / "checkpoints" / "ss4d-tiny"), help="as for inference.py")
    parser.add_argument("--out", type=Path, default=Path("outputs"), help="as for inference.py")
    parser.add_argument("--device", help="as for inference.py")
    parser.add_argument("--num-frames", type=int, default=32, help="of the next run")
    parser.add_argument("--json", action="store_true", help="for bug reports: without private paths")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a failure")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = parse_arguments(argv)
    findings: list[Finding] = []

    def work() -> None:
        for finding in examine(options):
            findings.append(finding)
            if not options.json:
                print_finding(finding, first=len(findings) < 2 or findings[-2].section != finding.section)
        if options.json:
            print(json.dumps([public(finding) for finding in findings], indent=2))
            return
        broken = [finding.name for finding in findings if finding.state == BROKEN]
        print(f"\n{'The next run would fail: ' + ', '.join(broken) if broken else 'Ready.'}")

    status = run_command(work, sys.argv[1:] if argv is None else argv, options.debug)
    return status or int(any(finding.state == BROKEN for finding in findings))


def print_finding(finding: Finding, first: bool) -> None:
    if first:
        print(f"\n{finding.section}")
    print(f"  {finding.state:8}{finding.name:24}{finding.detail}", flush=True)
    if finding.advice:
        print(f"{'':34}-> {finding.advice}")


def public(finding: Finding) -> dict[str, str]:
    """A finding whose paths say nothing about the machine's owner."""
    home = str(Path.home())
    return {key: without_folders(text.replace(f"{home}/", "~/")) for key, text in asdict(finding).items()}


def examine(options: argparse.Namespace) -> Iterator[Finding]:
    """All findings, in the order in which they are printed."""
    use_writable_numba_cache()
    yield from machine()
    yield from required_packages()
    if importlib.util.find_spec("torch") is None:
        return
    yield from devices(options.device)
    yield from backends()
    yield from extras()
    yield from checkpoints(options.model)
    yield from memory(options)
    yield from places(options.out)


if __name__ == "__main__":
    sys.exit(main())
