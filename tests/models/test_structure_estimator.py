from __future__ import annotations

from typing import Any

import pytest
import torch

from ss4d.models import create_model
from ss4d.nn import Memo
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


def flow() -> Any:
    args: dict[str, Any] = {"in_channels": 4, "out_channels": 4, "model_channels": 24, "cond_channels": 24}
    torch.manual_seed(0)
    model: Any = create_model(
        "StructureFlow", resolution=4, num_blocks=1, num_heads=2, projection=FRAME, estimator=ARGS, **args
    )
    torch.nn.init.normal_(model.out_layer.weight)
    return model


def inputs() -> tuple[torch.Tensor, ...]:
    torch.manual_seed(1)
    return (
        torch.randn(2, 3, 4, 4, 4, 4),
        torch.full((2, 3), 500.0),
        torch.randn(2, 3, 5, 24),
        torch.rand(2, 3, 4, SIZE, SIZE),
    )


def test_the_flow_takes_the_estimate_of_every_frame_but_empty_ones():
    model, (x, t, cond, pixels) = flow(), inputs()
    plain = model(x, t, cond)
    torch.testing.assert_close(model(x, t, cond, pixels), plain)  # nothing at first
    torch.nn.init.normal_(model.estimate_layer.weight)
    assert (model(x, t, cond, pixels) - plain).abs().max() > 0.1
    torch.testing.assert_close(model(x, t, cond, torch.zeros_like(pixels)), plain)


def test_a_token_takes_the_estimate_of_its_own_voxels():
    """A layer that sums the occupancy of a token's cells, on an estimate that is full in one corner of the cube."""
    model = flow()
    full = torch.full((1, 2, R, R, R), -100.0)
    full[:, 0, :4, :4, 4:] = 100.0  # x low, y low, z high: the token (0, 0, 1) of 2^3
    model.estimator.forward = lambda pixels: full
    torch.nn.init.ones_(model.estimate_layer.weight)
    tokens = model._estimate(model.estimator, torch.ones(1, 4, SIZE, SIZE))
    assert tokens[0, :, 0].tolist() == [0, 64, 0, 0, 0, 0, 0, 0]


def test_the_estimate_is_made_once_for_all_steps():
    model, (x, t, cond, pixels) = flow(), inputs()
    torch.nn.init.normal_(model.estimate_layer.weight)
    calls: list[int] = []
    model.estimator.register_forward_hook(lambda *_: calls.append(1))
    memo = Memo(1 << 20)
    first, again = model(x, t, cond, pixels, memo=memo), model(x, t, cond, pixels, memo=memo)
    assert torch.equal(first, again) and len(calls) == 1
    torch.testing.assert_close(first, model(x, t, cond, pixels))


def test_an_estimator_needs_its_camera():
    with pytest.raises(ValueError, match="estimator needs projection: the crop and distance of its camera"):
        create_model(
            "StructureFlow",
            **{"resolution": 4, "in_channels": 4, "out_channels": 4, "model_channels": 24, "cond_channels": 24},
            **{"num_blocks": 1, "num_heads": 2, "estimator": ARGS},
        )
