import math

import pytest
import torch

from recyclelora.adapters.analysis import Product
from recyclelora.adapters.subspaces import (
    energy_along,
    grassmann_similarity,
    orthonormal_basis,
    principal_angles,
    random_similarity,
    singular_vectors,
)

GENERATOR = torch.Generator().manual_seed(0)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def rotated_plane(*degrees: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Two planes in R^4 whose principal angles are the given ones."""
    x = torch.eye(4, dtype=torch.float64)[:, :2]
    angles = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return x, torch.cat([torch.diag(angles.cos()), torch.diag(angles.sin())])


@pytest.mark.parametrize("degrees", [(0.0, 90.0), (1e-7, 30.0), (45.0, 60.0), (89.9999999, 90.0), (0.0, 0.0)])
def test_principal_angles_of_a_rotated_plane(degrees):
    x, y = rotated_plane(*degrees)
    mixed = y @ torch.linalg.qr(random(2, 2)).Q
    found = principal_angles(x, mixed).rad2deg()
    torch.testing.assert_close(found, torch.tensor(degrees, dtype=torch.float64), rtol=1e-6, atol=1e-10)


def test_principal_angles_of_a_line_and_a_plane():
    x, y = rotated_plane(20.0, 50.0)
    for found in (principal_angles(x, y[:, 1:]), principal_angles(y[:, 1:], x)):
        torch.testing.assert_close(found.rad2deg(), torch.tensor([50.0], dtype=torch.float64))


def test_grassmann_similarity_of_equal_contained_orthogonal_and_turned_spaces():
    space = orthonormal_basis(random(20, 5))
    rotation = torch.linalg.qr(random(5, 5)).Q
    assert grassmann_similarity(space, space @ rotation) == pytest.approx(1)
    assert grassmann_similarity(space, space[:, :2]) == pytest.approx(1)
    whole = torch.eye(20, dtype=torch.float64)
    assert grassmann_similarity(whole[:, :5], whole[:, 5:8]) == 0
    x, y = rotated_plane(30.0, 60.0)
    assert grassmann_similarity(x, y) == pytest.approx((0.75 + 0.25) / 2)
    assert math.isnan(grassmann_similarity(x, torch.zeros(4, 0, dtype=torch.float64)))


def test_random_subspaces_are_as_similar_as_expected():
    pairs = [(orthonormal_basis(random(50, 3)), orthonormal_basis(random(50, 8))) for _ in range(400)]
    expected = random_similarity(*pairs[0])
    assert expected == 8 / 50
    assert sum(grassmann_similarity(*pair) for pair in pairs) / 400 == pytest.approx(expected, rel=0.05)


def test_bases_are_orthonormal_and_as_large_as_the_numerical_rank():
    low = random(30, 2) @ random(2, 6)
    basis = orthonormal_basis(low)
    assert basis.shape == (30, 2)
    torch.testing.assert_close(basis.T @ basis, torch.eye(2, dtype=torch.float64))
    torch.testing.assert_close(basis @ (basis.T @ low), low)
    assert orthonormal_basis(torch.zeros(30, 6, dtype=torch.float64)).shape == (30, 0)


@pytest.mark.parametrize("shape", [(12, 8), (8, 12)])
def test_singular_vectors_belong_together(shape):
    weight = random(*shape)
    u, v = singular_vectors(weight)
    core = u.T @ weight @ v
    torch.testing.assert_close(core, torch.diag(torch.linalg.svdvals(weight)))


@pytest.mark.parametrize("shape", [(12, 8), (8, 12)])
def test_an_update_of_top_singular_vectors_has_all_its_energy_there(shape):
    weight = random(*shape)
    u, v = singular_vectors(weight)
    factors = Product(u[:, :3] * torch.tensor([3.0, 2.0, 1.0]).double(), v[:, :3].T.contiguous())
    for update in (factors, factors.left @ factors.right):
        for basis, rows in ((u, False), (v, True)):
            energy = energy_along(update, basis, rows=rows)
            expected = torch.tensor([9 / 14, 4 / 14, 1 / 14] + [0.0] * 5, dtype=torch.float64)
            torch.testing.assert_close(energy, expected, atol=1e-12, rtol=1e-12)


def test_random_updates_spread_their_energy_evenly():
    u, v = singular_vectors(random(40, 20))
    updates = [Product(random(40, 4), random(4, 20)) for _ in range(200)]
    left = torch.stack([energy_along(update, u) for update in updates]).mean(0)
    right = torch.stack([energy_along(update, v, rows=True) for update in updates]).mean(0)
    torch.testing.assert_close(left.sum(), torch.tensor(0.5, dtype=torch.float64), atol=0.02, rtol=0)
    torch.testing.assert_close(right, torch.full((20,), 0.05, dtype=torch.float64), atol=0.015, rtol=0)
    torch.testing.assert_close(right.sum(), torch.tensor(1.0, dtype=torch.float64))
