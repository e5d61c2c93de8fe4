"""scipy is the oracle here too: the same pivots, factors and signs, whatever the device."""

import numpy as np
import pytest
import scipy.linalg
import torch

from recyclelora.adapters.linalg.device_rrqr import decompose_batch
from recyclelora.adapters.linalg.factor_cache import FactorCache, factorize

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
SHAPES = {
    "tall": (300, 160),
    "wide": (130, 290),
    "square": (96, 96),
    "panel": (64, 32),
    "small": (20, 7),
    "column": (9, 1),
    "row": (1, 9),
}


def spectrum(shape, spread, seed):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape) * np.exp(-spread * rng.random(shape[1]))


def with_singular_values(shape, values, seed=1):
    rng = np.random.default_rng(seed)
    left, _ = np.linalg.qr(rng.standard_normal((shape[0], len(values))))
    right, _ = np.linalg.qr(rng.standard_normal((shape[1], len(values))))
    return (left * values) @ right.T


def on(device, weights, leading, trailing):
    tensors = [torch.from_numpy(np.ascontiguousarray(weight)) for weight in weights]
    return decompose_batch(tensors, leading, trailing, torch.device(device))


def oracle(weight):
    q, _, pivots = scipy.linalg.qr(weight, mode="economic", pivoting=True)
    return q, pivots


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("spread", [0.0, 1.5, 8.0])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_agrees_with_lapack(shape, spread, device):
    weights = [spectrum(shape, spread, seed) for seed in range(3)]
    k = min(shape)
    leading, trailing = min(4, k), min(32, k)
    for weight, found in zip(weights, on(device, weights, leading, trailing), strict=True):
        q, pivots = oracle(weight)
        np.testing.assert_array_equal(found.pivots, pivots)
        np.testing.assert_allclose(found.q_leading, q[:, :leading], atol=1e-10)
        np.testing.assert_allclose(found.q_trailing, q[:, k - trailing :], atol=1e-10)
        np.testing.assert_array_equal(found.leading_pivots, pivots[:leading])
        np.testing.assert_array_equal(found.trailing_pivots, pivots[k - trailing : k])
        assert found.rank == k


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("drop", [1e-3, 1e-6, 1e-9])
def test_norms_survive_a_cliff_in_the_spectrum(drop, device):
    # Inside one panel the columns lose all but `drop` of their length: lowered norms would be pure rounding.
    values = np.where(np.arange(120) < 50, 1.0, drop) * np.linspace(1, 0.5, 120)
    weight = with_singular_values((180, 120), values)
    (found,) = on(device, [weight], 120, 0)
    q, pivots = oracle(weight)
    np.testing.assert_array_equal(found.pivots, pivots)
    np.testing.assert_allclose(found.q_leading[:, :50], q[:, :50], atol=1e-10)
    np.testing.assert_allclose(found.q_leading.T @ found.q_leading, np.eye(120), atol=1e-12)
    np.testing.assert_allclose(found.q_leading, q, atol=1e-14 / drop)


@pytest.mark.parametrize("device", DEVICES)
def test_a_steady_fall_of_nine_decades(device):
    weight = with_singular_values((150, 200), np.logspace(0, -9, 150))
    (found,) = on(device, [weight], 150, 0)
    np.testing.assert_array_equal(found.pivots, oracle(weight)[1])


@pytest.mark.parametrize("device", DEVICES)
def test_a_cliff_in_one_layer_does_not_disturb_the_others(device):
    plain = spectrum((180, 120), 1.0, 0)
    cliff = with_singular_values((180, 120), np.where(np.arange(120) < 50, 1.0, 1e-6))
    alone, together = on(device, [plain], 4, 32)[0], on(device, [cliff, plain], 4, 32)[1]
    np.testing.assert_array_equal(alone.pivots, together.pivots)
    np.testing.assert_allclose(alone.q_trailing, together.q_trailing, atol=1e-12)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(200, 130), (130, 200), (130, 130)])
def test_rank_deficient_weights(shape, device):
    rng = np.random.default_rng(2)
    weight = rng.standard_normal((shape[0], 50)) @ rng.standard_normal((50, shape[1]))
    (found,) = on(device, [weight], 130, 32)
    q, pivots = oracle(weight)
    assert found.rank == 50
    np.testing.assert_array_equal(found.pivots[:50], pivots[:50])
    np.testing.assert_allclose(found.q_leading[:, :50], q[:, :50], atol=1e-10)
    np.testing.assert_allclose(found.q_leading.T @ found.q_leading, np.eye(130), atol=1e-12)
    np.testing.assert_allclose(found.q_leading @ (found.q_leading.T @ weight), weight, atol=1e-11)


@pytest.mark.parametrize("device", DEVICES)
def test_of_duplicate_columns_the_first_is_taken_as_by_lapack(device):
    weight = spectrum((160, 80), 1.0, 0)
    weight = np.concatenate([weight, weight[:, :30], np.zeros((160, 10))], axis=1)
    (found,) = on(device, [weight], 80, 0)
    q, pivots = oracle(weight)
    assert found.rank == 80 and sorted(found.pivots) == list(range(120))
    np.testing.assert_array_equal(found.pivots[:80], pivots[:80])
    np.testing.assert_allclose(found.q_leading, q[:, :80], atol=1e-10)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("weight", [np.eye(70), np.eye(90, 70), np.diag(np.arange(70.0, 0, -1))[:, ::-1]])
def test_columns_with_nothing_below_the_diagonal_keep_lapacks_signs(weight, device):
    (found,) = on(device, [weight], 70, 0)
    q, pivots = oracle(weight)
    np.testing.assert_array_equal(found.pivots, pivots)
    np.testing.assert_array_equal(found.q_leading, q)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("scale", [1e-200, 1e-18, 1e150])
def test_the_unit_of_a_weight_does_not_matter(scale, device):
    weight = spectrum((90, 60), 1.0, 0)
    found, plain = on(device, [weight * scale, weight], 60, 0)
    np.testing.assert_array_equal(found.pivots, plain.pivots)
    assert found.rank == 60


def test_batches_hold_one_shape_and_may_be_split(monkeypatch):
    weights = [spectrum((60, 40), 1.0, seed) for seed in range(5)]
    whole = on("cpu", weights, 2, 3)
    monkeypatch.setattr("recyclelora.adapters.linalg.device_rrqr._batch_size", lambda shape, device: 2)
    for left, right in zip(whole, on("cpu", weights, 2, 3), strict=True):
        np.testing.assert_array_equal(left.pivots, right.pivots)
        np.testing.assert_allclose(left.q_trailing, right.q_trailing, atol=1e-13)
    with pytest.raises(ValueError, match="one shape"):
        on("cpu", [np.eye(3), np.eye(4)], 1, 1)
    with pytest.raises(ValueError, match="leading=4 columns"):
        on("cpu", [np.eye(3)], 4, 1)
    assert on("cpu", [], 1, 1) == []


@pytest.fixture
def model_weights():
    rng = np.random.default_rng(0)
    shapes = {"fc1": (160, 40), "fc2": (40, 160), "qkv": (120, 40)}
    return {
        f"blocks.{block}.{name}": torch.from_numpy(rng.standard_normal(shape).astype(np.float32))
        for block in range(3)
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("cached", [False, True])
def test_factorize_on_a_device_gives_what_the_cpu_gives(model_weights, device, cached, tmp_path):
    cache = FactorCache(tmp_path if cached else None)
    seen = []
    on_device = factorize(
        model_weights, 4, 32, device=torch.device(device), cache=cache, progress=lambda *args: seen.append(args)
    )
    assert [done for done, *_ in seen] == list(range(1, 10)) and {name for *_, name in seen} == set(model_weights)
    for name, expected in factorize(model_weights, 4, 32).items():
        np.testing.assert_array_equal(on_device[name].pivots, expected.pivots)
        np.testing.assert_allclose(on_device[name].q_leading, expected.q_leading, atol=1e-7)
        np.testing.assert_allclose(on_device[name].q_trailing, expected.q_trailing, atol=1e-7)
    if cached:
        again = factorize(model_weights, 4, 32, cache=cache)  # what the device stored serves the CPU
        assert all(np.array_equal(again[name].q_trailing, on_device[name].q_trailing) for name in again)


@pytest.mark.gpu
def test_weights_on_a_gpu_are_decomposed_there(model_weights, monkeypatch):
    monkeypatch.setattr("recyclelora.adapters.linalg.factor_cache.decompose", None)
    there = factorize({name: weight.cuda() for name, weight in model_weights.items()}, 4, 32)
    monkeypatch.undo()
    for name, expected in factorize(model_weights, 4, 32).items():
        np.testing.assert_array_equal(there[name].pivots, expected.pivots)
        np.testing.assert_allclose(there[name].q_trailing, expected.q_trailing, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_are_decomposed_in_float64(model_weights, dtype):
    halves = {name: weight.to(dtype) for name, weight in model_weights.items()}
    for name, found in factorize(halves, 4, 32, device=torch.device("cpu")).items():
        np.testing.assert_array_equal(found.pivots, oracle(halves[name].double().numpy())[1])


@pytest.mark.parametrize(("value", "message"), [(np.nan, "NaN or infinity"), (-np.inf, "NaN"), (0, "all zeros")])
def test_damaged_weights_are_named(model_weights, value, message):
    model_weights["blocks.1.fc2"] = torch.full((40, 160), float(value))
    with pytest.raises(ValueError, match=rf"^blocks\.1\.fc2: weight .*{message}"):
        factorize(model_weights, 4, 32, device=torch.device("cpu"))


def test_float32_and_strong_pivoting_stay_with_lapack(model_weights, monkeypatch):
    monkeypatch.setattr("recyclelora.adapters.linalg.factor_cache.decompose_batch", None)
    cpu = torch.device("cpu")
    assert factorize(model_weights, 4, 32, device=cpu, precision="float32").keys() == model_weights.keys()
    assert factorize(model_weights, 4, 32, device=cpu, strong=2.0).keys() == model_weights.keys()
