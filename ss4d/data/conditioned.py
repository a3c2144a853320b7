"""What the datasets with conditioning videos share: those of the two flows and of the structure estimator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ss4d.compositing import premultiplied
from ss4d.data.dataset import WindowDataset
from ss4d.data.format import Cube
from ss4d.data.masking import MaskingSettings, mask_video
from ss4d.data.prepared import PreparedSet
from ss4d.data.recolor import Recoloring
from ss4d.data.training_windows import Window
from ss4d.data.views import ViewArchive


class ConditionedDataset(WindowDataset):
    """Base of those with conditioning videos: the cube that is drawn decides which video is its condition.

    Args:
        masking: of the conditioning videos; None leaves them as they are. It has no influence on the other choices.
        recolor: chance of a conditioning video to get other colours.
    """

    def __init__(
        self,
        clips: PreparedSet,
        quarter_turns: Sequence[int] = (0,),
        masking: MaskingSettings | None = None,
        recolor: float = 0.0,
    ):
        super().__init__(clips, quarter_turns)
        self.masking, self.recolor = masking, recolor

    def conditioning(
        self, window: Window, cube: Cube, generator: np.random.Generator, recoloring: Recoloring | None = None
    ) -> Tensor:
        """The conditioning video of a cube, float32 [T, 4, S, S], recoloured (as `recoloring` says, if it is given) and
        masked as the settings ask.

        It is the cube's own, or a random one of the side that its quarter turns bring to the front.

        Raises:
            ValueError: none was rendered.
        """
        pictures = self.clips.pictures(window.clip)
        view = self._front_view(pictures, cube.turns, generator) if cube.view is None else cube.view
        rgba = torch.from_numpy(np.stack([pictures.cond(view, frame) for frame in window.frames]))
        images = premultiplied(rgba.movedim(-1, -3))
        if recoloring is None and self.recolor and generator.random() < self.recolor:
            recoloring = Recoloring.draw(generator)
        if recoloring is not None:  # of straight colours: a gamma of those times alpha would change the edges otherwise
            changed = recoloring.images(rgba.movedim(-1, -3).float() / 255)
            images = torch.cat([changed[:, :3] * changed[:, 3:], changed[:, 3:]], dim=1)
        return images if self.masking is None else mask_video(images, self.masking, generator)

    def _front_view(self, pictures: ViewArchive, turns: int, generator: np.random.Generator) -> int:
        """A random one of the conditioning videos of the side that `turns` quarter turns bring to the front."""
        yaw = -90 * turns % 360
        matching = [
            view
            for view, camera in enumerate(pictures.index.cond)
            if camera.yaw is not None and camera.yaw % 360 == yaw
        ]
        if not matching:
            yaws = sorted({camera.yaw for camera in pictures.index.cond if camera.yaw is not None})
            raise ValueError(
                f"{pictures.path} has conditioning videos of yaw {yaws}, but quarter turn {turns} needs {yaw}: "
                "render them, or leave the turn out of data.quarter_turns"
            )
        return matching[int(generator.integers(len(matching)))]
