"""Set-up of tests that need Blender."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dataset_toolkits.blender.process import BlenderProcess, blender_python
from dataset_toolkits.engine.stage import StageError


@pytest.fixture(scope="session")
def blender() -> Iterator[BlenderProcess]:
    """A Blender that all tests of this process share; they are skipped where there is none."""
    try:
        blender_python()
    except StageError:
        pytest.skip("needs Blender: ./setup.sh blender")
    process = BlenderProcess()
    yield process
    process.close()
