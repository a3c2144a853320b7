from __future__ import annotations

from typing import Any

import pytest
import torch

from ss4d.models import create_model
from ss4d.models.structure_estimator import ImageNetFeatures, StructureEstimator
from ss4d.view_frame import ViewFrame

FRAME = {"crop": 0.8, "distance": 1.4}
R, SIZE = 8, 32
ARGS: dict[str, Any] = {"resolution": R, "image_size": SIZE, "channels": [8, 8, 16, 16]}


def estimator() -> Any:
    torch.manual_seed(0)
    return create_model("StructureEstimator", **ARGS, frame=FRAME).eval()


def test_a_voxel_is_read_off_the_ray_that_passes_it():
    """The fan of rays holds the depth, column and row of its places: the cube then says where each voxel looked."""
    model = estimator()
    depth, row, column = torch.meshgrid(*[(torch.arange(R) + 0.5) / R] * 3, indexing="ij")
    for wanted in ("depth", "row", "column"):
        fan = {"depth": depth, "row": row, "column": column}[wanted]
        handle = model.out.register_forward_hook(lambda *_, fan=fan: torch.cat([fan, fan])[None])
        cube = model(torch.zeros(1, 4, SIZE, SIZE))[0, 1]
        handle.remove()
        axis = (torch.arange(R) + 0.5) / R - 0.5
        points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
        seen = ViewFrame(**FRAME).project(points)
        expected = {"depth": points[..., 1] + 0.5, "column": seen[..., 0], "row": seen[..., 1]}[wanted]
        edge = 0.5 / R  # the outermost places lie half a step inside, and what is beyond takes their value
        torch.testing.assert_close(cube, expected.clamp(edge, 1 - edge), atol=1e-5, rtol=0)


def test_most_voxels_are_empty_at_first():
    logits = estimator()(torch.rand(2, 4, SIZE, SIZE))
    assert logits.shape == (2, 2, R, R, R) and (logits < 0).float().mean() > 0.95


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 40}, "image_size = 40 must be a multiple of 16"),
        ({"channels": [8, 8, 12, 16]}, r"channels = \[8, 8, 12, 16\] must be 4 multiples of 8"),
        ({"channels": [8, 8, 16]}, r"channels = \[8, 8, 16\] must be 4 multiples of 8"),
    ],
)
def test_arguments_that_cannot_be_are_named(changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        create_model("StructureEstimator", **{**ARGS, **changes}, frame=FRAME)


def test_pictures_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"pixels must be \[N, 4, 32, 32\], got \[1, 4, 64, 64\]"):
        estimator()(torch.zeros(1, 4, 64, 64))


def test_an_empty_picture_has_no_surface():
    model = estimator()
    torch.nn.init.constant_(model.out.bias, 5.0)
    pixels = torch.rand(3, 4, SIZE, SIZE)
    pixels[1] = 0
    assert model.surface(pixels).flatten(1).sum(1).tolist() == [R**3, 0, R**3]


def test_frames_of_a_clip_share_what_they_show_and_a_single_one_is_alone():
    model, pixels = estimator(), torch.rand(4, 4, SIZE, SIZE)
    alone = model(pixels)
    torch.testing.assert_close(model(pixels, frames=2), alone)  # nothing at first
    torch.nn.init.normal_(model.mix_frames.weight, std=0.1)
    for block in (*model.middle, *model.after2, model.after1):  # else nothing of it passes the norms of a new network
        torch.nn.init.normal_(block.conv2.weight, std=0.1)
    alone, pairs = model(pixels), model(pixels, frames=2)
    assert (pairs - alone).abs().max() > 1e-3
    changed = pixels.clone()
    changed[1] = torch.rand(4, SIZE, SIZE)
    moved = (model(changed, frames=2) - pairs).abs().amax((1, 2, 3, 4))
    assert bool((moved[:2] > 1e-4).all()) and moved[2:].max() == 0


def test_the_last_part_of_a_clip_sees_as_many_frames_as_the_others():
    class Counting:
        """In place of the network: says of each frame how many it sees, and the first pixel."""

        def surface(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.stack([torch.tensor([len(pixels), round(float(frame[0, 0, 0]) * 255)]) for frame in pixels])

    images = torch.arange(9, dtype=torch.uint8)[:, None, None, None].expand(9, 4, 2, 2).clone()
    images[:, 3] = 255
    for at_once, seen in ((4, [4] * 9), (9, [9] * 9), (16, [9] * 9), (1, [1] * 9)):
        surface = StructureEstimator.surface_of_clip(Counting(), images, at_once)  # type: ignore[arg-type]
        assert surface.tolist() == [[count, number] for number, count in enumerate(seen)]


def test_features_of_imagenet_are_frozen_and_at_first_add_nothing():
    torch.manual_seed(1)
    model: Any = create_model("StructureEstimator", **ARGS, frame=FRAME, imagenet=True).eval()
    plain = estimator()
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if not name.startswith("known.")})
    pixels = torch.rand(3, 4, SIZE, SIZE)
    assert torch.equal(model(pixels, 3), plain(pixels, 3))
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert not any(name.startswith("known.network.") for name in learning)
    assert {"known.to_eighth.weight", "known.to_bottom.weight"} <= learning
    for name in ("to_eighth", "to_bottom"):
        torch.nn.init.constant_(getattr(model.known, name).bias, 0.5)
        assert not torch.allclose(model(pixels), plain(pixels))
        torch.nn.init.zeros_(getattr(model.known, name).bias)


def test_imagenets_network_sees_the_object_on_white():
    features, seen = ImageNetFeatures(8, 16), []
    features.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    pixels = torch.zeros(1, 4, 32, 32)  # premultiplied
    pixels[:, :, :16] = torch.tensor([0.2, 0.4, 0.6, 1.0])[:, None, None]
    pixels[:, :, :16, 16:] *= 0.5
    features(pixels)
    (given,) = seen
    assert bool((given[:, :, 16:] == 1).all())
    torch.testing.assert_close(given[0, :, 0, 0], torch.tensor([0.2, 0.4, 0.6]))
    torch.testing.assert_close(given[0, :, 0, 16], torch.tensor([0.6, 0.7, 0.8]))
