from __future__ import annotations

from pathlib import Path

import pytest
import torch

from recyclelora.runs.checkpoint import (
    Checkpoint,
    load_checkpoint,
    newest_checkpoint,
    point,
    pointed,
    prune,
    save_checkpoint,
)
from recyclelora.system.errors import UserError


def checkpoint(step: int) -> Checkpoint:
    tensors = {
        "trained": {"a": torch.full((3,), float(step))},
        "initial": {},
        "optimizer": {"a.step": torch.tensor(1.0)},
    }
    return Checkpoint(step, tensors, {"history": [{"x": 0.1}], "seconds": 1.5})


def test_round_trip(tmp_path: Path):
    folder = save_checkpoint(tmp_path, checkpoint(7))
    assert folder.name == "step_000007"
    assert sorted(p.name for p in folder.iterdir()) == [
        "initial.safetensors", "manifest.json", "optimizer.safetensors", "state.json", "trained.safetensors",
    ]  # fmt: skip
    loaded = load_checkpoint(folder)
    assert (loaded.step, loaded.state) == (7, {"history": [{"x": 0.1}], "seconds": 1.5})
    assert torch.equal(loaded.tensors["trained"]["a"], torch.full((3,), 7.0))
    assert loaded.tensors["initial"] == {}


@pytest.mark.parametrize("name", ["trained.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_damage_is_detected_and_the_one_before_is_used(tmp_path: Path, name: str, damage: str):
    save_checkpoint(tmp_path, checkpoint(1))
    path = save_checkpoint(tmp_path, checkpoint(2)) / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(data if damage == "flip" else data[:-1])
    warnings: list[str] = []
    found = newest_checkpoint(tmp_path, warnings.append)
    assert found is not None and found.step == 1
    assert len(warnings) == 1 and name in warnings[0] and "damaged" in warnings[0]


def test_no_whole_checkpoint_is_refused(tmp_path: Path):
    (save_checkpoint(tmp_path, checkpoint(1)) / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="fresh=true"):
        newest_checkpoint(tmp_path, lambda text: None)
    assert newest_checkpoint(tmp_path / "none", print) is None


def test_a_write_that_fails_leaves_the_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save_checkpoint(tmp_path, checkpoint(1))
    monkeypatch.setattr(
        "recyclelora.system.storage.os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left"))
    )
    with pytest.raises(UserError, match="No space left"):
        save_checkpoint(tmp_path, checkpoint(2))
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["step_000001"]
    assert load_checkpoint(tmp_path / "step_000001").step == 1


def test_newest_three_and_the_pointed_ones_are_kept(tmp_path: Path):
    for step in range(1, 7):
        save_checkpoint(tmp_path, checkpoint(step))
        point(tmp_path, "last", step)
    point(tmp_path, "best_source", 2)
    (tmp_path / ".step_000009.dead.tmp").mkdir()
    (tmp_path / ".last.dead.tmp").write_text("")
    prune(tmp_path, 3, ("last", "best_source", "best_target"))
    assert sorted(p.name for p in tmp_path.glob("*step_*")) == [f"step_{s:06d}" for s in (2, 4, 5, 6)]
    assert pointed(tmp_path, "best_source") == tmp_path / "step_000002"
    assert pointed(tmp_path, "best_target") is None
    assert not list(tmp_path.glob("*.tmp")) and not list(tmp_path.glob(".*"))


def test_saving_a_step_again_replaces_it(tmp_path: Path):
    save_checkpoint(tmp_path, checkpoint(1))
    again = checkpoint(1)
    again.tensors["trained"]["a"] += 1
    assert torch.equal(load_checkpoint(save_checkpoint(tmp_path, again)).tensors["trained"]["a"], torch.full((3,), 2.0))


def test_the_millionth_step_is_newer_than_the_one_before(tmp_path: Path):
    for step in (999_999, 1_000_000):
        save_checkpoint(tmp_path, checkpoint(step))
    found = newest_checkpoint(tmp_path, lambda text: None)
    assert found is not None and found.step == 1_000_000
    prune(tmp_path, 1, ())
    assert [path.name for path in tmp_path.iterdir()] == ["step_1000000"]


@pytest.mark.parametrize("manifest", ["[]", "3", "{ }", '{"state.json": 1}'])
def test_a_manifest_that_was_not_written_here_is_damage(tmp_path: Path, manifest: str):
    folder = save_checkpoint(tmp_path, checkpoint(1))
    (folder / "manifest.json").write_text(manifest)
    with pytest.raises(UserError, match=r"damaged"):
        load_checkpoint(folder)


def test_space_changed_in_the_manifest_is_noticed(tmp_path: Path):
    manifest = save_checkpoint(tmp_path, checkpoint(1)) / "manifest.json"
    manifest.write_text(manifest.read_text().replace("  ", "\t "))
    with pytest.raises(UserError, match=r"manifest.json: damaged"):
        load_checkpoint(manifest.parent)


@pytest.mark.parametrize("content", [".", "..", "step_000001/..", "../step_000001", "", "step_x"])
def test_a_pointer_leads_nowhere_else(tmp_path: Path, content: str):
    save_checkpoint(tmp_path, checkpoint(1))
    (tmp_path / "last").write_text(content)
    assert pointed(tmp_path, "last") is None
