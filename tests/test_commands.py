"""Commands answer --help at once, and importing the pipeline is cheap: nothing is loaded before it is needed."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.eval.__main__ import COMMANDS
from ss4d.export.formats import FORMATS

ROOT = Path(__file__).parents[1]
SECONDS = 0.5  # of CPU time, for --help
HEAVY = {"torch", "numpy", "scipy", "numba", "hydra", "omegaconf", "av", "PIL", "pyarrow", "transformers"}
MAIN_GUARD = 'if __name__ == "__main__":'
STAGES = ("collect", "pose", "curate", "render", "voxelize", "features", "encode", "report", "all", "sources")
# What a reader looks for in the answer.
SAYS = {
    "inference": ["--backend", "--num-frames"],
    "app": ["--max-megabytes"],
    "train": ["structure_flow/tiny", "learning_rate"],
    "scripts.export": ["--latent-guidance"],
    "scripts.gallery": ["--turntable"],
    "scripts.pack_training_set": ["--part-mb"],
    "scripts.eval": [f"  {name} " for name in COMMANDS],
    "scripts.bench": ["rasterizer", "convolution", "dino", "length", "full", "quality"],
    "ss4d.export": [f"  {name} " for name in FORMATS],
    "ss4d.viewer": ["player.html"],
    "ss4d.doctor": ["--json"],
    "dataset_toolkits": [f"\n  {stage} " for stage in STAGES],
}


# Not for users: the process of a job of the app; a script that another checkout runs as well, with its own packages.
INTERNAL = {"ss4d.app.worker", "scripts.bench.pipeline"}


def find_commands() -> set[str]:
    """Modules that can be run; those in `blender/` run inside Blender."""
    folders = ("scripts", "ss4d", "dataset_toolkits")
    files = [*ROOT.glob("*.py"), *(file for name in folders for file in (ROOT / name).rglob("*.py"))]
    found = {file.relative_to(ROOT) for file in files if MAIN_GUARD in file.read_text(encoding="utf-8")}
    names = {
        ".".join(file.with_suffix("").parts).removesuffix(".__main__") for file in found if "blender" not in file.parts
    }
    return names - INTERNAL


def test_every_command_is_tested() -> None:
    assert find_commands() == set(SAYS)


@pytest.mark.parametrize(
    ("module", "arguments"),
    [*((module, []) for module in SAYS), *(("scripts.eval", [name]) for name in COMMANDS)],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_help_answers_at_once(module: str, arguments: list[str]) -> None:
    script = (
        f"import runpy, sys\nsys.argv = {['x', *arguments, '--help']!r}\n"
        f"try: runpy.run_module({module!r}, run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end: assert not end.code\n"
        f"print('loaded', sorted({HEAVY!r} & set(sys.modules)))"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    answer = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert answer.returncode == 0 and not answer.stderr, answer.stderr
    text, _, loaded = answer.stdout.rpartition("loaded ")
    assert loaded.strip() == "[]"
    assert text.count("\n") > 3
    missing = [phrase for phrase in ([] if arguments else SAYS[module]) if phrase not in text]
    assert not missing
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < SECONDS


def test_a_reader_who_leaves_is_no_failure() -> None:
    """As `| head` does, which has gone before all is printed."""
    command = [sys.executable, "train.py", "--help"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == "" and process.wait() == 0


def test_importing_the_pipeline_is_cheap_beside_torch() -> None:
    script = (
        "import sys, time, torch\n"
        "start = time.process_time()\n"
        "from ss4d import SS4DPipeline\n"
        "print(time.process_time() - start)\n"
        "heavy = {'scipy', 'numba', 'hydra', 'omegaconf', 'pyarrow', 'transformers', 'huggingface_hub'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    answer = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    seconds, loaded = answer.stdout.splitlines()
    assert loaded == "[]"
    assert float(seconds) < 1.0
