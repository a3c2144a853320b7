"""Flow matching: the path, the times to train at, and sampling."""

from ss4d.flow.path import FlowPath, logit_normal_times
from ss4d.flow.samplers import SamplerSettings, SamplerStep, euler_sample, euler_steps

__all__ = ["FlowPath", "SamplerSettings", "SamplerStep", "euler_sample", "euler_steps", "logit_normal_times"]
