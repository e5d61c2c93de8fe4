"""A disk that is really full, and one that may only be read."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from harness import Child, composed, spawn, train

from recyclelora.runs.checkpoint import Checkpoint, newest_checkpoint, save_checkpoint
from recyclelora.system.storage import append_text

NEW_NAMESPACE, NEW_USER, PRIVATE, READ_ONLY, RECURSIVE = 0x20000, 0x10000000, 1 << 18, 1, 1 << 14


def mount(target: Path, options: str = "", flags: int = 0) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"none", str(target).encode(), b"tmpfs", flags, options.encode()):
        raise OSError(ctypes.get_errno(), "mount")


def in_own_mounts(action: Callable[..., object], *arguments: object) -> None:
    """Run with mounts that nobody else sees; exit code 77 where this machine forbids them."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(NEW_NAMESPACE) and libc.unshare(NEW_NAMESPACE | NEW_USER):
        raise SystemExit(77)
    if libc.mount(b"none", b"/", None, PRIVATE | RECURSIVE, None):
        raise SystemExit(77)
    action(*arguments)


def ended(child: Child) -> str:
    code = child.wait()
    if code == 77:
        pytest.skip("this machine forbids mounts")
    assert code == 2, child.text()
    assert "Traceback" not in child.text()
    return child.text()


def fill(disk: Path) -> None:
    mount(disk, "size=2m")
    save_checkpoint(disk / "checkpoints", checkpoint(1, 300_000))
    try:
        save_checkpoint(disk / "checkpoints", checkpoint(2, 300_000))
    finally:
        found = newest_checkpoint(disk / "checkpoints", print)
        print("LEFT", found and found.step, sorted(path.name for path in (disk / "checkpoints").iterdir()))


def checkpoint(step: int, size: int) -> Checkpoint:
    return Checkpoint(step, {"trained": {"a": torch.full((size,), float(step))}}, {})


def test_a_full_disk_costs_one_line_with_path_and_bytes_and_no_checkpoint(tmp_path: Path):
    disk = tmp_path / "disk"
    disk.mkdir()
    said = ended(spawn(tmp_path / "log", in_own_mounts, fill, disk))
    assert "LEFT 1 ['step_000001']" in said
    assert "trained.safetensors: cannot write 1,200,0" in said and "No space left on device" in said
    assert str(disk / "checkpoints/step_000002") in said


def fill_log(disk: Path) -> None:
    mount(disk, "size=64k")
    for _ in range(10_000):
        append_text(disk / "metrics.jsonl", "x" * 99 + "\n")


def test_a_full_disk_under_the_curves_is_one_line(tmp_path: Path):
    disk = tmp_path / "disk"
    disk.mkdir()
    said = ended(spawn(tmp_path / "log", in_own_mounts, fill_log, disk))
    assert f"{disk}/metrics.jsonl: cannot add" in said and "No space left on device" in said


def train_read_only(place: Path) -> None:
    (place / "outputs").mkdir()
    mount(place / "outputs", "size=1m", READ_ONLY)
    train(composed(place, "trainer.max_steps=1"))


def test_a_place_that_may_only_be_read_is_named(tmp_path: Path):
    said = ended(spawn(tmp_path / "log", in_own_mounts, train_read_only, tmp_path))
    assert f"{tmp_path}/outputs/runs" in said and "Read-only file system; set output_dir" in said
