"""Collect trained models into a checkpoint folder in the released layout.

`python scripts/export.py RUNS OUT`: RUNS holds the run folders structure_vae, structure_flow, sparse_vae and
sparse_flow, and structure_estimator where there is one; OUT gets pipeline.json and ckpts/. A model that a run took
frozen comes from where the run took it; with `--base CHECKPOINT`, a folder or a Hub id, what RUNS lacks comes from
there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--base", help="checkpoint folder or Hub id with the models that RUNS does not have")
    parser.add_argument("--steps", type=int, help="sampling steps written as the default (2 from an estimate, else 4)")
    parser.add_argument("--structure-steps", type=int, help="of the structure alone (as --steps)")
    parser.add_argument("--guidance", type=float, help="of the structure (0 from an estimate, else 3)")
    parser.add_argument("--start", type=float, default=0.4, help="time that sampling starts at from an estimate (0.4)")
    parser.add_argument("--latent-guidance", type=float, default=0.0, help="of the voxel latents (0)")
    parser.add_argument(
        "--rescale", type=float, default=1.0, help="rescale_t of both: above 1 more steps near noise (1)"
    )
    parser.add_argument("--solver", default="euler", help="of both: euler, heun or multistep (euler)")
    return parser.parse_args(argv)


def main() -> None:
    options = parse_arguments()

    from ss4d.flow import SamplerSettings
    from ss4d.training.export import EXPERIMENTS, export, find_parts

    runs = {name: options.runs / name for name in EXPERIMENTS}
    shared = {"rescale_t": options.rescale, "solver": options.solver}
    try:
        parts = find_parts(runs, options.base)
        steps = options.steps or (2 if parts.estimates else 4)
        guidance = (0.0 if parts.estimates else 3.0) if options.guidance is None else options.guidance
        structure = SamplerSettings(options.structure_steps or steps, guidance, start=options.start, **shared)
        latents = SamplerSettings(steps, options.latent_guidance, **shared)
        total = export(parts, options.out, structure, latents)
    except ValueError as error:
        sys.exit(f"export.py: {error}")
    size = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file())
    print(f"{total:,} parameters, {size / 1e6:.2f} MB in {options.out}")


if __name__ == "__main__":
    main()
