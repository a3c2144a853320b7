"""Training of the four models."""
