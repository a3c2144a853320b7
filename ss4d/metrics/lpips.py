"""Learned perceptual distance (Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric",
CVPR 2018), version 0.1, over AlexNet or VGG-16.

torchvision and the `lpips` package do not import beside a CPU build of torch, so the two stacks of convolutions are
defined here. Weights are one safetensors file, `lpips_alex.safetensors` or `lpips_vgg.safetensors`, with the parameter
names of the `lpips` package; where that is installed,

    python -c "import lpips, safetensors.torch as s
    named = lpips.LPIPS(net='alex').state_dict().items()
    s.save_file({k: v for k, v in named if not k.startswith('lins.')}, 'lpips_alex.safetensors')"

writes it, without the second name that each layer has there.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from ss4d.metrics.pretrained import load_strictly, read_tensors

SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # the package's scaling layer, for inputs in [-1, 1]
EPSILON = 1e-10  # in the norm of a feature vector, as in the package


def alexnet_slices() -> list[list[nn.Module]]:
    """AlexNet's convolutions (Krizhevsky 2014, torchvision's numbering), cut after each ReLU."""
    return [
        [nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU()],
        [nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU()],
        [nn.MaxPool2d(3, 2), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()],
        [nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()],
        [nn.Conv2d(256, 256, 3, padding=1), nn.ReLU()],
    ]


def vgg16_slices() -> list[list[nn.Module]]:
    """VGG-16's convolutions (Simonyan and Zisserman 2015), cut before each pooling."""
    slices: list[list[nn.Module]] = []
    before = 3
    for channels, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        layers: list[nn.Module] = [nn.MaxPool2d(2, 2)] if slices else []
        for _ in range(count):
            layers += [nn.Conv2d(before, channels, 3, padding=1), nn.ReLU()]
            before = channels
        slices.append(layers)
    return slices


NETWORKS = {"alex": (alexnet_slices, (64, 192, 384, 256, 256)), "vgg": (vgg16_slices, (64, 128, 256, 512, 512))}


class LPIPS(nn.Module):
    """The distance, with random weights; `load_lpips` gives the published ones.

    Args:
        network: "alex" or "vgg".

    Raises:
        ValueError: another network.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, network: str = "alex"):
        super().__init__()
        if network not in NETWORKS:
            raise ValueError(f"LPIPS is defined over {' and '.join(NETWORKS)}, but the network is {network!r}.")
        build, channels = NETWORKS[network]
        numbers = itertools.count()  # layers keep their number in the whole stack, as torchvision names them
        slices = [nn.Sequential(OrderedDict((str(next(numbers)), layer) for layer in layers)) for layers in build()]
        self.net = nn.ModuleDict({f"slice{index + 1}": layers for index, layers in enumerate(slices)})
        for index, count in enumerate(channels):
            # The package's layer 0 is dropout, which has no parameters.
            weight = nn.ModuleDict({"1": nn.Conv2d(count, 1, 1, bias=False)})
            self.add_module(f"lin{index}", nn.ModuleDict({"model": weight}))
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None], persistent=False)

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Distances [N] of images [N, 3, H, W] in [0, 1], H and W at least 64 for AlexNet; 0 where they are equal."""
        total = torch.zeros(len(images), device=images.device)
        pairs = zip(self._features(images), self._features(targets), strict=True)
        for index, (x, y) in enumerate(pairs):
            weight = self.get_parameter(f"lin{index}.model.1.weight")
            difference = (_unit(x) - _unit(y)).square()
            total = total + torch.nn.functional.conv2d(difference, weight).mean(dim=(1, 2, 3))
        return total

    def _features(self, images: Tensor) -> Iterator[Tensor]:
        x = (2 * images - 1 - self.shift) / self.scale
        for layers in self.net.values():
            x = layers(x)
            yield x


def _unit(features: Tensor) -> Tensor:
    """Features [N, C, H, W] of length 1 at every place; where all are 0, so is the gradient."""
    return features / (torch.linalg.vector_norm(features, dim=1, keepdim=True) + EPSILON)


def load_lpips(network: str, path: Path) -> LPIPS:
    """LPIPS with the weights of a safetensors file (see the module's text), in evaluation mode.

    Raises:
        ValueError: a file whose tensors do not fit, named with the tensors.
    """
    model = LPIPS(network)
    ignored = ("scaling_layer.", "lins.")  # constants, and a second name of the same layers
    stored = {name: value for name, value in read_tensors(path).items() if not name.startswith(ignored)}
    load_strictly(model, stored, path, f"LPIPS over {network}")
    return model
