"""The objects that a protocol judges methods by: what a method is given, and the target it is compared with."""
