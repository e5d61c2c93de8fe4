import numpy as np
import pytest
import scipy.linalg
import torch

from recyclelora.adapters.init import INITIALIZERS, LayerWeight, branch_rng
from recyclelora.adapters.rrqr import rrqr

SCALE = 0.25


def layer(shape=(40, 24)) -> LayerWeight:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    k = min(shape)
    return LayerWeight(weight, SCALE, rrqr(weight.numpy(), k // 2, k // 2))


def product(name: str, source: LayerWeight, rank: int = 6) -> np.ndarray:
    factors = INITIALIZERS[name](source, rank, branch_rng(0, "l", "main"))
    out_features, in_features = source.weight.shape
    a = factors.dense_a(in_features)
    assert factors.b.shape == (out_features, rank) and a.shape == (rank, in_features)
    assert factors.b.dtype == a.dtype == torch.float32
    return (factors.b @ a).numpy()


@pytest.mark.parametrize("shape", [(40, 24), (24, 40)])
@pytest.mark.parametrize("name", ["kaiming", "gaussian", "orthogonal"])
def test_random_initialisations_start_at_zero(name, shape):
    np.testing.assert_allclose(product(name, layer(shape)), 0, atol=1e-6)


@pytest.mark.parametrize("shape", [(40, 24), (24, 40)])
@pytest.mark.parametrize(("name", "part"), [("svd_major", slice(0, 6)), ("svd_minor", slice(18, 24))])
def test_svd_branches_times_scale_are_part_of_the_weight(name, part, shape):
    source = layer(shape)
    u, s, vt = np.linalg.svd(source.weight.double().numpy(), full_matrices=False)
    np.testing.assert_allclose(SCALE * product(name, source), (u[:, part] * s[part]) @ vt[part], atol=1e-5)


@pytest.mark.parametrize("shape", [(40, 24), (24, 40)])
def test_qr_takes_the_first_columns_of_the_unpivoted_decomposition(shape):
    source = layer(shape)
    q, r = scipy.linalg.qr(source.weight.double().numpy(), mode="economic")
    factors = INITIALIZERS["qr"](source, 6, branch_rng(0, "l", "main"))
    np.testing.assert_allclose(factors.b, q[:, :6], atol=1e-6)
    np.testing.assert_allclose(factors.a, r[:6], atol=1e-5)


@pytest.mark.parametrize("shape", [(40, 24), (24, 40)])
def test_rrqr_branches_follow_the_paper(shape):
    source = layer(shape)
    q, _, p = scipy.linalg.qr(source.weight.double().numpy(), mode="economic", pivoting=True)
    k, rank = 24, 6
    rng = branch_rng(0, "l", "main")
    minor, major = INITIALIZERS["rrqr_minor"](source, rank, rng), INITIALIZERS["rrqr_major"](source, rank, rng)
    np.testing.assert_allclose(minor.b, q[:, k - rank :], atol=1e-6)
    np.testing.assert_array_equal(minor.a_index, p[k - rank : k])
    np.testing.assert_allclose(major.b, q[:, :rank], atol=1e-6)
    np.testing.assert_array_equal(major.a_index, p[:rank])
    dense = minor.dense_a(shape[1])
    assert all(dense[i, p[k - rank + i]] == 1 for i in range(rank)) and dense.sum() == rank


def test_gaussian_and_kaiming_have_their_widths():
    source = LayerWeight(torch.zeros(100, 4000), 1.0)
    rng = branch_rng(0, "l", "main")
    assert INITIALIZERS["gaussian"](source, 8, rng).a.std() == pytest.approx(1 / 8, rel=0.02)
    kaiming = INITIALIZERS["kaiming"](source, 8, rng).a
    assert kaiming.abs().max() <= 4000**-0.5 and kaiming.std() == pytest.approx((3 * 4000) ** -0.5, rel=0.02)


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_orthogonal_at_any_rank(rank):
    factors = INITIALIZERS["orthogonal"](layer(), rank, branch_rng(0, "l", "main"))
    np.testing.assert_allclose(factors.b @ factors.a, 0, atol=1e-6)
    assert factors.a.norm() > 0


def test_random_numbers_belong_to_seed_layer_and_branch():
    draws = {
        branch_rng(seed, name, branch).random()
        for seed in (0, 1)
        for name in ("blocks.0.fc1", "blocks.1.fc1")
        for branch in ("main", "sub")
    }
    assert len(draws) == 8
    assert branch_rng(0, "l", "main").random() == branch_rng(0, "l", "main").random()


def test_svd_of_a_damaged_weight_is_refused():
    with pytest.raises(ValueError, match="NaN or infinity"):
        INITIALIZERS["svd_major"](LayerWeight(torch.full((4, 4), torch.nan), 1.0), 1, branch_rng(0, "l", "main"))
