"""Train one of the four models: `python train.py experiment=structure_flow/tiny [key=value ...]`.

On several GPUs: `torchrun --nproc-per-node 8 train.py experiment=structure_flow/paper gpus=8`; a sweep or a SLURM job:
`-m` and a launcher of Hydra. docs/training.md explains the keys.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from ss4d.failures import open_standard_streams, print_text, show_warnings_as_notes

CONFIGS = Path(__file__).resolve().parent / "configs"


def main() -> None:
    open_standard_streams()
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        print_text(help_text())
        return
    import hydra
    from hydra.errors import HydraException

    from ss4d.training.command_line import check_choices, explain, name_sweep

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors come here, instead of being printed by Hydra
    try:
        check_choices(arguments)
        sys.argv += name_sweep(arguments)
        hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="train")(train)()
    except (HydraException, ValueError) as error:
        sys.exit(f"train.py: {explain(error, arguments)}")
    except KeyboardInterrupt:
        sys.exit(130)  # before the first step


def train(config: Any) -> None:
    """Run with a config that Hydra composed; what is wrong with it, or with the machine, is said in a sentence."""
    import faulthandler

    import torch

    from ss4d.training.checkpointing import SaveError
    from ss4d.training.command_line import of_job
    from ss4d.training.run import run

    show_warnings_as_notes()
    if not faulthandler.is_enabled():
        faulthandler.enable()  # else a crash in C++ ends a process, such as a launcher's task, without a word
    try:
        stopped = run(of_job(config))
    except (ValueError, SaveError, FloatingPointError) as error:
        sys.exit(f"train.py: {error}")
    except OSError as error:
        sys.exit(f"train.py: {error.filename or 'run_dir'}: {error.strerror or error}: check the disk and start again")
    except (MemoryError, torch.OutOfMemoryError) as error:
        advice = (
            "lower batch_size, frames or data.tokens_per_batch, or set train.activation_gb (dry_run=true estimates)"
        )
        sys.exit(f"train.py: the memory is not enough ({' '.join(str(error).split())[:200]}): {advice}")
    if stopped is not None:
        sys.exit(128 + stopped)  # as shells have it: 143 for SIGTERM, 130 for Ctrl-C; 0 is a finished run


def help_text() -> str:
    """Experiments, and every key with its default."""
    experiments = sorted(path.relative_to(CONFIGS / "experiment") for path in CONFIGS.glob("experiment/*/*.yaml"))
    names = ", ".join(path.with_suffix("").as_posix() for path in experiments if not path.name.startswith("_"))
    options = (CONFIGS / "train.yaml").read_text(encoding="utf-8")
    return f"{__doc__}\nexperiments: {names}\n\n{options[options.index('run_dir:') : options.index('hydra:')].rstrip()}"


if __name__ == "__main__":
    main()
