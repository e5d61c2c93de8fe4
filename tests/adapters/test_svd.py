"""NumPy's full SVD is the oracle, its signs set here by the rule."""

import numpy as np
import pytest

from recyclelora.adapters.linalg.svd import _outer, fixed_signs, full_triplets, major_triplets, minor_triplets

SHAPES = [(400, 256), (256, 400), (256, 256)]


def trained_like(shape, seed=0):
    """Singular values that fall from 1 to 1e-4 as those of a trained weight do, in random directions."""
    rng = np.random.default_rng(seed)
    k = min(shape)
    left, _ = np.linalg.qr(rng.standard_normal((shape[0], k)))
    right, _ = np.linalg.qr(rng.standard_normal((shape[1], k)))
    return (left * np.linspace(1, 1e-2, k) ** 2) @ right.T


def expected(weight, count, minor):
    """U, S and V^T of the outermost triplets; in each column of U the entry of largest size is positive."""
    u, s, vt = np.linalg.svd(weight, full_matrices=False)
    chosen = range(len(s) - count, len(s)) if minor else range(count)
    signs = [1.0 if max(u[:, i], key=abs) > 0 else -1.0 for i in chosen]
    return u[:, chosen] * signs, s[chosen], (vt[chosen].T * signs).T


@pytest.mark.parametrize("minor", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("make", [trained_like, lambda shape: np.random.default_rng(1).standard_normal(shape)])
def test_triplets_are_those_of_the_full_decomposition(make, shape, minor):
    weight = make(shape)
    found = _outer(weight, 16, minor=minor)  # not by falling back
    for left, right in zip(found, expected(weight, 16, minor), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-10)
    assert (np.diff(found.s) <= 0).all()


@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_the_unit_of_the_weight_does_not_matter(scale):
    weight = trained_like((300, 256))
    found, plain = minor_triplets(weight * scale, 8), minor_triplets(weight, 8)
    np.testing.assert_allclose(found.u, plain.u, atol=1e-9)
    np.testing.assert_allclose(found.s, plain.s * scale, rtol=1e-9)


def cluster(shape):
    """The smallest triplets around the edge of those asked for cannot be told apart."""
    weight = trained_like(shape)
    u, s, vt = np.linalg.svd(weight, full_matrices=False)
    s[-60:] = s[-60]
    return (u * s) @ vt


def deficient(shape):
    rng = np.random.default_rng(2)
    return rng.standard_normal((shape[0], 200)) @ rng.standard_normal((200, shape[1]))


@pytest.mark.parametrize("make", [cluster, deficient])
@pytest.mark.parametrize("shape", SHAPES)
def test_what_cannot_be_proven_is_left_to_the_full_decomposition(make, shape):
    weight = make(shape)
    assert _outer(weight, 16, minor=True) is None
    found = minor_triplets(weight, 16)
    np.testing.assert_array_equal(found.u, expected(weight, 16, True)[0])
    np.testing.assert_allclose(found.u.T @ found.u, np.eye(16), atol=1e-12)


@pytest.mark.parametrize("minor", [True, False])
def test_small_matrices_and_all_triplets(minor):
    weight = trained_like((40, 24))
    find = minor_triplets if minor else major_triplets
    for count in (1, 6, 24):
        for left, right in zip(find(weight, count), expected(weight, count, minor), strict=True):
            np.testing.assert_array_equal(left, right)
    for left, right in zip(full_triplets(weight, slice(None)), expected(weight, 24, minor), strict=True):
        np.testing.assert_array_equal(left, right)


def test_signs_do_not_depend_on_the_way():
    weight = trained_like((300, 256))
    for found in (minor_triplets(weight, 8), full_triplets(weight, slice(-8, None)), minor_triplets(weight.T, 8)):
        assert (found.u[np.abs(found.u).argmax(0), np.arange(8)] > 0).all()


def test_a_column_gets_the_sign_that_makes_its_largest_entry_positive():
    vectors = np.array([[1.0, -1.0, 0.0], [-2.0, 0.5, 3.0]])
    assert fixed_signs(vectors).tolist() == [[-1.0, 1.0, 0.0], [2.0, -0.5, 3.0]]
