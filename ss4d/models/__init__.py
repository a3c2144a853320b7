"""The four models of SS4D, by our names or the released class names."""

from __future__ import annotations

from ss4d.models.registry import create_model

__all__ = ["create_model"]
