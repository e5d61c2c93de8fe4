"""Figure 8: checkpoints and caches whose bytes were altered or cut off.

    python benchmarks/reliability/corruptions.py --count 300

Each time one file of the newest checkpoint is damaged at random: the one before has to be taken, with a warning that
names the file; with both damaged the run has to be refused. Caches have to compute anew, never to answer wrongly. A
sweep's study, damaged or deleted, has to say again what its ledger says. The same damage to what `torch.save` and
safetensors alone have written is beside it.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from harness import command, composed, ending, run_directory, spawn, train, warmed, workspace
from optuna.distributions import FloatDistribution, distribution_to_json
from safetensors.torch import load_file, save_file

from recyclelora.adapters.linalg.factor_cache import FactorCache
from recyclelora.data.datasets import Sample
from recyclelora.data.datasets.streets import SceneCache, StreetsDataset
from recyclelora.data.decode_cache import DecodeCache
from recyclelora.data.rare_classes import ClassCounts
from recyclelora.evaluation.image_counts import ImageCounts
from recyclelora.evaluation.partial import PartialCounts
from recyclelora.runs.checkpoint import load_checkpoint, newest_checkpoint
from recyclelora.sweep.ledger import COMPLETE, FAILED, Ledger
from recyclelora.sweep.storage import storage_url
from recyclelora.sweep.study import open_study
from recyclelora.system.errors import UserError

OPTIONS = ["trainer.max_steps=4", "trainer.eval_every=2"]
Read = Callable[[], object]


def damage(rng: random.Random, path: Path) -> str:
    """Flip bits of one byte, or cut the file; never leaves it as it was."""
    content = bytearray(path.read_bytes())
    if rng.random() < 0.3 and content:
        del content[rng.randrange(len(content)) :]
        kind = "truncation"
    else:
        content[rng.randrange(len(content))] ^= rng.randrange(1, 256)
        kind = "byte flip"
    path.write_bytes(content)
    return kind


def measure(seed: int, count: int) -> dict[str, Any]:
    """Damage ``count`` checkpoints, and each kind of cache and each stock file a third as often."""
    rng = random.Random(seed)
    with workspace() as folder:
        cache = warmed(folder, *OPTIONS)
        child = spawn(folder / "log", train, composed(folder / "run", *OPTIONS, cache=cache))
        assert child.wait() == 0, child.text()
        run = run_directory(folder / "run")
        checkpoints = _checkpoints(rng, run / "checkpoints", folder, count)
        refused = _both(rng, run / "checkpoints", folder, max(1, count // 10))
        again = _resumed(rng, run, folder, cache)
        caches = {name: _cache(rng, count // 3, *case) for name, case in _caches(folder).items()}
        studies = _studies(rng, folder, max(1, count // 6))
        stock = {name: _cache(rng, count // 3, *case) for name, case in _stock(run, folder).items()}
    return {
        "checkpoints": checkpoints, "both_damaged": refused, "resumed_bit_identical": again,
        "caches": caches, "studies": studies, "stock": stock,
    }  # fmt: skip


def _checkpoints(rng: random.Random, root: Path, folder: Path, count: int) -> dict[str, int]:
    found = {"damaged": 0, "detected_by_name": 0, "previous_used": 0}
    kinds: dict[str, int] = {}
    for index in range(count):
        place = folder / f"damaged-{index}"
        shutil.copytree(root, place)
        path = rng.choice(sorted((place / "step_000004").iterdir()))
        kind = f"{damage(rng, path)} of {path.name}"
        kinds[kind] = kinds.get(kind, 0) + 1
        warnings: list[str] = []
        checkpoint = newest_checkpoint(place, warnings.append)
        found["damaged"] += 1
        found["detected_by_name"] += len(warnings) == 1 and path.name in warnings[0]
        found["previous_used"] += checkpoint is not None and checkpoint.step == 2
        shutil.rmtree(place)
    return found | {"kinds": dict(sorted(kinds.items()))}


def _both(rng: random.Random, root: Path, folder: Path, count: int) -> dict[str, int]:
    refused = 0
    for _ in range(count):
        place = folder / "both"
        shutil.copytree(root, place)
        for step in ("step_000002", "step_000004"):
            damage(rng, rng.choice(sorted((place / step).iterdir())))
        try:
            newest_checkpoint(place, lambda text: None)
        except UserError:
            refused += 1
        shutil.rmtree(place)
    return {"damaged": count, "refused": refused}


def _studies(rng: random.Random, folder: Path, count: int) -> dict[str, int]:
    """Damage the study of a sweep of 30 trials; what it tells afterwards must be what the ledger tells."""
    sweep = folder / "sweep"
    ledger = Ledger(sweep)
    text = distribution_to_json(FloatDistribution(-5.0, 5.0))
    for number in range(30):
        x = rng.uniform(-5, 5)
        trial = ledger.add(number, {"x": x}, [f"x={x}"], [[f"x={x}"]], {"x": text})
        state = rng.choice([COMPLETE, FAILED])
        trial.end(state, values=[x * x] if state == COMPLETE else None)
    trials, path = ledger.trials(), sweep / "study.db"
    url = storage_url(None, sweep)
    wanted = _told(open_study(url, "sweep", ["maximize"], trials, [])[0])
    found = {"damaged": 0, "rebuilt": 0}
    for index in range(count):
        if index % 5:
            damage(rng, path)
        else:
            path.unlink()
        found["damaged"] += 1
        study, _ = open_study(url, "sweep", ["maximize"], trials, [])
        found["rebuilt"] += _told(study) == wanted
    return found


def _told(study: optuna.Study) -> list[object]:
    return [(trial.number, trial.params, trial.state, trial.values) for trial in study.get_trials()]


def _resumed(rng: random.Random, run: Path, folder: Path, cache: Path) -> bool:
    """Whether a run whose newest checkpoint is damaged goes on from the one before, to the same end."""
    wanted = ending(run)
    (run / "result.json").unlink()
    damage(rng, run / "checkpoints/step_000004/trained.safetensors")
    child = spawn(folder / "again.log", train, composed(folder / "run", *OPTIONS, cache=cache))
    assert child.wait() == 0, child.text()
    assert "going back to the checkpoint before" in child.text()
    return ending(run) == wanted


# --- caches and stock files ---------------------------------------------------------------------------------------


def _caches(folder: Path) -> dict[str, tuple[Path, Read, Callable[[object], bool]]]:
    """Name -> file, how it is read, and whether the answer is right; no answer is None or an error."""
    factors = {"q": np.ones((40, 8)), "pivots": np.arange(40), "rank": np.array([8])}
    FactorCache(folder / "factors").store("key-40", factors)
    sample = Sample(np.full((64, 64, 3), 7, np.uint8), np.full((64, 64), 3, np.uint8), "one")
    decoded = DecodeCache(folder / "decoded", 10**6)
    decoded.store("key", sample)
    streets = StreetsDataset("streets", "night", "val", SceneCache(folder / "streets"))
    painted = streets.load(0)
    counts, numbers = ClassCounts(folder / "counts"), np.arange(15, dtype=np.uint32).reshape(3, 5)
    counts.store(counts.name(_Three(), 5), numbers)
    partial = PartialCounts(folder / "partial.json", "key")
    partial._saved = -1e9
    images = ImageCounts(3)
    images.add(np.arange(9).reshape(3, 3))
    partial.update(3, images)
    return {
        "factors": (
            folder / "factors/key-40.safetensors", lambda: FactorCache(folder / "factors").load("key-40"),
            lambda found: all(np.array_equal(found[name], factors[name]) for name in factors),
        ),
        "decoded": (
            folder / "decoded/key.raw", lambda: DecodeCache(folder / "decoded", 10**6).load("key"),
            lambda found: np.array_equal(found.image, sample.image) and found.name == "one",
        ),
        "streets": (
            folder / "streets/streets-v1/night_val/000.png", lambda: streets.load(0),
            lambda found: np.array_equal(found.image, painted.image) and np.array_equal(found.label, painted.label),
        ),
        "class counts": (
            counts.path(counts.name(_Three(), 5)), lambda: counts.known(_Three(), 5),
            lambda found: np.array_equal(found, numbers),
        ),
        "partial scores": (
            folder / "partial.json", lambda: PartialCounts(folder / "partial.json", "key").load(3),
            lambda found: found[0] == 0 or (found[0] == 3 and np.array_equal(found[1].total().ravel(), np.arange(9))),
        ),
    }  # fmt: skip


@dataclass(frozen=True)
class _Three:
    """As much of a dataset as its class counts need."""

    name: str = "three"

    def __len__(self) -> int:
        return 3

    def entries(self) -> list[str]:
        return ["three"]


def _stock(run: Path, folder: Path) -> dict[str, tuple[Path, Read, Callable[[object], bool]]]:
    """The same state as `torch.save` and safetensors alone keep it."""
    tensors = load_checkpoint(run / "checkpoints/step_000002").tensors["trained"]
    pickled, plain = folder / "last.pt", folder / "last.safetensors"
    torch.save(tensors, pickled)
    save_file(tensors, plain)

    def same(found: object) -> bool:
        return all(torch.equal(found[name], tensors[name]) for name in tensors)

    return {
        "torch.load": (pickled, lambda: torch.load(pickled, weights_only=True), same),
        "safetensors": (plain, lambda: load_file(plain), same),
    }


def _cache(rng: random.Random, count: int, path: Path, read: Read, right: Callable[[object], bool]) -> dict[str, int]:
    """Damage one file again and again; an answer is right, missing, or wrong without a word."""
    whole = path.read_bytes()
    found = {"damaged": count, "noticed_or_harmless": 0, "wrong_without_a_word": 0}
    for _ in range(count):
        path.write_bytes(whole)
        damage(rng, path)
        try:
            answer = read()
            good = answer is None or right(answer)
        except UserError:
            good = True
        except Exception:  # a stock reader's own errors
            good = path.suffix in (".pt", ".safetensors")
        found["noticed_or_harmless" if good else "wrong_without_a_word"] += 1
    path.write_bytes(whole)
    return found


if __name__ == "__main__":
    command(measure, "corruptions", 300)
