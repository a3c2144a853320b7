"""Ablations of the paper (§5.3): train variants that differ in one thing, evaluate them, compare them."""
