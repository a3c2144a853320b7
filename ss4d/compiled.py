"""numba's `njit`, with a place for what it compiles that can always be written: it is imported from here alone."""

from __future__ import annotations

from ss4d.files import use_writable_numba_cache

use_writable_numba_cache()  # which numba reads when it is imported
from numba import njit  # noqa: E402

__all__ = ["njit"]
