"""One bounded folder of files that runs share: what every kind of cached file can rely on."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import stat
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from recyclelora.system import filecache
from recyclelora.system.filecache import ABANDONED_AFTER, LEDGER, FileCache


@dataclass(frozen=True)
class Texts(FileCache[str]):
    """A length, and so many letters."""

    title = "text cache"
    option = "texts_gb"
    suffix = ".txt"

    def encode(self, value: str) -> Sequence[bytes]:
        return [f"{len(value):4}".encode(), value.encode()]

    def decode(self, data: bytearray) -> str:
        text = data[4:].decode()
        if int(data[:4]) != len(text):
            raise ValueError("cut off")
        return text


class InUse(Texts):
    in_use = 3600


TEN = "0123456789"
SIZE = 14
"""Bytes of its file."""


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(filecache, "_closed_until", {})
    monkeypatch.setattr(filecache, "_said_damaged", set())


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def test_what_is_stored_comes_back_and_nothing_else(tmp_path: Path):
    cache = Texts(tmp_path / "new", 1000)
    assert cache.load("a") is None
    cache.store("a", TEN)
    cache.store("folder/b", "")
    assert (Texts(tmp_path / "new", 5).load("a"), cache.load("folder/b"), cache.load("c")) == (TEN, "", None)
    assert names(tmp_path / "new") == ["a.txt", "folder/b.txt", LEDGER]


def test_the_least_recently_used_leave_first(tmp_path: Path):
    cache = Texts(tmp_path, 3 * SIZE)
    for hours, name in ((3, "a"), (2, "b"), (1, "c")):
        cache.store(name, TEN)
        age(cache.path(name), 3600 * hours)
    assert cache.load("a") == TEN
    cache.store("d", TEN)
    assert "a.txt" in names(tmp_path) and "d.txt" in names(tmp_path) and "b.txt" not in names(tmp_path)
    assert sum(path.stat().st_size for path in tmp_path.glob("*.txt")) <= cache.max_bytes


def test_what_is_in_use_never_leaves_and_that_is_said_once(tmp_path: Path):
    cache = InUse(tmp_path, 2 * SIZE)
    with pytest.warns(UserWarning, match="full of entries in use; raise texts_gb above 2.8e-08 GB") as told:
        for name in "abcd":
            cache.store(name, TEN)
    assert len(told) == 1
    assert names(tmp_path) == ["a.txt", "b.txt", LEDGER]


def test_an_entry_larger_than_the_bound_pushes_nothing_out(tmp_path: Path):
    cache = Texts(tmp_path, 2 * SIZE)
    cache.store("a", TEN)
    with pytest.warns(UserWarning, match="full"):
        cache.store("large", 3 * TEN)
    assert names(tmp_path) == ["a.txt", LEDGER]


def test_an_entry_that_leaves_while_it_is_read_is_still_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cache = Texts(tmp_path, 1000)
    cache.store("a", TEN)

    def evicted(descriptor: int) -> os.stat_result:
        cache.path("a").unlink(missing_ok=True)
        return status(descriptor)

    status = os.fstat
    monkeypatch.setattr(filecache.os, "fstat", evicted)
    assert cache.load("a") == TEN


@pytest.mark.parametrize("damage", [b"", b"  10 cut", b"nonsense", b"\xff" * 20])
def test_a_damaged_entry_is_none_is_said_once_and_is_replaced(tmp_path: Path, damage: bytes):
    cache = Texts(tmp_path, 1000)
    for name in "ab":
        cache.path(name).write_bytes(damage)
    with pytest.warns(UserWarning, match=f"text cache {tmp_path}/a.txt: damaged") as told:
        assert cache.load("a") is None and cache.load("b") is None
    assert len(told) == 1
    cache.store("a", TEN)
    assert cache.load("a") == TEN


def test_what_dead_writers_left_goes_with_the_first_count(tmp_path: Path):
    old, young = tmp_path / "x" / "old.tmp", tmp_path / "young.tmp"
    old.parent.mkdir()
    old.touch()
    young.touch()
    age(old, ABANDONED_AFTER + 60)
    Texts(tmp_path, 1000).store("a", TEN)
    assert names(tmp_path) == ["a.txt", LEDGER, "young.tmp"]


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", "-5 7", f"99999999999 {int(time.time()) - 7200}", "1 2 3"],
    ids=["empty", "words", "negative", "old", "too many"],  # of the time, names would differ between processes
)
def test_a_damaged_or_old_ledger_is_counted_again(tmp_path: Path, text: str):
    cache = Texts(tmp_path, 1000)
    cache.store("a", TEN)
    (tmp_path / LEDGER).write_text(text)
    cache.store("b", TEN)
    assert (tmp_path / LEDGER).read_text().split()[0] == str(2 * SIZE)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("at", ["fsync", "replace", "ledger"])
def test_a_write_that_fails_leaves_nothing_and_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, at: str
):
    cache = Texts(tmp_path, 1000)
    cache.store("before", TEN)

    def failing(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    where = {"fsync": (filecache.os, "fsync"), "replace": (Path, "replace"), "ledger": (Path, "write_text")}[at]
    monkeypatch.setattr(*where, failing)
    with pytest.warns(UserWarning, match=f"text cache {tmp_path}: not written .{os.strerror(code)}") as told:
        for name in "abc":
            cache.store(name, TEN)
    assert len(told) == 1
    assert names(tmp_path) == ["before.txt", LEDGER]
    assert cache.load("before") == TEN


def _store_with_little_space(folder: Path, results: multiprocessing.Queue) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # the kernel cuts the write off in the middle
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for name in "abc":
            Texts(folder, 10**6).store(name, TEN * 500)
    results.put([str(warning.message) for warning in told])


def test_a_write_that_the_kernel_cuts_off_leaves_nothing(tmp_path: Path):
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue = context.Queue()
    child = context.Process(target=_store_with_little_space, args=(tmp_path, results))
    child.start()
    (told,) = results.get(timeout=60)
    child.join()
    assert "File too large" in told and names(tmp_path) == [LEDGER]


def test_a_folder_that_could_not_be_written_is_tried_again_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    cache = Texts(tmp_path / "file", 1000)
    with pytest.warns(UserWarning, match=r"not written \(File exists\)|not written \(Not a directory\)") as told:
        cache.store("a", TEN)
        (tmp_path / "file").unlink()
        cache.store("a", TEN)
        assert cache.load("a") is None
        now = time.monotonic()
        monkeypatch.setattr(filecache.time, "monotonic", lambda: now + ABANDONED_AFTER + 1)
        cache.store("a", TEN)
    assert cache.load("a") == TEN and len(told) == 1


def test_a_folder_that_may_only_be_read_serves_what_it_holds(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # not everybody may walk down to it
    cache = Texts(Path(), 1000)
    cache.store("a", TEN)
    age(cache.path("a"), 7200)
    cache.path("a").chmod(0o444)
    tmp_path.chmod(0o555)
    me = os.geteuid()
    if me == 0:
        os.seteuid(65534)  # root may write everywhere, nobody may not
    try:
        assert cache.load("a") == TEN
        with pytest.warns(UserWarning, match="Permission denied"):
            cache.store("b", TEN)
    finally:
        os.seteuid(me)
        tmp_path.chmod(0o755)


def test_others_may_read_and_write_a_shared_cache_as_the_umask_says(tmp_path: Path):
    before = os.umask(0o007)
    try:
        Texts(tmp_path / "shared", 1000).store("a", TEN)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    assert modes == {"shared": 0o770, "a.txt": 0o660, LEDGER: 0o660}


def test_no_room_is_no_cache(tmp_path: Path):
    Texts(tmp_path / "none", 0).store("a", TEN)
    assert not (tmp_path / "none").exists()


def _fill(folder: Path, room: int, results: multiprocessing.Queue) -> None:
    cache, right = Texts(folder, room), True
    for number in [*range(12)] * 4:
        text = cache.load(f"{number}")
        right &= text in (None, f"{number:010}")
        cache.store(f"{number}", f"{number:010}")
    results.put(right)


@pytest.mark.parametrize("room", [1000, 3 * SIZE])
def test_many_processes_share_a_folder_within_its_bound(tmp_path: Path, room: int):
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue = context.Queue()
    children = [context.Process(target=_fill, args=(tmp_path, room, results)) for _ in range(6)]
    for child in children:
        child.start()
    assert [results.get(timeout=60) for _ in children] == [True] * 6
    for child in children:
        child.join()
    assert {path.suffix for path in tmp_path.iterdir()} == {".txt", ""}
    assert 0 < sum(path.stat().st_size for path in tmp_path.glob("*.txt")) <= room
