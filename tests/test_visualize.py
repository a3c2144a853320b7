from __future__ import annotations

import numpy as np
import pytest
import torch

from ss4d.gaussians import Gaussians, GaussianSequence
from ss4d.visualize import compare_video, render_orbit, render_views, render_voxels


def blob(position: list[float], colour: list[float]) -> Gaussians:
    """One nearly opaque round Gaussian."""
    sh = (torch.tensor(colour) - 0.5) / 0.28209479177387814
    return Gaussians(
        xyz=torch.tensor([position]),
        scale=torch.full((1, 3), 0.06),
        rotation=torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
        opacity=torch.full((1, 1), 0.99),
        sh=sh[None, None],
    )


def centre_of(image: np.ndarray) -> tuple[float, float]:
    """(row, column) of what is not white, as shares of the image."""
    ink = (255.0 - image).sum(axis=-1)
    rows, columns = np.indices(ink.shape)
    return (
        float((ink * rows).sum() / ink.sum() / ink.shape[0]),
        float((ink * columns).sum() / ink.sum() / ink.shape[1]),
    )


@pytest.fixture
def sequence() -> GaussianSequence:
    """A blob at +x whose colour tells the frame: red, green, blue."""
    return GaussianSequence([blob([0.35, 0.0, 0.2], colour) for colour in np.eye(3).tolist()])


def test_views_show_each_frame_from_each_side(sequence: GaussianSequence) -> None:
    views = np.stack(list(render_views(sequence, azimuths=(0, 90, 180), elevation=0, size=48)), axis=1)
    assert views.shape == (3, 3, 48, 48, 3) and views.dtype == np.uint8
    for frame in range(3):
        assert views[0, frame].min(axis=(0, 1)).argmax() == frame  # white stays 255 in the blob's own channel only
        right, middle, left = (centre_of(view) for view in views[:, frame])
        assert right[1] > 0.6 and middle[1] == pytest.approx(0.5, abs=0.02) and left[1] < 0.4
        assert right[0] < 0.45
    assert (views[:, :, 0] == 255).all()


def test_orbit_turns_once_and_plays_there_and_back(sequence: GaussianSequence) -> None:
    orbit = np.stack(list(render_orbit(sequence, size=24, num_frames=8, elevation=0)))
    assert orbit.shape == (8, 24, 24, 3) and orbit.dtype == np.uint8
    assert [int(image.min(axis=(0, 1)).argmax()) for image in orbit] == [0, 1, 2, 1, 0, 1, 2, 1]
    columns = [centre_of(image)[1] for image in orbit]
    assert columns[0] == max(columns) and columns[4] == min(columns)


@pytest.mark.parametrize("frames, expected", [(1, 48), (2, 48), (3, 48), (8, 56)])
def test_orbit_loops_without_a_jump_by_default(frames: int, expected: int) -> None:
    sequence = GaussianSequence([blob([0.0, 0.0, 0.0], [1.0, 0.0, 0.0])] * frames)
    assert len(list(render_orbit(sequence, size=8))) == expected


def test_an_empty_sequence_is_an_error() -> None:
    with pytest.raises(ValueError, match="no frames"):
        render_orbit(GaussianSequence([]))


def test_comparison_puts_the_input_beside_the_views(sequence: GaussianSequence) -> None:
    rgba = np.zeros((3, 40, 60, 4), np.uint8)
    rgba[:, 10:30, 20:40] = (10, 20, 200, 255)
    video = np.stack(list(compare_video(rgba, sequence, azimuths=(0, 180), size=48)))
    assert video.shape == (3, 48, 3 * 48, 3)
    assert video[0, 24, 24].tolist() == [10, 20, 200]  # the object fills the panel's middle
    assert video[0, :, 0].min() > 240  # nearly white: Lanczos rings a little
    views = np.stack(list(render_views(sequence, (0, 180), size=48)), axis=1)
    assert np.array_equal(video[:, 20:, 48:96], views[0][:, 20:]) and np.array_equal(
        video[:, 20:, 96:], views[1][:, 20:]
    )
    label = video[0, :14, 48:96] != views[0][0, :14]
    assert label.any()
    with pytest.raises(ValueError, match="2 frames and the result 3"):
        compare_video(rgba[:2], sequence)


def test_a_cube_projects_to_its_square() -> None:
    size = 200
    image = next(render_voxels([np.array([[0, 0, 0]])], 1, size, azimuth=0, elevation=0))
    rows, columns = np.nonzero((image < 255).any(axis=-1))
    # The near face of the unit cube is 1.5 from the camera: half of it spans 0.5 / (1.5 * 2 * tan 20 deg).
    half = 0.5 / (1.5 * 2 * np.tan(np.radians(20)))
    for pixels in (rows, columns):
        assert pixels.min() / size == pytest.approx(0.5 - half, abs=0.01)
        assert pixels.max() / size == pytest.approx(0.5 + half, abs=0.01)


@pytest.mark.parametrize("azimuth, expected", [(0, 0), (90, 1), (180, 2), (270, 3)])
def test_the_nearest_voxel_hides_the_others(azimuth: float, expected: int) -> None:
    """Four coloured voxels about a filled core: each side shows its own."""
    middle = 3
    sides = [(middle, 0, middle), (6, middle, middle), (middle, 6, middle), (0, middle, middle)]
    core = np.stack(np.meshgrid(*[np.arange(1, 6)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    coords = np.concatenate([core, np.array(sides)])
    palette = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1]], dtype=float)
    colours = np.concatenate([np.full((len(core), 3), 0.5), palette])
    for order in (np.arange(len(coords)), np.arange(len(coords))[::-1]):
        image = next(render_voxels([coords[order]], 7, 64, azimuth, 0, [colours[order]]))
        seen = image[32, 32] / image[32, 32].max()
        assert np.allclose(seen, palette[expected], atol=0.05)


def test_voxels_from_above_and_by_height() -> None:
    column = torch.tensor([[0, 0, height] for height in range(4)], dtype=torch.int32)
    images = np.stack(list(render_voxels([column, column[:0]], 4, 64, azimuth=0, elevation=20)))
    assert images.shape == (2, 64, 64, 3)
    assert (images[1] == 255).all()
    rows, columns = np.nonzero((images[0] < 255).any(axis=-1))
    top, bottom = (images[0][row, int(columns.mean())] for row in (rows.min() + 6, rows.max() - 4))
    assert top[0] > top[2] and bottom[2] > bottom[0]  # yellow above, blue below


def test_voxels_outside_the_grid_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"0 \.\. 3, but frame 1 spans 0 \.\. 4"):
        list(render_voxels([np.zeros((1, 3)), np.array([[0, 4, 1]])], 4))
