"""Prepared clips as training batches."""

from ss4d.data.clips import Clip, ClipBatch, ClipSet, Window

__all__ = ["Clip", "ClipBatch", "ClipSet", "Window"]
