"""Figure 2: a kill, a full disk and a failing disk at every single step of everything that is written.

    python benchmarks/reliability/crash_points.py

Each protocol runs once under `strace` to count its system calls; then once for each of these calls and each fault,
which `strace` injects into the real call: SIGKILL, ENOSPC or EIO. Afterwards the old or the new state must be there,
whole; the protocol must succeed when it is run again; and a refusal must be one line with the path. `torch.save` in
place goes through the same. From the list of calls also follows whether everything is on disk before the rename that
makes it visible, which no kill can show, only a power cut.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import Child, command, composed, spawn, workspace

from recyclelora.adapters.linalg.factor_cache import FactorCache
from recyclelora.data.datasets import Sample
from recyclelora.data.datasets.streets import SceneCache, StreetsDataset
from recyclelora.data.decode_cache import DecodeCache
from recyclelora.data.streets import render
from recyclelora.evaluation.image_counts import ImageCounts
from recyclelora.evaluation.partial import PartialCounts
from recyclelora.runs.checkpoint import Checkpoint, newest_checkpoint, point, pointed, prune, save_checkpoint
from recyclelora.runs.directory import RunDirectory
from recyclelora.runs.metrics_log import MetricsLog
from recyclelora.runs.record import claimed, record
from recyclelora.system.storage import read_json, write_json

CALLS = ("write", "pwrite64", "fsync", "fdatasync", "rename", "mkdir", "unlink", "unlinkat", "rmdir", "ftruncate")
FAULTS = {"kill": "signal=SIGKILL", "ENOSPC": "error=ENOSPC", "EIO": "error=EIO"}
NEVER_FULL = ("unlink", "unlinkat", "rmdir", "ftruncate")
"""Calls that free space."""


@dataclass(frozen=True)
class Protocol:
    """Something that is written: how it starts, what is done, and whether what is found afterwards is right.

    Attributes:
        prepare: leaves the old state in a folder.
        act: brings it to the new state.
        sound: whether the old or the new state is there, whole; after a finished ``act`` (True) only the new one.
        may_fail: whether ``act`` refuses where it cannot write; a cache must not.
    """

    name: str
    prepare: Callable[[Path], object]
    act: Callable[[Path], object]
    sound: Callable[[Path, bool], bool]
    may_fail: bool = True


# --- the protocols -----------------------------------------------------------------------------------------------


def _checkpoint(step: int) -> Checkpoint:
    tensors = {name: {"a": torch.full((5000,), float(step))} for name in ("trained", "optimizer", "initial")}
    return Checkpoint(step, tensors, {"history": [], "seconds": 1.0})


def _save(root: Path, step: int) -> None:
    save_checkpoint(root, _checkpoint(step))
    point(root, "last", step)
    prune(root, 1, ("last",))


def _checkpoint_sound(root: Path, finished: bool) -> bool:
    warnings: list[str] = []
    found = newest_checkpoint(root, warnings.append)
    if found is None or warnings or found.step not in ((2,) if finished else (1, 2)):
        return False
    whole = all((t == found.step).all() for tensors in found.tensors.values() for t in tensors.values())
    names = sorted(path.name for path in root.iterdir())
    clean = names == ["last", "step_000002"] if finished else True
    return whole and clean and pointed(root, "last") is not None


def _save_stock(root: Path, step: int) -> None:
    root.mkdir(exist_ok=True)
    torch.save({"step": step} | _checkpoint(step).tensors, root / "last.pt")


def _stock_sound(root: Path, finished: bool) -> bool:
    try:
        found = torch.load(root / "last.pt", weights_only=True)
    except Exception:
        return False
    return found["step"] in ((2,) if finished else (1, 2)) and bool((found["trained"]["a"] == found["step"]).all())


def _json_sound(path: Path, finished: bool) -> bool:
    leftovers = [p for p in path.parent.iterdir() if p.name.startswith(".") and p.name.endswith(".tmp")]
    return read_json(path) in ([{"n": 2}] if finished else [{"n": 1}, {"n": 2}]) and not (finished and leftovers[1:])


def _append(folder: Path) -> None:
    log = MetricsLog(folder / "metrics.jsonl")
    log.rewind(2)
    for step in (3, 4):
        log.append(step, {"loss": float(step)})


def _metrics_sound(folder: Path, finished: bool) -> bool:
    """The first two points are there and the others in their order; a rewind then drops what was cut off."""
    log = MetricsLog(folder / "metrics.jsonl")
    log.rewind(4)
    steps = [int(line.split()[1].rstrip(",")) for line in log.path.read_text().splitlines()]
    return steps == [1, 2, 3, 4][: len(steps)] and len(steps) >= (4 if finished else 2)


def _start_log(folder: Path) -> None:
    (folder / "metrics.jsonl").write_text(
        "".join(f'{{"step": {step}, "time": 0, "loss": 1.0}}\n' for step in (1, 2, 3)) + '{"step": 3, "ti'
    )


def _run(folder: Path) -> tuple[RunDirectory, Any]:
    return RunDirectory(folder / "run"), composed(folder)


def _claim(folder: Path) -> None:
    run, config = _run(folder)
    with claimed(run, config):
        about = {
            "signature": "0" * 16,
            "started": "2026-01-01T00:00:00+0000",
            "command": "train.py",
            "code_sha256": "0",
        }
        record(run, {**about, "code_sha256": "0", "git": None, "host": {}})


def _claim_sound(folder: Path, finished: bool) -> bool:
    run, _ = _run(folder)
    for name in ("config.yaml", "run.json"):
        if (run.path / name).exists() and not (run.path / name).read_text().endswith("\n"):
            return False
    return not finished or isinstance(read_json(run.path / "run.json")["resumed"], list)


def _count(folder: Path, done: int) -> None:
    counts = PartialCounts(folder / "partial/1.json", "key")
    counts._saved = -1e9  # long ago
    images = ImageCounts(3)
    images.add(np.full((3, 3), done))
    counts.update(done, images)


def _counted(folder: Path, finished: bool) -> bool:
    done, counts = PartialCounts(folder / "partial/1.json", "key").load(3)
    return done in ((2,) if finished else (1, 2)) and bool((counts.total() == done).all())


FACTORS = {"q": np.ones((40, 8)), "pivots": np.arange(40), "rank": np.array([8])}
SAMPLE = Sample(np.full((64, 64, 3), 7, np.uint8), np.full((64, 64), 3, np.uint8), "one")


def _factors_sound(folder: Path, finished: bool) -> bool:
    found = FactorCache(folder).load("key-40")
    return (found is None and not finished) or (found is not None and bool((found["q"] == 1).all()))


def _decoded_sound(folder: Path, finished: bool) -> bool:
    found = DecodeCache(folder / "decoded", 10**6).load("key")
    return (found is None and not finished) or (found is not None and np.array_equal(found.image, SAMPLE.image))


def _scene_sound(folder: Path, finished: bool) -> bool:
    return np.array_equal(_scene(folder).label, render("night", "val", 0)[1])


def _scene(folder: Path) -> Sample:
    return StreetsDataset("streets", "night", "val", SceneCache(folder)).load(0)


PROTOCOLS = (
    Protocol("checkpoint", lambda f: _save(f, 1), lambda f: _save(f, 2), _checkpoint_sound),
    Protocol(
        "result", lambda f: write_json(f / "result.json", {"n": 1}), lambda f: write_json(f / "result.json", {"n": 2}),
        lambda f, finished: _json_sound(f / "result.json", finished),
    ),
    Protocol("metrics log", _start_log, _append, _metrics_sound),
    Protocol("run directory", lambda f: None, _claim, _claim_sound),
    Protocol("partial scores", lambda f: _count(f, 1), lambda f: _count(f, 2), _counted),
    Protocol("factor cache", lambda f: None, lambda f: FactorCache(f).store("key-40", FACTORS), _factors_sound),
    Protocol(
        "decode cache", lambda f: None, lambda f: DecodeCache(f / "decoded", 10**6).store("key", SAMPLE),
        _decoded_sound, may_fail=False,
    ),
    Protocol(
        "streets cache", lambda f: None, lambda f: _scene(f), _scene_sound, may_fail=False
    ),
)  # fmt: skip
STOCK = Protocol("torch.save in place", lambda f: _save_stock(f, 1), lambda f: _save_stock(f, 2), _stock_sound)


# --- faults ------------------------------------------------------------------------------------------------------


def _waiting(folder: Path, act: Callable[[Path], object], gate: int) -> None:
    os.read(gate, 1)
    act(folder)


def _traced(folder: Path, protocol: Protocol, options: list[str], log: Path) -> tuple[int | None, Child]:
    """Run a protocol's action with strace attached from its first call on."""
    gate, opener = os.pipe()
    child = spawn(folder.with_suffix(".log"), _waiting, folder, protocol.act, gate)
    os.close(gate)
    strace = ["strace", "-f", "-y", "-s0", "-o", str(log), "-e", "signal=none", "-p", str(child.pid), *options]
    tracer = subprocess.Popen(strace, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    first = tracer.stderr.readline()
    if "attached" not in first:
        child.kill()
        child.wait()
        raise RuntimeError(f"strace cannot attach here: {first.strip()}")
    os.write(opener, b"x")
    os.close(opener)
    code = child.wait(60)
    tracer.communicate()
    return code, child


def calls_of(protocol: Protocol, folder: Path) -> list[str]:
    """The protocol's calls that change something, one line each, in order."""
    place, log = folder / "dry", folder / "dry.strace"
    place.mkdir()
    protocol.prepare(place)
    code, child = _traced(place, protocol, ["-e", "trace=" + ",".join(CALLS)], log)
    assert code == 0, child.text()
    lines = [re.sub(r"^\d+ +", "", line) for line in log.read_text().splitlines()]
    shutil.rmtree(place)
    return [line for line in lines if line.split("(")[0] in CALLS]


def unsynced(calls: list[str]) -> list[str]:
    """Renames that a power cut could turn into a name without its content.

    Every written file and every folder with new names has to be synced before the rename that makes it visible.
    """
    dirty: set[str] = set()
    found = []
    for line in calls:
        name = line.split("(")[0]
        paths = re.findall(r'"([^"]*)"', line)
        opened = re.search(r"\(\d+<([^>]*)>", line)
        if name in ("write", "pwrite64") and opened:
            dirty.add(opened[1])
        elif name in ("fsync", "fdatasync") and opened:
            dirty.discard(opened[1])
        elif name == "rename" and len(paths) == 2:
            if any(path == paths[0] or path.startswith(paths[0] + "/") for path in dirty):
                found.append(line)
            dirty = {path for path in dirty if not path.startswith(paths[0])}
    return found


def _faulty(protocol: Protocol, folder: Path, call: str, number: int, fault: str) -> str | None:
    """Inject one fault; None where all is well, or what is wrong."""
    place = folder / f"{call}-{number}-{fault}"
    place.mkdir()
    protocol.prepare(place)
    options = ["-e", f"trace={call}", "-e", f"inject={call}:{FAULTS[fault]}:when={number}"]
    code, child = _traced(place, protocol, options, folder / "fault.strace")
    said = child.text()
    wrong = None
    try:
        if "Traceback" in said:
            wrong = f"a traceback: {said.strip().splitlines()[-1]}"
        elif code is None:
            wrong = "it hangs"
        elif code not in (-9, 0, 2):
            wrong = f"exit code {code}"
        elif code == 2 and not protocol.may_fail:
            wrong = f"a cache stopped the run: {said.strip()}"
        elif not protocol.sound(place, False):
            wrong = "neither the old nor the new state is there"
        elif code == 0 and protocol.may_fail and not protocol.sound(place, True):
            wrong = "it said that all is well, but the new state is not there"
        else:
            again = spawn(place.with_suffix(".log"), protocol.act, place)
            if again.wait() != 0:
                wrong = f"it cannot be done again: {again.text().strip().splitlines()[-1]}"
            elif not protocol.sound(place, True):
                wrong = "done again, the new state is not there"
    except Exception as error:  # what a reader raises on what it finds
        wrong = f"{type(error).__name__}: {error}"
    shutil.rmtree(place)
    return wrong


def _campaign(protocol: Protocol, folder: Path, every: int) -> dict[str, Any]:
    folder.mkdir()
    calls = calls_of(protocol, folder)
    counts = {name: sum(line.startswith(name + "(") for line in calls) for name in CALLS}
    points = [
        (call, number, fault)
        for call, count in counts.items()
        for number in range(1, count + 1)
        for fault in FAULTS
        if not (fault == "ENOSPC" and call in NEVER_FULL)
    ]
    chosen = points[::every]
    bad = {f"{call} {number} {fault}": _faulty(protocol, folder, call, number, fault) for call, number, fault in chosen}
    bad = {where: what for where, what in bad.items() if what}
    return {
        "calls": {name: count for name, count in counts.items() if count}, "faults": len(chosen),
        "bad_states": len(bad), "renamed_before_synced": len(unsynced(calls)), "what": bad,
    }  # fmt: skip


def measure(seed: int, count: int, protocols: tuple[Protocol, ...] = (*PROTOCOLS, STOCK)) -> dict[str, Any]:
    """Every ``count``-th fault of every protocol; 1 for all of them."""
    with workspace() as folder:
        results = {p.name: _campaign(p, folder / p.name.replace(" ", "-"), count) for p in protocols}
    stock = results.pop(STOCK.name, None)
    ours = list(results.values())
    return {
        "faults": sum(r["faults"] for r in ours), "bad_states": sum(r["bad_states"] for r in ours),
        "protocols": results, "stock": {STOCK.name: stock},
    }  # fmt: skip


if __name__ == "__main__":
    command(measure, "crash_points", 1)
