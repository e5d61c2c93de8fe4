import multiprocessing
import os
import warnings
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch

from recyclelora.adapters.linalg.factor_cache import FactorCache
from recyclelora.adapters.linalg.factorize import factorize, weight_key
from recyclelora.adapters.linalg.rrqr import RankDeficientWarning, rrqr


def weights(count: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = [(300, 280), (280, 300), (64, 40), (40, 64)]
    return {f"layer{i}": rng.standard_normal(shapes[i % 4]).astype(np.float32) for i in range(count)}


def assert_same(left, right):
    assert left.keys() == right.keys()
    for name in left:
        for field in ("pivots", "q_leading", "q_trailing", "rank"):
            np.testing.assert_array_equal(getattr(left[name], field), getattr(right[name], field))


def test_a_hit_returns_the_same_bits_and_computes_nothing(tmp_path, monkeypatch):
    cache = FactorCache(tmp_path)
    first = factorize(weights(), 4, 32, cache=cache)
    assert len(list(tmp_path.glob("*.safetensors"))) == 4
    monkeypatch.setattr("recyclelora.adapters.linalg.factorize.decompose", None)
    assert_same(first, factorize(weights(), 4, 32, cache=cache))
    assert factorize(weights(), 40, 2, cache=cache)["layer0"].q_leading.shape == (300, 40)  # another rank, same file


@pytest.mark.parametrize("name", ["layer0", "layer1", "layer2", "layer3"])
def test_cached_columns_are_those_of_the_decomposition(tmp_path, name):
    weight = weights()[name]
    for leading, trailing in ((4, 32), (40, 1), (0, 40)):
        cached = factorize({name: weight}, leading, trailing, cache=FactorCache(tmp_path))[name]
        direct = rrqr(weight, leading, trailing)
        np.testing.assert_array_equal(cached.pivots, direct.pivots)
        np.testing.assert_allclose(cached.q_leading, direct.q_leading, atol=1e-7)
        np.testing.assert_allclose(cached.q_trailing, direct.q_trailing, atol=1e-7)


def test_a_larger_rank_gets_its_own_file(tmp_path):
    weight = {"w": np.random.default_rng(0).standard_normal((600, 600))}
    cache = FactorCache(tmp_path)
    factorize(weight, 4, 32, cache=cache)
    larger = factorize(weight, 4, 200, cache=cache)["w"]
    assert larger.q_trailing.shape == (600, 200)
    assert sorted(path.stem.rpartition("-")[2] for path in tmp_path.glob("*.safetensors")) == ["256", "512"]


def flip_byte(data: bytes) -> bytes:
    return data[:-50] + bytes([data[-50] ^ 1]) + data[-49:]


@pytest.mark.parametrize("damage", [lambda d: d[: len(d) // 2], lambda d: b"", lambda d: b"nonsense" * 9, flip_byte])
def test_a_damaged_file_is_computed_again_and_replaced(tmp_path, damage):
    cache = FactorCache(tmp_path)
    first = factorize(weights(1), 4, 32, cache=cache)
    (path,) = tmp_path.glob("*.safetensors")
    intact = path.read_bytes()
    path.write_bytes(damage(intact))
    with pytest.warns(UserWarning, match=f"factor cache {path}: damaged"):
        assert_same(first, factorize(weights(1), 4, 32, cache=cache))
    assert path.read_bytes() == intact


def test_eviction_keeps_the_most_recently_used_within_the_bound(tmp_path):
    factorize(weights(2), 4, 32, cache=FactorCache(tmp_path))
    sizes = [path.stat().st_size for path in tmp_path.glob("*.safetensors")]
    cache = FactorCache(tmp_path, max_bytes=sum(sizes) + 90_000)
    for path in tmp_path.glob("*.safetensors"):
        os.utime(path, ns=(1, 1) if path.name.startswith(weight_key(weights()["layer0"], "float64")) else (2, 2))
    factorize({"layer0": weights()["layer0"]}, 4, 32, cache=cache)  # a hit: layer0 is now the newest
    factorize({"other": np.random.default_rng(5).standard_normal((300, 280))}, 4, 32, cache=cache)
    left = {path.name.split("-")[0] for path in tmp_path.glob("*.safetensors")}
    assert weight_key(weights()["layer0"], "float64") in left
    assert weight_key(weights()["layer1"], "float64") not in left
    assert sum(path.stat().st_size for path in tmp_path.glob("*.safetensors")) <= cache.max_bytes


def test_no_room_at_all_is_no_cache(tmp_path):
    cache = FactorCache(tmp_path, max_bytes=0)
    first = factorize(weights(2), 4, 32, cache=cache)
    assert list(tmp_path.iterdir()) == []
    assert_same(first, factorize(weights(2), 4, 32, cache=cache))


def factorize_at_once(directory, max_bytes, barrier):
    rng = np.random.default_rng(0)
    shared = {f"w{i}": rng.standard_normal((200, 150)) for i in range(6)}
    barrier.wait(timeout=60)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = factorize(shared, 4, 32, cache=FactorCache(directory, max_bytes), num_threads=1)
    return b"".join(found[name].q_trailing.tobytes() for name in shared)


@pytest.mark.parametrize("max_bytes", [2**30, 400_000], ids=["room for all", "room for two or three"])
def test_eight_processes_at_once_agree(tmp_path, max_bytes):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["recyclelora.adapters.linalg.factorize"])  # import torch once, not eight times
    with context.Manager() as manager, ProcessPoolExecutor(8, mp_context=context) as pool:
        barrier = manager.Barrier(8)
        started = [pool.submit(factorize_at_once, tmp_path, max_bytes, barrier) for _ in range(8)]
        outputs = {future.result(60) for future in started}
    assert len(outputs) == 1
    assert {path.suffix for path in tmp_path.glob("*.safetensors")} == {".safetensors"}
    if max_bytes == 2**30:
        assert len(list(tmp_path.glob("*.safetensors"))) == 6
    # Whoever came last may have left eviction to another; the next one to store makes up for it.
    factorize({"next": np.eye(40)}, 1, 1, cache=FactorCache(tmp_path, max_bytes))
    assert sum(path.stat().st_size for path in tmp_path.glob("*.safetensors")) <= max_bytes


def test_results_do_not_depend_on_order_or_threads():
    forward = factorize(weights(), 4, 32, num_threads=1)
    names = list(weights())[::-1]
    backward = factorize({name: weights()[name] for name in names}, 4, 32, num_threads=4)
    assert list(backward) == names
    assert_same(dict(sorted(forward.items())), dict(sorted(backward.items())))


def test_key_depends_on_everything_that_matters():
    weight = weights()["layer0"]
    keys = {
        weight_key(weight, "float64"),
        weight_key(weight, "float32"),
        weight_key(weight.reshape(280, 300), "float64"),
        weight_key(weight.astype(np.float64), "float64"),
        weight_key(np.nextafter(weight, 9), "float64"),
    }
    assert len(keys) == 5
    assert weight_key(torch.from_numpy(weight), "float64") == weight_key(weight, "float64")
    assert weight_key(torch.from_numpy(weight).t().contiguous().t(), "float64") == weight_key(weight, "float64")


def test_half_precision_weights_are_upcast(tmp_path):
    half = torch.from_numpy(weights()["layer0"]).bfloat16()
    found = factorize({"w": half}, 4, 32, cache=FactorCache(tmp_path))["w"]
    np.testing.assert_array_equal(found.pivots, rrqr(half.float().numpy(), 4, 32).pivots)


def test_progress_and_warnings_and_errors_name_the_layer():
    seen = []
    factorize(weights(), 1, 1, progress=lambda done, total, name: seen.append((done, total, name)))
    assert [(done, total) for done, total, _ in seen] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert {name for *_, name in seen} == set(weights())
    with pytest.warns(RankDeficientWarning, match=r"^blocks\.7\.fc1: numerical rank 1 of 20"):
        factorize({"blocks.7.fc1": np.ones((20, 30))}, 1, 1)
    with pytest.raises(ValueError, match=r"^blocks\.7\.fc1: weight holds NaN"):
        factorize({**weights(), "blocks.7.fc1": np.full((20, 30), np.nan)}, 1, 1)
    with pytest.raises(ValueError, match=r"^layer2: trailing=41"):
        factorize(weights(3), 1, 41)


def test_strong_pivoting_is_cached_by_itself(tmp_path, monkeypatch):
    cache, weight = FactorCache(tmp_path), {"w": np.random.default_rng(3).standard_normal((120, 200))}
    greedy = factorize(weight, 4, 32, cache=cache)["w"]
    strong = factorize(weight, 4, 32, cache=cache, strong=1.0)["w"]
    direct = rrqr(weight["w"], 4, 32, strong=1.0)
    assert set(strong.trailing_pivots) != set(greedy.trailing_pivots)
    for found in (strong, factorize(weight, 4, 32, cache=cache, strong=1.0)["w"]):
        np.testing.assert_array_equal(found.trailing_pivots, direct.trailing_pivots)
        np.testing.assert_array_equal(found.leading_pivots, direct.leading_pivots)
        np.testing.assert_allclose(found.q_trailing, direct.q_trailing, atol=1e-7)
    for other in ({"strong": 2.0}, {"strong": 1.0, "trailing": 31}, {}):
        arguments = {"trailing": 32, "strong": None, **other}
        factorize(weight, 4, cache=cache, **arguments)
    assert len(list(tmp_path.glob("*.safetensors"))) == 4
    monkeypatch.setattr("recyclelora.adapters.linalg.factorize.decompose", None)
    np.testing.assert_array_equal(factorize(weight, 4, 32, cache=cache)["w"].trailing_pivots, greedy.trailing_pivots)
