import math

import pytest
import torch

from recyclelora.adapters.analysis import (
    Product,
    column_core,
    column_norms,
    cosines,
    difference,
    effective_rank,
    mean_abs_cosine,
    norm,
    row_core,
    singular_values,
    total,
)

GENERATOR = torch.Generator().manual_seed(0)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def dense(product: Product) -> torch.Tensor:
    return product.left @ product.right


@pytest.mark.parametrize("rank", [1, 5, 36])
def test_effective_rank_of_equal_singular_values_is_their_number(rank):
    assert effective_rank(0.3 * torch.ones(rank, dtype=torch.float64)) == pytest.approx(rank)


def test_effective_rank_of_known_spectra():
    assert effective_rank(torch.tensor([2.0, 0.0, 0.0])) == 1.0
    entropy = 0.75 * math.log(4 / 3) + 0.25 * math.log(4)
    assert effective_rank(torch.tensor([3.0, 1.0], dtype=torch.float64)) == pytest.approx(math.exp(entropy))
    assert effective_rank(torch.tensor([0.5, 0.25, 0.25])) == pytest.approx(2**1.5)
    assert math.isnan(effective_rank(torch.zeros(4)))


@pytest.mark.parametrize(("out", "inside", "rank"), [(30, 20, 4), (20, 30, 4), (6, 8, 10)])
def test_factors_have_the_singular_values_of_their_product(out, inside, rank):
    product = Product(random(out, rank), random(rank, inside))
    found = singular_values(product)
    assert found.shape == (min(out, inside, rank),) == (product.rank,)
    torch.testing.assert_close(found, torch.linalg.svdvals(dense(product))[: len(found)])
    assert norm(product) == pytest.approx(float(dense(product).norm())) == norm(dense(product))
    assert norm(product * 0.5) == pytest.approx(norm(product) / 2)


def test_cores_stand_for_the_matrix_on_either_side():
    product = Product(random(9, 3), random(3, 7))
    matrix = dense(product)
    assert column_core(product).shape == (9, 3) and row_core(product).shape == (7, 3)
    for core in (column_core(product), column_core(matrix)):
        torch.testing.assert_close(core @ core.T, matrix @ matrix.T)
    for core in (row_core(product), row_core(matrix)):
        torch.testing.assert_close(core @ core.T, matrix.T @ matrix)


def test_difference_has_twice_the_rank_and_no_more_than_needed():
    start = Product(random(12, 3), random(3, 10))
    moved = Product(start.left + random(12, 3), start.right + random(3, 10))
    cases = [
        (moved, start, 6),
        (Product(moved.left, start.right), start, 3),  # A is frozen
        (Product(start.left, moved.right), start, 3),  # B is frozen
        (moved, Product(torch.zeros_like(start.left), start.right), 3),  # LoRA
        (start, start, 3),
    ]
    for trained, initial, rank in cases:
        found = difference(trained, initial)
        assert found.rank == rank
        torch.testing.assert_close(dense(found), dense(trained) - dense(initial))


def test_difference_of_tiny_steps_keeps_its_digits():
    """Subtracting the products would leave rounding noise of 1e-16 beside steps of 1e-15."""
    b, a = torch.linalg.qr(random(40, 4)).Q, torch.eye(4, 30, dtype=torch.float64)
    step = torch.zeros_like(a)
    step[0, 7] = 2.0**-50
    found = difference(Product(b, a + step), Product(b, a))
    assert effective_rank(singular_values(found)) == pytest.approx(1.0)
    assert norm(found) == pytest.approx(2.0**-50, rel=1e-12)


def test_sums_of_products():
    first, second = Product(random(8, 2), random(2, 9)), Product(random(8, 3), random(3, 9))
    torch.testing.assert_close(dense(total([first, second])), dense(first) + dense(second))


def test_cosines_of_known_vectors():
    table = cosines(torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0], [-5.0, 0.0]]))
    half = 0.5**0.5
    expected = torch.tensor([[1, 0, half, -1], [0, 1, half, 0], [half, half, 1, -half], [-1, 0, -half, 1]])
    torch.testing.assert_close(table, expected)
    assert mean_abs_cosine(table, slice(0, 2), slice(0, 2)) == 0
    assert mean_abs_cosine(table, slice(0, 2), slice(2, 4)) == pytest.approx((2 * half + 1 + 0) / 4)
    assert cosines(torch.tensor([[0.0, 0.0], [1.0, 0.0]])).isnan().tolist() == [[True, True], [True, False]]


def test_column_norms_inside_and_outside():
    a = torch.tensor([[3.0, 0.0, 1.0, 0.0], [4.0, 0.0, 0.0, 2.0]])
    assert column_norms(a, torch.tensor([0, 3])) == (3.5, 0.5)
