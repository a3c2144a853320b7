"""Metrics and protocols of the paper's evaluation (§5): metrics are pure functions, protocols are data."""
