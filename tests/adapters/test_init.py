import numpy as np
import pytest
import scipy.linalg
import torch

from recyclelora.adapters.linalg.rrqr import RankDeficientWarning, rrqr
from recyclelora.adapters.low_rank.config import INITS
from recyclelora.adapters.low_rank.factors import LayerWeight, branch_rng
from recyclelora.adapters.low_rank.inits import INITIALIZERS

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


@pytest.mark.parametrize("shape", [(40, 24), (24, 40)])
def test_values_are_the_rows_of_r_in_the_order_of_the_inputs(shape):
    source = layer(shape)
    q, r, p = scipy.linalg.qr(source.weight.double().numpy(), mode="economic", pivoting=True)
    restored = np.empty_like(r)
    restored[:, p] = r
    rng = branch_rng(0, "l", "main")
    major, minor = (INITIALIZERS[f"rrqr_{end}_values"](source, 6, rng) for end in ("major", "minor"))
    np.testing.assert_allclose(major.b, q[:, :6], atol=1e-6)
    np.testing.assert_allclose(major.a, restored[:6], atol=1e-5)
    np.testing.assert_allclose(minor.b, q[:, 18:], atol=1e-6)
    np.testing.assert_allclose(minor.a, restored[18:], atol=1e-5)


def test_orthonormal_is_recyclelora_without_its_directions():
    rngs = [branch_rng(seed, "l", "main") for seed in (0, 0, 1)]
    first, again, other = (INITIALIZERS["orthonormal"](layer(), 6, rng) for rng in rngs)
    np.testing.assert_allclose(first.b.T @ first.b, np.eye(6), atol=1e-6)
    assert len(set(first.a_index.tolist())) == 6 and first.a is None
    assert torch.equal(first.b, again.b) and torch.equal(first.a_index, again.a_index)
    assert not torch.equal(first.b, other.b) and not torch.equal(first.a_index, other.a_index)
    drawn = np.concatenate([INITIALIZERS["orthonormal"](layer(), 24, np.random.default_rng(s)).a_index for s in (0, 1)])
    assert sorted(drawn) == sorted([*range(24)] * 2)  # every position occurs


@pytest.mark.parametrize("shape", [(40, 24), (24, 40)])
def test_mica_takes_the_last_left_singular_vectors_and_a_zero_a(shape):
    source = layer(shape)
    u, _, _ = np.linalg.svd(source.weight.double().numpy(), full_matrices=False)
    factors = INITIALIZERS["svd_minor_left"](source, 6, branch_rng(0, "l", "main"))
    np.testing.assert_allclose(np.abs(u[:, 18:].T @ factors.b.numpy()), np.eye(6), atol=1e-6)
    assert not factors.a.any()


def test_soma_as_released_decomposes_the_random_start_of_the_layer():
    source = layer((240, 160))
    factors = INITIALIZERS["svd_minor_unloaded"](source, 6, branch_rng(3, "l", "main"))
    start = branch_rng(3, "l", "main").uniform(-(160**-0.5), 160**-0.5, (240, 160))
    u, s, vt = np.linalg.svd(start, full_matrices=False)
    expected = (u[:, -6:] * s[-6:]) @ vt[-6:]
    np.testing.assert_allclose(SCALE * (factors.b @ factors.a).numpy(), expected, atol=1e-7)
    damaged = LayerWeight(torch.full((240, 160), torch.nan), SCALE)  # the pretrained weight plays no part
    assert torch.equal(INITIALIZERS["svd_minor_unloaded"](damaged, 6, branch_rng(3, "l", "main")).b, factors.b)


@pytest.mark.parametrize("name", ["svd_minor_unloaded", "orthonormal", "kaiming", "gaussian", "orthogonal"])
def test_random_initialisations_belong_to_their_seed(name):
    def draw(seed):
        return INITIALIZERS[name](layer(), 4, branch_rng(seed, "l", "main")).dense_a(24)

    assert torch.equal(draw(0), draw(0)) and not torch.equal(draw(0), draw(1))


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


@pytest.mark.parametrize("name", ["svd_major", "svd_minor", "svd_minor_left", "qr"])
@pytest.mark.parametrize(("value", "message"), [(torch.nan, "NaN or infinity"), (torch.inf, "NaN"), (0.0, "all zeros")])
def test_decompositions_of_a_damaged_weight_are_refused(name, value, message):
    with pytest.raises(ValueError, match=message):
        INITIALIZERS[name](LayerWeight(torch.full((4, 4), value), 1.0), 1, branch_rng(0, "l", "main"))


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("init", "rank", "which"),
    [("svd_minor", 4, "smallest"), ("svd_minor_left", 4, "smallest"), ("svd_major", 11, "la")],
)
def test_singular_values_of_zero_are_said_by_name(init, rank, which, stored):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(30, 10, generator=generator).double() @ torch.randn(10, 20, generator=generator).double()
    given = LayerWeight(weight.to(stored), 1.0, name="blocks.0.fc1")
    message = rf"^blocks\.0\.fc1: singular values of zero among its {rank} {which}"
    with pytest.warns(RankDeficientWarning, match=message):
        INITIALIZERS[init](given, rank, branch_rng(0, "l", "m"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_weights_are_decomposed_in_float64(dtype):
    half = layer().weight.to(dtype)
    for name in ("svd_minor", "qr"):
        low, high = (INITIALIZERS[name](LayerWeight(w, 1.0), 4, branch_rng(0, "l", "m")) for w in (half, half.double()))
        assert torch.equal(low.b, high.b) and torch.equal(low.a, high.a)


def test_the_names_of_the_configuration_are_these():
    assert set(INITS) == set(INITIALIZERS)
