import numpy as np
import torch

from ss4d.cube import grid_centres, in_cube, voxel_centres


def test_centres_of_tensors_and_arrays():
    expected = [[-0.375, -0.125, 0.375]]
    assert voxel_centres(torch.tensor([[0, 1, 3]], dtype=torch.int32), 4).tolist() == expected
    assert voxel_centres(np.array([[0, 1, 3]], np.int16), 4).tolist() == expected
    assert voxel_centres(torch.tensor([[0, 1, 3]]).double(), 4).dtype == torch.float64


def test_the_centres_of_a_grid_are_those_of_its_voxels():
    grid = grid_centres(3)
    assert grid.shape == (3, 3, 3, 3)
    for voxel in ((0, 0, 0), (2, 0, 1), (1, 2, 2)):
        assert torch.equal(grid[voxel], voxel_centres(torch.tensor(voxel), 3))


def test_voxels_beyond_a_face_are_not_in_the_cube():
    coords = torch.tensor([[0, 0, 0], [3, 3, 3], [-1, 0, 0], [0, 4, 0]])
    assert in_cube(coords, 4).tolist() == [True, True, False, False]
