"""Shared test set-up."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import write_clips, write_pipeline

from ss4d import backend


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: "slow" not in item.keywords)  # first, so that no process waits for one at the end
    for item in items:
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    torch.manual_seed(0)
    backend.use(backend.Backend(), "cpu")  # a test that ran inference.py left its own


@pytest.fixture(scope="session")
def pipeline_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder in the released layout with small random models. Copy it before changing anything."""
    torch.manual_seed(1)
    return write_pipeline(tmp_path_factory.mktemp("pipeline"))


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared data set of two synthetic clips."""
    return write_clips(tmp_path_factory.mktemp("clips"))
