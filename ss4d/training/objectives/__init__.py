"""What each of the four models is trained for (paper §3, §4): one objective per experiment, in a file of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ss4d.config import did_you_mean, load_options
from ss4d.training.objectives.objective import Loss, Objective, ObjectiveOptions
from ss4d.training.objectives.sparse_flow import SparseFlowObjective
from ss4d.training.objectives.sparse_vae import SparseVAEObjective
from ss4d.training.objectives.structure_estimator import StructureEstimatorObjective
from ss4d.training.objectives.structure_flow import StructureFlowObjective
from ss4d.training.objectives.structure_vae import StructureVAEObjective

__all__ = ["OBJECTIVES", "Loss", "Objective", "ObjectiveOptions", "create_objective", "objective_options"]

OBJECTIVES: dict[str, type[Objective]] = {
    "structure_vae": StructureVAEObjective,
    "structure_estimator": StructureEstimatorObjective,
    "structure_flow": StructureFlowObjective,
    "sparse_vae": SparseVAEObjective,
    "sparse_flow": SparseFlowObjective,
}


def objective_options(section: Mapping[str, Any]) -> ObjectiveOptions:
    """The options of an objective, from the `objective` section of the config.

    Raises:
        ValueError: an unknown name or option, with the nearest valid one, or a value that does not fit.
    """
    name = section.get("name")
    if name not in OBJECTIVES:
        names = list(OBJECTIVES)
        raise ValueError(f"objective.name = {name}: {did_you_mean(str(name), names, f'it is one of {names}')}")
    return load_options(OBJECTIVES[name].Options, section, section="objective")


def create_objective(models: Mapping[str, nn.Module], options: ObjectiveOptions) -> Objective:
    """The objective of that name, training `models`.

    Raises:
        ValueError: a model that it does not train.
    """
    return OBJECTIVES[options.name](models, options)
