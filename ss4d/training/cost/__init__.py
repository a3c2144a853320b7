"""What a training step costs, by formula, without data: parameters, FLOPs and memory."""

from ss4d.training.cost.models import model_cost
from ss4d.training.cost.parts import Cost, Part, Workload
from ss4d.training.cost.step import StepCost, describe, share_to_recompute, step_cost
from ss4d.training.cost.voxels import VoxelStatistics, measured_statistics

__all__ = [
    "Cost",
    "Part",
    "StepCost",
    "VoxelStatistics",
    "Workload",
    "describe",
    "measured_statistics",
    "model_cost",
    "share_to_recompute",
    "step_cost",
]
