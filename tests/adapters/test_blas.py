import numpy as np
import pytest

from recyclelora.adapters.linalg.blas import eigenvectors, subtract_product


def fortran(shape, dtype, seed):
    return np.asfortranarray(np.random.default_rng(seed).standard_normal(shape).astype(dtype))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("shape", [(7, 5, 3), (1, 9, 1), (40, 33, 48), (4, 0, 3), (4, 3, 0)])
def test_it_subtracts_in_place(shape, dtype):
    rows, columns, inner = shape
    left, right, target = (
        fortran(s, dtype, i) for i, s in enumerate([(rows, inner), (columns, inner), (rows, columns)])
    )
    expected = target - left @ right.T
    subtract_product(left, right, target)
    np.testing.assert_allclose(target, expected, rtol=1e-4, atol=1e-5)


def test_what_the_c_routine_would_misread_is_refused():
    left, right, target = fortran((8, 3), float, 0), fortran((5, 3), float, 1), fortran((8, 5), float, 2)
    with pytest.raises(ValueError, match="Fortran-ordered"):
        subtract_product(left, right, np.ascontiguousarray(target))
    with pytest.raises(ValueError, match="one type"):
        subtract_product(left.astype(np.float32), right, target)
    with pytest.raises(ValueError, match=r"do not give \(5, 8\)"):
        subtract_product(left, right, np.asfortranarray(target.T))


@pytest.mark.parametrize(("first", "count"), [(0, 5), (35, 5), (10, 1), (0, 40)])
def test_some_eigenvectors_of_a_symmetric_matrix(first, count):
    matrix = fortran((40, 40), float, 0)
    matrix = matrix @ matrix.T
    before = matrix.copy()
    found = eigenvectors(matrix, first, count)
    values, vectors = np.linalg.eigh(matrix)
    np.testing.assert_allclose(np.abs(vectors[:, first : first + count].T @ found), np.eye(count), atol=1e-10)
    np.testing.assert_allclose(found.T @ matrix @ found, np.diag(values[first : first + count]), atol=1e-10)
    np.testing.assert_array_equal(matrix, before)


@pytest.mark.parametrize(("first", "count"), [(-1, 2), (3, 2), (0, 0)])
def test_eigenvectors_that_do_not_exist_are_refused(first, count):
    with pytest.raises(ValueError, match="eigenvectors"):
        eigenvectors(np.eye(4), first, count)
