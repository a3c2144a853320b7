"""Other colours for the pictures of an object, and for voxel features of its colours (not in the paper).

Objects of few colours teach a model few colours: the first sparse VAE of ss4d-tiny had no green.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ss4d.data.format import COLOUR_MIDDLE, COLOUR_SPREAD

LEAST_GAIN = 0.5
LARGEST_GAMMA = 2.0
COLOURS = ("red", "green", "blue")


@dataclass(frozen=True)
class Recoloring:
    """The three channels in another order, each darker by a gain and bent by a gamma."""

    order: Tensor  # int64 [3], a permutation
    gain: Tensor  # float32 [3], LEAST_GAIN to 1
    gamma: Tensor  # float32 [3], 1 / LARGEST_GAMMA to LARGEST_GAMMA

    @classmethod
    def draw(cls, generator: np.random.Generator, largest_gamma: float = LARGEST_GAMMA) -> Recoloring:
        """A random one; `largest_gamma=1`, which leaves the gamma out, for features and what goes with them."""
        order = torch.from_numpy(generator.permutation(3))
        bound = np.log(largest_gamma)
        gamma = torch.from_numpy(np.exp(generator.uniform(-bound, bound, 3))).float()
        return cls(order, torch.from_numpy(generator.uniform(LEAST_GAIN, 1, 3)).float(), gamma)

    def to_json(self) -> str:
        """As the artifact of encode keeps it; `from_json` reads it."""
        return json.dumps({name: value.tolist() for name, value in vars(self).items()})

    @classmethod
    def from_json(cls, text: str) -> Recoloring:
        return cls(**{name: torch.tensor(value) for name, value in json.loads(text).items()})

    def images(self, images: Tensor) -> Tensor:
        """Pictures float32 [..., 3 or 4, H, W] in [0, 1] -> the same; black and alpha stay what they are."""
        gain, gamma = self.gain[:, None, None], self.gamma[:, None, None]
        return torch.cat([gain * images[..., self.order, :, :] ** gamma, images[..., 3:, :, :]], dim=-3)

    def features(self, feats: Tensor, channels: Sequence[str]) -> Tensor:
        """Features [N, F] with the names of their channels -> the same of the recoloured object, without the gamma:
        a mean of colours is bent otherwise than each of them.

        Raises:
            ValueError: they have no channels of colour.
        """
        if not set(COLOURS) <= set(channels):
            raise ValueError(
                "the voxel features have no channels of colour to change (features.extractor=small makes them): "
                "set data.recolor and encode.recolor to 0"
            )
        changed = feats.clone()
        for column, name in enumerate(channels):
            colour, _, scale = name.partition("_")
            if colour in COLOURS:
                place = COLOURS.index(colour)
                old = COLOURS[int(self.order[place])] + (f"_{scale}" if scale else "")
                value = COLOUR_MIDDLE + COLOUR_SPREAD * feats[:, channels.index(old)]
                changed[:, column] = (self.gain[place] * value - COLOUR_MIDDLE) / COLOUR_SPREAD
        return changed
