"""scipy is the oracle: the same pivots and the same columns of Q, signs included."""

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recyclelora.adapters.linalg.rrqr import RRQR, RankDeficientWarning, decompose, rrqr

SHAPES = {
    "tall": (640, 400),
    "wide": (300, 700),
    "square": (384, 384),
    "small": (48, 20),
    "column": (9, 1),
    "row": (1, 9),
    "stride": (512, 260),
}


def spectrum(shape: tuple[int, int], spread: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape) * np.exp(-spread * rng.random(shape[1]))


def oracle(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    q, _, pivots = scipy.linalg.qr(weight.astype(np.float64), mode="economic", pivoting=True)
    return q, pivots


def assert_greedy(result: RRQR, weight: np.ndarray) -> None:
    """Every pivot column had the largest residual norm when it was chosen, up to rounding."""
    r = result.q_leading.T @ weight[:, result.pivots]
    left = np.cumsum((r**2)[::-1], axis=0)[::-1]  # left[j, l]: squared norm of column l before step j
    slack = 1e-13 * left[0].max()
    assert all(left[j, j] >= left[j, j:].max() * (1 - 1e-9) - slack for j in range(len(left)))


@pytest.mark.parametrize("spread", [0.0, 1.5, 8.0])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_agrees_with_scipy(shape, spread):
    weight = spectrum(shape, spread)
    k = min(shape)
    leading, trailing = min(4, k), min(32, k)
    result = rrqr(weight, leading, trailing)
    q, pivots = oracle(weight)
    np.testing.assert_array_equal(result.pivots, pivots)
    np.testing.assert_allclose(result.q_leading, q[:, :leading], atol=1e-10)
    np.testing.assert_allclose(result.q_trailing, q[:, k - trailing :], atol=1e-10)
    assert result.rank == k


@pytest.mark.parametrize("shape", [(400, 300), (300, 400)])
def test_an_ill_conditioned_weight_keeps_its_pivots(shape):
    rng = np.random.default_rng(1)
    k = min(shape)
    left, _ = np.linalg.qr(rng.standard_normal((shape[0], k)))
    right, _ = np.linalg.qr(rng.standard_normal((shape[1], k)))
    weight = (left * np.logspace(0, -9, k)) @ right.T
    q, pivots = oracle(weight)
    result = rrqr(weight, k, k)
    np.testing.assert_array_equal(result.pivots, pivots)
    np.testing.assert_allclose(result.q_trailing.T @ result.q_trailing, np.eye(k), atol=1e-12)
    np.testing.assert_allclose(result.q_leading, q, atol=1e-5)


def test_all_columns_reconstruct_the_weight():
    weight = spectrum((300, 280), 1.0)
    result = rrqr(weight, 280, 280)
    np.testing.assert_allclose(result.q_leading, result.q_trailing, atol=1e-13)
    r = result.q_leading.T @ weight[:, result.pivots]
    np.testing.assert_allclose(result.q_leading @ r, weight[:, result.pivots], atol=1e-12)
    assert np.abs(np.tril(r, -1)).max() < 1e-11
    assert (np.diff(np.abs(np.diagonal(r))) <= 1e-12).all()


@pytest.mark.parametrize("shape", [(600, 400), (400, 600), (400, 400)])
def test_rank_deficient_weights_stay_orthonormal_and_warn(shape):
    rng = np.random.default_rng(2)
    weight = rng.standard_normal((shape[0], 150)) @ rng.standard_normal((150, shape[1]))
    with pytest.warns(RankDeficientWarning, match="numerical rank 150 of 400"):
        result = rrqr(weight, 400, 32)
    q, pivots = oracle(weight)
    np.testing.assert_array_equal(result.pivots[:150], pivots[:150])
    np.testing.assert_allclose(result.q_leading[:, :150], q[:, :150], atol=1e-10)
    np.testing.assert_allclose(result.q_leading.T @ result.q_leading, np.eye(400), atol=1e-12)
    projected = result.q_leading @ (result.q_leading.T @ weight)
    np.testing.assert_allclose(projected, weight, atol=1e-11)


@pytest.mark.parametrize("stored", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("shape", [(400, 300), (300, 400), (1024, 200)])
def test_rounding_of_the_stored_values_is_no_direction(shape, stored):
    """A weight of rank 150 in a file of that format, read into float32: the other directions are its rounding."""
    rng = np.random.default_rng(3)
    exact = rng.standard_normal((shape[0], 150)) @ rng.standard_normal((150, shape[1])) / 20
    weight = torch.from_numpy(exact).to(getattr(torch, stored)).float()
    for values in (weight.numpy(), weight.double().numpy()):
        with pytest.warns(RankDeficientWarning, match=f"numerical rank 150 of {min(shape)}"):
            assert rrqr(values, 4, 8).rank == 150


def test_a_product_in_float32_has_the_rank_of_its_factors():
    generator = torch.Generator().manual_seed(4)
    weight = torch.randn(600, 250, generator=generator) @ torch.randn(250, 300, generator=generator)
    assert decompose(weight.numpy(), 4, 8).rank == 250


def test_small_directions_that_the_format_can_hold_count():
    """Ten times above the noise of float32, of bfloat16 far below: stored in float32 they are there."""
    rng = np.random.default_rng(5)
    left, right = (np.linalg.qr(rng.standard_normal((n, 200)))[0] for n in (400, 300))
    weight = ((left * np.geomspace(1, 3e-4, 200)) @ right.T).astype(np.float32)
    assert decompose(weight, 4, 8).rank == 200
    assert decompose(torch.from_numpy(weight).bfloat16().float().numpy(), 4, 8).rank < 200


def test_leading_directions_beyond_the_rank_are_said_too():
    weight = np.outer(np.arange(1.0, 31), np.arange(1.0, 21))
    with pytest.warns(RankDeficientWarning, match="numerical rank 1 of 20"):
        rrqr(weight, 2, 0)


def test_duplicate_and_zero_columns_come_last():
    weight = spectrum((500, 200), 1.0)
    weight = np.concatenate([weight, weight[:, :60], np.zeros((500, 20))], axis=1)
    with pytest.warns(RankDeficientWarning, match="numerical rank 200 of 280"):
        result = rrqr(weight, 200, 10)
    first = result.pivots[:200]
    assert (first < 260).all() and sorted(first % 200) == list(range(200))  # one of every pair of duplicates
    assert sorted(result.pivots) == list(range(280))


@pytest.mark.parametrize("weight", [np.eye(300), np.eye(400, 300), np.diag(np.arange(300.0, 0, -1))[:, ::-1]])
def test_columns_without_anything_below_the_diagonal(weight):
    result = rrqr(weight, 300, 300)
    np.testing.assert_allclose(result.q_leading.T @ result.q_leading, np.eye(300), atol=1e-14)
    np.testing.assert_allclose(
        np.abs(result.q_leading.T @ weight[:, result.pivots]).max(axis=0), np.abs(weight).max(0)[result.pivots]
    )


@pytest.mark.parametrize(
    "weight", [scipy.linalg.hadamard(256).astype(float), np.ones((300, 200)), np.sign(spectrum((300, 400), 0.0))]
)
def test_tied_norms_still_give_a_valid_decomposition(weight):
    k = min(weight.shape)
    result = decompose(weight, k, 0)
    np.testing.assert_allclose(result.q_leading.T @ result.q_leading, np.eye(k), atol=1e-12)
    assert_greedy(result, weight)


@pytest.mark.parametrize("scale", [1e-200, 1e-18, 1e150])
def test_pivots_do_not_depend_on_the_unit(scale):
    weight = spectrum((300, 250), 1.0)
    np.testing.assert_array_equal(rrqr(weight * scale, 1, 1).pivots, rrqr(weight, 1, 1).pivots)


def test_float32_is_scipys_float32_up_to_rounding():
    weight = spectrum((500, 300), 1.5).astype(np.float32)
    result = rrqr(weight, 8, 8, precision="float32")
    q, _, pivots = scipy.linalg.qr(weight, mode="economic", pivoting=True)
    assert result.q_leading.dtype == np.float32
    np.testing.assert_array_equal(result.pivots[:8], pivots[:8])
    np.testing.assert_allclose(result.q_leading, q[:, :8], atol=1e-5)


def test_the_weight_is_not_changed():
    weight = spectrum((300, 200), 1.0)
    for array in (weight, np.asfortranarray(weight)):
        before = array.copy()
        rrqr(array, 4, 4)
        np.testing.assert_array_equal(array, before)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 260), st.integers(1, 260), st.floats(0, 4), st.integers(0, 2**16))
def test_property_orthonormal_greedy_and_scipy(rows, columns, spread, seed):
    weight = spectrum((rows, columns), spread, seed)
    k = min(rows, columns)
    result = decompose(weight, k, 0)
    _, pivots = oracle(weight)
    assert sorted(result.pivots) == list(range(columns))
    np.testing.assert_array_equal(result.pivots[:k], pivots[:k])
    np.testing.assert_allclose(result.q_leading.T @ result.q_leading, np.eye(k), atol=1e-12)
    assert_greedy(result, weight)


@pytest.mark.parametrize(
    ("weight", "leading", "message"),
    [
        (np.full((4, 3), np.nan), 1, "NaN or infinity"),
        (np.where(np.eye(3) == 1, np.inf, 0.0), 1, "NaN or infinity"),
        (np.zeros((4, 3)), 1, "all zeros"),
        (np.zeros(4), 1, r"needs a matrix \(out x in\), got shape \(4,\)"),
        (np.zeros((0, 3)), 0, "needs a matrix"),
        (np.ones((4, 3)), 4, "leading=4 columns of Q asked of a 4 x 3 weight: 0 to 3"),
        (np.ones((4, 3)), -1, "leading=-1"),
    ],
)
def test_bad_input_is_refused_in_one_line(weight, leading, message):
    with pytest.raises(ValueError, match=message) as caught:
        rrqr(weight, leading, 0)
    assert "\n" not in str(caught.value)
