"""Flow matching: the path, the times to train at, and sampling."""

from ss4d.flow.path import FlowPath, logit_normal_times
from ss4d.flow.samplers import ImageCondition, SamplerSettings, sample, sampling_steps, velocity

__all__ = [
    "FlowPath",
    "ImageCondition",
    "SamplerSettings",
    "logit_normal_times",
    "sample",
    "sampling_steps",
    "velocity",
]
