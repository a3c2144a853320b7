"""The jobs that can be asked for, by name: generators of JSON values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from dataset_toolkits.blender.pictures import render
from dataset_toolkits.blender.posing import pose

JOBS: dict[str, Callable[..., Iterator[dict[str, Any]]]] = {"pose": pose, "render": render}
