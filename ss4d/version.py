"""The version of the package, which results and checkpoints name."""

__version__ = "0.1.0"
