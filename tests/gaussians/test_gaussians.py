"""The Gaussian containers."""

from __future__ import annotations

import pytest
import torch

from ss4d.gaussians import Gaussians, GaussianSequence


def make(count: int) -> Gaussians:
    return Gaussians(
        torch.zeros(count, 3),
        torch.ones(count, 3),
        torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1),
        torch.full((count, 1), 0.5),
        torch.zeros(count, 1, 3),
    )


def test_rgb_is_the_degree_0_colour() -> None:
    g = make(2)
    g.sh[0, 0] = torch.tensor([1.0, -1.0, 1.7724538509])  # sqrt(pi) takes 0.5 to 1
    torch.testing.assert_close(g.rgb[0], torch.tensor([0.7820948, 0.2179052, 1.0]))
    torch.testing.assert_close(g.rgb[1], torch.full((3,), 0.5))


@pytest.mark.parametrize(
    ("field", "shape"),
    [("xyz", (2, 4)), ("scale", (3, 3)), ("rotation", (2, 3)), ("opacity", (2,)), ("sh", (2, 3))],
)
def test_wrong_shapes_are_named(field: str, shape: tuple[int, ...]) -> None:
    values = {name: getattr(make(2), name) for name in ("xyz", "scale", "rotation", "opacity", "sh")}
    with pytest.raises(ValueError, match=f"Gaussians.{field} must have shape"):
        Gaussians(**{**values, field: torch.zeros(shape)})


def test_sequence_behaves_like_a_list() -> None:
    frames = [make(n) for n in (3, 0, 5)]
    clip = GaussianSequence(frames)
    assert len(clip) == 3 and clip.num_gaussians == [3, 0, 5]
    assert clip[2] is frames[2] and next(iter(clip)) is frames[0]
    assert isinstance(clip[1:], GaussianSequence) and clip[1:].num_gaussians == [0, 5]


def test_detach_and_to_reach_every_field() -> None:
    g = make(3)
    g.xyz.requires_grad_()
    clip = GaussianSequence([g]).detach().to("cpu")
    assert not clip[0].xyz.requires_grad and clip[0].sh.shape == (3, 1, 3)
    moved = GaussianSequence([g]).to("meta")[0]
    assert all(getattr(moved, name).is_meta for name in ("xyz", "scale", "rotation", "opacity", "sh"))
