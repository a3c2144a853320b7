"""What the two flows of a run share: the condition, the noise, and the stages that are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from ss4d.flow import ImageCondition, SamplerSettings, sample
from ss4d.kept_stages import KeptStages, key_of
from ss4d.plan import Plan
from ss4d.sparse import SparseTensor


@dataclass
class Sampling:
    """What the two flows of a run share.

    Attributes:
        generator: of the noise.
        key: of the clip, the weights and the seed, for stages that are kept.
        dtype: that the torso of the flow that sampled last computes in.
    """

    condition: ImageCondition
    generator: torch.Generator
    kept: KeptStages
    key: str
    progress: bool
    dtype: torch.dtype = torch.float32

    @property
    def frames(self) -> int:
        return self.condition.tokens.shape[1]

    def noise(self, *shape: int) -> Tensor:
        """Standard normal, drawn on the CPU."""
        return torch.randn(shape, generator=self.generator)

    def sampled(
        self, stage: str, flow: Any, noise: Tensor | SparseTensor, settings: SamplerSettings, plan: Plan, *parts: Tensor
    ) -> Tensor:
        """What a flow makes of noise, dense latents or the features of voxels, unless the stage is kept already.

        Args:
            parts: what else the result depends on.
        """
        self.dtype = flow.dtype

        def build() -> Tensor:
            bar = stage if self.progress else None
            z = sample(flow, cast(Any, noise), self.condition, settings, bar, plan.keep, plan.window)
            return z.feats if isinstance(z, SparseTensor) else z

        key = key_of(self.key, *parts, settings.entries(), min(plan.window, self.frames))
        return self.kept.get(stage, key, build)
