import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from recyclelora.config.compose import home
from recyclelora.system import cache
from recyclelora.system.errors import UserError


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three kinds; the age of a file in minutes is its size in bytes / 100."""
    files = {
        "factors/a-256.safetensors": 100,
        "factors/b-256.safetensors": 300,
        "streets/streets-v1/day_val/000.png": 200,
        "decoded/x/deep/1.npy": 400,
    }
    for name, size in files.items():
        path = tmp_path / "cache" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
        os.utime(path, (time.time() - 60 * size / 100,) * 2)
    return tmp_path / "cache"


def names(folder) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_the_inventory_counts_every_kind(folder):
    found = cache.inventory(folder)
    assert {kind: (len(e), sum(x.size for x in e)) for kind, e in found.items()} == {
        "decoded": (1, 400), "factors": (2, 400), "streets": (1, 200),
    }  # fmt: skip
    assert cache.table(folder, found).splitlines()[1:] == [
        "decoded         1 files       400 B",
        "factors         2 files       400 B",
        "streets         1 files       200 B",
        "total           4 files      1000 B",
    ]


def test_nothing_cached(tmp_path):
    assert cache.inventory(tmp_path / "none") == {}
    assert cache.table(tmp_path, {}).endswith("nothing cached")
    assert cache.clear(tmp_path / "none", ["all"]) == 0


def test_clear_removes_the_named_kinds_only(folder):
    assert cache.clear(folder, ["factors", "streets"]) == 600
    assert names(folder) == ["decoded/x/deep/1.npy"]
    assert (folder / "factors").is_dir()  # another process may be about to write there


def test_prune_removes_the_least_recently_used_first(folder):
    assert cache.prune(folder, 350) == 700
    assert names(folder) == ["factors/a-256.safetensors", "streets/streets-v1/day_val/000.png"]
    assert cache.prune(folder, 350) == 0
    assert cache.prune(folder, 0, ["streets"]) == 200
    assert names(folder) == ["factors/a-256.safetensors"]


def test_a_folder_that_is_not_ours_goes_only_by_its_name(folder):
    (folder / "photos").mkdir()
    (folder / "photos" / "1.jpg").write_bytes(b"12345")
    cache.clear(folder, ["all"])
    assert names(folder) == ["photos/1.jpg"]
    assert cache.clear(folder, ["photos"]) == 5


def test_files_being_written_are_left_alone_until_their_process_is_long_gone(folder):
    fresh = [folder / "factors" / "x.tmp", folder / "streets" / ".000-ab.part"]
    dead = folder / "factors" / "y.tmp"
    for path in [*fresh, dead]:
        path.write_bytes(b"1")
    os.utime(dead, (time.time() - 7200,) * 2)
    cache.clear(folder, ["all"])
    assert names(folder) == ["factors/x.tmp", "streets/.000-ab.part"]


def test_links_are_removed_and_not_followed(folder, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "precious").write_text("1")
    (folder / "factors" / "link").symlink_to(tmp_path / "outside" / "precious")
    (folder / "factors" / "folder").symlink_to(tmp_path / "outside")
    cache.clear(folder, ["all"])
    assert (tmp_path / "outside" / "precious").read_text() == "1"


def test_unknown_kinds_and_folders_that_are_no_cache_are_refused(folder, monkeypatch):
    with pytest.raises(UserError, match="holds no 'factor'; there is decoded, factors, streets, all"):
        cache.clear(folder, ["factor"])
    monkeypatch.chdir(folder / "factors")
    with pytest.raises(UserError, match="is no cache"):
        cache.clear(folder, ["all"])
    with pytest.raises(UserError, match="is no cache"):
        cache.prune(Path("/"), 0)
    monkeypatch.setenv("HOME", str(folder / "streets"))
    with pytest.raises(UserError, match="is no cache"):
        cache.clear(folder, ["all"])
    assert len(names(folder)) == 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("1e9", 10**9), ("500MB", 5 * 10**8), ("2GiB", 2**31), ("1.5 k", 1500), ("3gi", 3 * 2**30)],
)
def test_sizes(text, expected):
    assert cache.size(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "2 PB", "two"])
def test_no_sizes(text):
    with pytest.raises(UserError, match="no size"):
        cache.size(text)


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2**30 * 217, "217.0 GiB")]
)
def test_sizes_for_people(number, text):
    assert cache.readable(number) == text


def test_the_default_is_the_configurations(monkeypatch, tmp_path):
    for value in (None, str(tmp_path)):
        monkeypatch.delenv("RECYCLELORA_CACHE", raising=False)
        if value:
            monkeypatch.setenv("RECYCLELORA_CACHE", value)
        assert str(cache.default_directory()) == OmegaConf.load(home() / "conf" / "train.yaml").cache


def test_the_command(folder):
    def run(*arguments):
        command = [sys.executable, "-m", "recyclelora", "cache", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "RECYCLELORA_CACHE": str(folder)}
        )

    assert "factors         2 files" in run("list").stdout
    removed = f"400 B removed from {folder}; what a run needs of it is computed again\n"
    assert run("prune", "600", "factors", "decoded").stdout == removed
    assert run("clear", "factors").stdout == removed
    wrong = run("clear", "factor")
    assert (wrong.returncode, wrong.stdout) == (2, "") and wrong.stderr.startswith("cache: ")
    assert len(wrong.stderr.splitlines()) == 1


def test_somebody_elses_run_does_not_say_where_files_are_written(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("RECYCLELORA_CACHE", str(tmp_path / "default"))
    (tmp_path / "elsewhere").mkdir()
    assert cache.of_run(str(folder)) == folder
    assert cache.of_run(str(tmp_path / "elsewhere")) == tmp_path / "default"
    assert cache.of_run("/nowhere") == tmp_path / "default"
    cannot_be_looked_into = "/" + 300 * "x"  # as a closed home: Path.is_dir raises there
    assert cache.of_run(cannot_be_looked_into) == tmp_path / "default"
