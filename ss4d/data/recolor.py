"""Other colours for a conditioning video: a shape must not be recognised by the colours of one training object."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

LEAST_GAIN = 0.5
LARGEST_GAMMA = 2.0


def recolor_video(images: Tensor, generator: np.random.Generator) -> Tensor:
    """The channels in another order, each darker by a gain and bent by a gamma, alike in all frames (not in the paper).

    Args:
        images: float32 [T, 3 or 4, S, S] in [0, 1], on black, which stays black; alpha stays what it is.

    Returns:
        The same shape and range.
    """
    order = torch.from_numpy(generator.permutation(3))
    bound = np.log(LARGEST_GAMMA)
    gamma = torch.from_numpy(np.exp(generator.uniform(-bound, bound, 3))).float()[:, None, None]
    gain = torch.from_numpy(generator.uniform(LEAST_GAIN, 1, 3)).float()[:, None, None]
    return torch.cat([gain * images[:, order] ** gamma, images[:, 3:]], dim=1)
