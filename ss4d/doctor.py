"""What this machine has and lacks for the next run: `python -m ss4d.doctor`.

Every optional package is looked for, and where it is there a small self-test says whether it works: implementations of
`ss4d.backend` are compared with the reference, in a process of their own, since a broken kernel can end a process.
The exit status is 1 where `inference.py` with the same --model, --out, --device and --num-frames would fail.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from ss4d.backend import AUTOMATIC, IMPLEMENTATIONS
from ss4d.failures import ROOT, run_command, without_folders
from ss4d.files import content_hash, use_writable_numba_cache
from ss4d.version import __version__

OK, MISSING, BROKEN, NOTE = "ok", "missing", "BROKEN", "note"
GIB, MIB = 2**30, 2**20
SELF_TEST_SECONDS = 600  # gsplat and inria compile their kernels the first time
GIVES = {
    "attention=torch": "the definition, for checks",
    "attention=sdpa": "torch's fused attention, any device",
    "attention=varlen": "all segments in one call, half precision on CUDA",
    "attention=flash": "flash-attn's kernels, half precision on CUDA",
    "attention=xformers": "attention on GPUs that flash-attn does not take",
    "convolution=ours": "sparse convolution, any device",
    "convolution=spconv": "sparse convolution by spconv's kernels on CUDA",
    "rasterizer=torch": "the definition, slow",
    "rasterizer=numba": "fast rendering on the CPU",
    "rasterizer=gsplat": "fast rendering on CUDA",
    "rasterizer=inria": "the rasterizer of the released code, on CUDA",
}
# Of pyproject.toml, by what is imported.
REQUIRED = {
    **dict.fromkeys(("torch", "numpy", "scipy", "numba", "einops", "safetensors", "av", "imageio", "tqdm"), ""),
    **{"PIL": "pillow", "huggingface_hub": "huggingface-hub"},
}
EXTRAS = {
    "rembg": ("matting", "removes backgrounds that are not one colour"),
    "onnxruntime": ("matting", "runs rembg's models"),
    "transformers": ("cuda", "DINOv2, which the full-size weights and the features of training data need"),
    "jinja2": ("data", "the report of a data set"),
    "objaverse": ("data", "assets of Objaverse"),
    "ray": ("data", "data preparation on several machines"),
    "wandb": ("train", "curves on Weights & Biases"),
    "hydra_plugins.hydra_submitit_launcher": ("train", "training through SLURM"),
}
DISTRIBUTIONS = {
    "PIL": "pillow",
    "flash_attn": "flash-attn",
    "hydra_plugins.hydra_submitit_launcher": "hydra-submitit-launcher",
}
# Peak memory of runs with ss4d-tiny on a CPU (docs/inference.md): without a clip or a model, and for each frame.
BASE_BYTES, FRAME_BYTES = 450 * MIB, 40 * MIB


@dataclass
class Finding:
    """One line of the report."""

    section: str
    name: str
    state: str  # OK, MISSING (optional), NOTE, or BROKEN: the next run would fail
    detail: str
    advice: str = ""  # what to do


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


def machine() -> Iterator[Finding]:
    section = "machine"
    yield Finding(section, "system", OK, f"{platform.system()} {platform.release()} {platform.machine()}")
    yield Finding(section, "Python", OK, f"{platform.python_version()}, ss4d {__version__}")
    yield Finding(section, "CPUs", OK, f"{len(os.sched_getaffinity(0))} of {os.cpu_count()}")
    total, free = main_memory()
    yield Finding(section, "memory", OK, f"{free / GIB:.1f} of {total / GIB:.1f} GiB available")
    shared = shutil.disk_usage("/dev/shm").total if Path("/dev/shm").is_dir() else 0
    state = OK if shared >= GIB else NOTE
    advice = "" if state == OK else "workers of training may need more: docker run --shm-size 8g, or fewer workers"
    yield Finding(section, "/dev/shm", state, f"{shared / GIB:.1f} GiB", advice)


def main_memory() -> tuple[int, int]:
    """Bytes of main memory in all, and available to this process, within the limits of its container."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total, free = (1024 * int(lines[key].split()[0]) for key in ("MemTotal", "MemAvailable"))
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and used.is_file() and (most := limit.read_text().strip()) != "max":
        total = min(total, int(most))
        free = min(free, int(most) - int(used.read_text()))
    return total, max(free, 0)


def required_packages() -> Iterator[Finding]:
    missing = [REQUIRED[name] or name for name in REQUIRED if importlib.util.find_spec(name) is None]
    versions = ", ".join(f"{name} {version(name)}" for name in REQUIRED if version(name))
    state = BROKEN if missing else OK
    yield Finding("packages", "required", state, versions, f"pip install {' '.join(missing)}" if missing else "")


def version(package: str) -> str | None:
    try:
        return metadata.version(DISTRIBUTIONS.get(package, package.split(".")[0]))
    except metadata.PackageNotFoundError:
        return None


def devices(asked: str | None) -> Iterator[Finding]:
    import torch

    from ss4d.pipeline import find_device

    section = "devices"
    names = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    for name in names:
        detail = f"{torch.get_num_threads()} threads"
        if name != "cpu":
            properties = torch.cuda.get_device_properties(name)
            detail = f"{properties.name}, compute capability {properties.major}.{properties.minor}"
        try:
            a = torch.arange(16.0, device=name).reshape(4, 4)
            if not torch.equal((a @ a).cpu(), a.cpu() @ a.cpu()):
                raise RuntimeError("a product of matrices is wrong")
            yield Finding(section, name, OK, detail)
        except RuntimeError as error:
            advice = f"check the driver and that torch {torch.__version__} fits it, or use --device cpu"
            yield Finding(section, name, BROKEN, f"{detail}: {first_line(error)}", advice)
    if len(names) == 1:
        yield Finding(section, "cuda", MISSING, "no CUDA device is seen", "full-size weights need one")
    if asked:
        try:
            find_device(asked)
        except ValueError as error:
            yield Finding(section, asked, BROKEN, str(error))


def backends() -> Iterator[Finding]:
    import torch

    for part, implementations in IMPLEMENTATIONS.items():
        for name, implementation in implementations.items():
            key = f"{part}={name}"
            gives = GIVES[key]
            if not implementation.installed():
                yield Finding("backends", key, MISSING, gives, implementation.install)
                continue
            device = "cuda" if torch.cuda.is_available() and implementation.device != "cpu" else "cpu"
            number = version(implementation.package) or ""
            if not implementation.takes(device, half=True):
                there = f"{implementation.package.split('.')[0]} {number}".strip()
                yield Finding("backends", key, NOTE, f"{gives} ({there} is there, but no {implementation.device})")
                continue
            said = isolated(f"from ss4d.self_test import self_test; print(self_test({part!r}, {name!r}, {device!r}))")
            works = said.startswith("error ")  # by how much it differs from the reference
            used = part in AUTOMATIC and name in AUTOMATIC[part]
            state = OK if works else BROKEN if used else NOTE
            advice = "" if works else f"choose another with --backend {part}=..., or install it again"
            yield Finding("backends", key, state, f"{gives} ({implementation.package} {number}; {said})", advice)


def isolated(script: str) -> str:
    """What a script prints last, or why it failed."""
    command = [sys.executable, "-W", "ignore", "-c", script]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SELF_TEST_SECONDS, env=environment)
    except subprocess.TimeoutExpired:
        return f"failed: no answer within {SELF_TEST_SECONDS} s"
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    last = lines[-1] if lines else f"status {done.returncode}"
    return last if done.returncode == 0 else f"failed: {last[:200]}"


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def extras() -> Iterator[Finding]:
    for package, (extra, gives) in EXTRAS.items():
        install = f"pip install -e '.[{extra}]'"
        if importlib.util.find_spec(package.split(".")[0]) is None or not (number := version(package)):
            yield Finding("extras", package.split(".")[-1], MISSING, gives, install)
            continue
        said = isolated(f"import {package}; print('imports')")
        state = OK if said == "imports" else NOTE
        yield Finding(
            "extras", package.split(".")[-1], state, f"{gives} ({number}; {said})", "" if state == OK else install
        )


def checkpoints(model: str) -> Iterator[Finding]:
    """Those that lie in checkpoints/ and in the Hub's cache, and the one that the next run takes."""
    section = "checkpoints"
    found = sorted(file.parent for file in (ROOT / "checkpoints").glob("*/pipeline.json"))
    chosen = Path(model)
    if chosen.is_dir() and chosen.resolve() not in [folder.resolve() for folder in found]:
        found.append(chosen)
    for folder in found:
        weights = sorted(folder.glob("ckpts/*.safetensors"))
        size = sum(file.stat().st_size for file in weights) / MIB
        yield Finding(section, folder.name, OK, f"{size:.0f} MiB, SHA-256 {content_hash(weights)[:16]} at {folder}")
    cached = [*hub_cache().glob("models--*"), *rembg_cache().rglob("*.onnx")]
    for place in cached:
        yield Finding(section, place.name.removeprefix("models--").replace("--", "/"), OK, f"fetched, at {place}")
    yield loadable(model)


def loadable(model: str) -> Finding:
    from ss4d.models.checkpoint import CheckpointError
    from ss4d.models.folder import PipelineFolder

    name = f"--model {Path(model).name}"
    if not Path(model).is_dir() and model.count("/") == 1:
        there = (hub_cache() / f"models--{model.replace('/', '--')}").is_dir()
        return Finding("checkpoints", name, OK if there else NOTE, "fetched" if there else "the next run will fetch it")
    try:
        PipelineFolder.open(model).load_models()
    except (CheckpointError, ModuleNotFoundError) as error:
        return Finding("checkpoints", name, BROKEN, first_line(error))
    return Finding("checkpoints", name, OK, "loads")


def hub_cache() -> Path:
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or home / "hub")


def rembg_cache() -> Path:
    return Path(os.environ.get("REMBG_HOME") or os.environ.get("U2NET_HOME") or Path.home() / ".rembg")


def memory(options: argparse.Namespace) -> Iterator[Finding]:
    """What the next run takes, by the sizes of its models and what was measured of ss4d-tiny, against what is free."""
    import torch

    folder = Path(options.model)
    weights = sum(file.stat().st_size for file in folder.glob("ckpts/*.safetensors")) if folder.is_dir() else 0
    cuda = torch.cuda.is_available() and not (options.device or "cuda").startswith("cpu")
    needed = BASE_BYTES + 2 * weights + options.num_frames * FRAME_BYTES
    free = torch.cuda.mem_get_info(options.device or "cuda")[0] if cuda else main_memory()[1]
    where = "of the GPU" if cuda else "of main memory"
    detail = f"about {needed / GIB:.1f} GiB for {options.num_frames} frames; {free / GIB:.1f} GiB {where} are free"
    if not weights:
        detail = f"{free / GIB:.1f} GiB {where} are free; the size of the model is known once it is fetched"
    state = OK if needed < free else BROKEN
    yield Finding("next run", "memory", state, detail, "" if state == OK else "take fewer frames: --num-frames")


def places(out: Path) -> Iterator[Finding]:
    """Whether what will be written can be."""
    from ss4d.result_folder import DestinationError, ResultFolder

    section = "next run"
    try:
        target = ResultFolder.open(out)
        existing = next(place for place in (target.path, *target.path.parents) if place.exists())
        earlier = "an earlier result there will be replaced, " if target.holds_result else ""
        free = shutil.disk_usage(existing).free / GIB
        yield Finding(section, f"--out {out.name}", OK, f"{earlier}{free:.1f} GiB free at {target.path}")
    except DestinationError as error:
        yield Finding(section, f"--out {out.name}", BROKEN, str(error))
    numba = os.environ.get("NUMBA_CACHE_DIR")
    others = {
        "compiled code": Path(numba) if numba else ROOT / "ss4d",
        "temporary files": Path(tempfile.gettempdir()),
        "the Hub's cache": hub_cache(),
        "matting models": rembg_cache(),
    }
    for name, folder in others.items():
        existing = next((place for place in (folder, *folder.parents) if place.exists()), Path("/"))
        writable = os.access(existing, os.W_OK | os.X_OK)
        detail = f"{'writable' if writable else 'not writable'}: {folder}"
        yield Finding(section, name, OK if writable else NOTE, detail)


if __name__ == "__main__":
    sys.exit(main())
