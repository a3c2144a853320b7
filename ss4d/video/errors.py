"""Errors about input; each message is one sentence that says what is wrong and what to do."""

from __future__ import annotations


class VideoError(ValueError):
    """A clip that cannot be used."""


class ForegroundError(VideoError):
    """No object can be found in a clip."""
