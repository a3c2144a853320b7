"""What jobs raise on purpose."""

from __future__ import annotations


class JobError(Exception):
    """A job cannot be done; the message is one sentence for the user."""
