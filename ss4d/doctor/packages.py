"""Packages, required and optional: which are installed, and whether they work."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from importlib import metadata

from ss4d.backend import AUTOMATIC, IMPLEMENTATIONS
from ss4d.doctor.finding import BROKEN, MISSING, NOTE, OK, Finding
from ss4d.doctor.isolated import isolated

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
    **{"PIL": "pillow", "huggingface_hub": "huggingface-hub", "hydra": "hydra-core", "omegaconf": "omegaconf"},
    **{"pyarrow": "pyarrow", "tensorboardX": "tensorboardx"},
}
EXTRAS = {
    "rembg": ("matting", "removes backgrounds that are not one colour"),
    "onnxruntime": ("matting", "runs rembg's models"),
    "gsply": ("spz", "exports to SPZ"),
    "pxr": ("usd", "exports to USD"),
    "skimage": ("mesh", "exports of meshes"),
    "fast_simplification": ("mesh", "exports of meshes"),
    "gradio": ("app", "the web app"),
    "viser": ("live", "results served from a remote machine"),
    "trimesh": ("eval", "meshes of other methods"),
    "transformers": ("cuda", "DINOv2, which the full-size weights and the features of training data need"),
    "jinja2": ("data", "the report of a data set"),
    "objaverse": ("data", "assets of Objaverse"),
    "ray": ("data", "data preparation on several machines"),
    "wandb": ("train", "curves on Weights & Biases"),
    "hydra_plugins.hydra_submitit_launcher": ("train", "training through SLURM"),
}
DISTRIBUTIONS = {
    "PIL": "pillow",
    "pxr": "usd-core",
    "skimage": "scikit-image",
    "fast_simplification": "fast-simplification",
    "flash_attn": "flash-attn",
    "hydra_plugins.hydra_submitit_launcher": "hydra-submitit-launcher",
}


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
            if not implementation.runs_on(device):
                lacking = "GPU from Ampere on" if implementation.device == device else implementation.device
                there = f"{implementation.package.split('.')[0]} {number}".strip()
                yield Finding("backends", key, NOTE, f"{gives} ({there} is there, but no {lacking})")
                continue
            said = isolated(
                f"from ss4d.doctor.self_test import self_test; print(self_test({part!r}, {name!r}, {device!r}))"
            )
            works = said.startswith("error ")  # by how much it differs from the reference
            used = part in AUTOMATIC and name in AUTOMATIC[part]
            state = OK if works else BROKEN if used else NOTE
            advice = "" if works else f"choose another with --backend {part}=..., or install it again"
            yield Finding("backends", key, state, f"{gives} ({implementation.package} {number}; {said})", advice)


def extras() -> Iterator[Finding]:
    for package, (extra, gives) in EXTRAS.items():
        install = f"pip install -e '.[{extra}]'"
        if importlib.util.find_spec(package.split(".")[0]) is None or not (number := version(package)):
            yield Finding("extras", package.split(".")[-1], MISSING, gives, install)
            continue
        said = isolated(f"import {package}; print('imports')")
        state = OK if said == "imports" else NOTE
        late = "no answer" in said  # rembg compiles when it is first imported
        advice = "" if state == OK else "run the doctor again while the machine is idle" if late else install
        yield Finding("extras", package.split(".")[-1], state, f"{gives} ({number}; {said})", advice)
