"""The bounds of Gu and Eisenstat (1996), theorem 3.2, and matrices on which greedy pivoting misses them."""

import numpy as np
import pytest
import scipy.linalg

from recyclelora.adapters.linalg.rrqr import decompose
from recyclelora.adapters.linalg.strong import _Split, strong_pivots


def kahan(size: int, cosine: float = 0.285) -> np.ndarray:
    """Kahan's matrix, its columns shortened a little one after the other so that greedy pivoting leaves them."""
    sine = np.sqrt(1 - cosine**2)
    upper = np.eye(size) - cosine * np.triu(np.ones((size, size)), 1)
    return (sine ** np.arange(size))[:, None] * upper * (1 - 1e-11 * np.arange(size))


def random(shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape) * np.exp(-3 * rng.random(shape[1]))


def gu_eisenstat(seed=0, k=60):
    """Their example of greedy pivoting stuck at a large R11^-1 R12: a graded triangle and two columns to exchange."""
    upper = kahan(k)
    extra = np.zeros((k + 1, 3))
    extra[:k] = 0.95 * upper[:, -1:] + 0.01 * np.random.default_rng(seed).standard_normal((k, 3)) * upper[-1, -1]
    extra[k] = 0.9 * upper[-1, -1]
    return np.hstack([np.vstack([upper, np.zeros((1, k))]), extra])


def blocks(weight, order, split):
    (r,) = scipy.linalg.qr(weight[:, order], mode="r")
    return r[:split, :split], r[:split, split:], r[split : min(weight.shape), split:]


def assert_bounds(weight, order, split, f):
    r11, r12, r22 = blocks(weight, order, split)
    size = weight.shape[1]
    assert sorted(order) == list(range(size))
    assert np.abs(scipy.linalg.solve_triangular(r11, r12)).max() <= f * (1 + 1e-6)
    factor = np.sqrt(1 + f**2 * split * (size - split)) * (1 + 1e-6)
    values, noise = np.linalg.svd(weight, compute_uv=False), 1e-14 * np.linalg.norm(weight)
    assert (np.linalg.svd(r11, compute_uv=False) >= values[:split] / factor - noise).all()
    inner = np.linalg.svd(r22, compute_uv=False)
    assert (inner <= values[split : split + len(inner)] * factor + noise).all()


@pytest.mark.parametrize("f", [1.0, 2.0])
@pytest.mark.parametrize("split", [4, 60, 88])
@pytest.mark.parametrize("shape", [(150, 90), (90, 150), (90, 90)])
def test_bounds_on_random_matrices(shape, split, f):
    weight = random(shape)
    _, _, greedy = scipy.linalg.qr(weight, mode="economic", pivoting=True)
    assert_bounds(weight, strong_pivots(weight, greedy, split, f), split, f)


@pytest.mark.parametrize("split", [30, 95])
def test_bounds_from_the_worst_start(split):
    weight = random((120, 96))
    _, _, greedy = scipy.linalg.qr(weight, mode="economic", pivoting=True)
    assert_bounds(weight, strong_pivots(weight, greedy[::-1].copy(), split, 1.5), split, 1.5)


@pytest.mark.parametrize("size", [64, 96])
def test_kahans_matrix_defeats_greedy_pivoting_only(size):
    weight, split = kahan(size), size - 1
    smallest = np.linalg.svd(weight, compute_uv=False)[-1]
    greedy = decompose(weight, 0, 1)
    assert greedy.pivots.tolist() == list(range(size))  # greedy sees no reason to move anything
    r11, r12, r22 = blocks(weight, greedy.pivots, split)
    assert np.abs(scipy.linalg.solve_triangular(r11, r12)).max() > 1e4
    assert abs(r22[0, 0]) > 1e4 * smallest
    assert_bounds(weight, strong_pivots(weight, greedy.pivots, split, 2.0), split, 2.0)
    strong = decompose(weight, 0, 1, strong=2.0)
    assert strong.trailing_pivots != greedy.trailing_pivots
    # What the direction takes of the weight: |R22|, which greedy pivoting leaves far from the smallest possible.
    assert np.linalg.norm(strong.q_trailing.T @ weight) < 2 * smallest
    assert np.linalg.norm(greedy.q_trailing.T @ weight) > 1e4 * smallest


def test_a_large_coefficient_is_exchanged_away():
    weight, split = gu_eisenstat(), 60
    _, _, greedy = scipy.linalg.qr(weight, mode="economic", pivoting=True)
    r11, r12, _ = blocks(weight, greedy, split)
    assert np.abs(scipy.linalg.solve_triangular(r11, r12)).max() > 100
    assert_bounds(weight, strong_pivots(weight, greedy, split, 1.2), split, 1.2)


@pytest.mark.parametrize(("shape", "split"), [((30, 20), 12), ((20, 30), 15), ((20, 20), 19), ((20, 20), 4)])
def test_exchanges_equal_a_fresh_decomposition(shape, split):
    rng = np.random.default_rng(0)
    weight, order = rng.standard_normal(shape), np.arange(shape[1])
    state = _Split(weight, order, split)
    for _ in range(10):
        row, column = rng.integers(split), rng.integers(shape[1] - split)
        before = np.linalg.slogdet(blocks(weight, order, split)[0])[1]
        growth = state.growth(row, column)
        order[[row, split + column]] = order[[split + column, row]]
        state.exchange(row, column)
        after = np.linalg.slogdet(blocks(weight, order, split)[0])[1]
        assert np.exp(after - before) == pytest.approx(growth)
    fresh = _Split(weight, order, split)
    np.testing.assert_allclose(state.coefficients, fresh.coefficients, atol=1e-10)
    np.testing.assert_allclose(state.row_norms, fresh.row_norms, rtol=1e-10)
    np.testing.assert_allclose(state.column_norms, fresh.column_norms, atol=1e-10)


@pytest.mark.parametrize("shape", [(150, 90), (90, 150), (90, 90)])
def test_the_ends_are_those_of_the_exchanged_decomposition(shape):
    weight, leading, trailing = random(shape, seed=3), 5, 20
    found = decompose(weight, leading, trailing, strong=1.0)
    greedy = decompose(weight, leading, trailing)
    split = 90 - trailing
    order = strong_pivots(weight, greedy.pivots, split, 1.0)
    assert set(found.trailing_pivots) <= set(order[split:]) and len(set(found.trailing_pivots)) == trailing
    columns = np.concatenate([order[:split], found.trailing_pivots])
    q, r = scipy.linalg.qr(weight[:, columns], mode="economic")
    np.testing.assert_allclose(found.q_trailing, q[:, split:], atol=1e-10)
    assert (np.diff(np.abs(np.diagonal(r))[split:]) <= 1e-12).all()
    block = weight[:, found.leading_pivots]
    np.testing.assert_allclose(found.q_leading @ (found.q_leading.T @ block), block, atol=1e-12)
    assert set(found.leading_pivots) == set(strong_pivots(weight, greedy.pivots, leading, 1.0)[:leading])


def test_where_greedy_pivots_keep_the_bounds_nothing_changes():
    weight = random((200, 120))
    strong, greedy = decompose(weight, 4, 32, strong=50.0), decompose(weight, 4, 32)
    for name in ("leading_pivots", "trailing_pivots", "q_leading", "q_trailing"):
        np.testing.assert_array_equal(getattr(strong, name), getattr(greedy, name))


def test_a_weight_of_too_small_a_rank_keeps_its_greedy_pivots():
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((60, 10)) @ rng.standard_normal((10, 50))
    strong, greedy = decompose(weight, 12, 8, strong=1.0), decompose(weight, 12, 8)
    np.testing.assert_array_equal(strong.trailing_pivots, greedy.trailing_pivots)
    np.testing.assert_array_equal(strong.leading_pivots, greedy.leading_pivots)
    assert decompose(weight, 0, 50, strong=1.0).rank == 10


@pytest.mark.parametrize("shape", [(30, 30), (20, 30), (30, 20)])
def test_all_columns_have_nothing_to_be_exchanged_with(shape):
    weight = random(shape)
    k = min(shape)
    strong, greedy = decompose(weight, k, k, strong=1.0), decompose(weight, k, k)
    np.testing.assert_array_equal(strong.leading_pivots, greedy.leading_pivots)
    np.testing.assert_array_equal(strong.q_trailing, greedy.q_trailing)
