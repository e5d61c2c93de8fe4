"""The code that a sweep keeps."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from installing import install, install_project

from recyclelora.commands.clear_line import explain
from recyclelora.config.compose import home, register_schemas
from recyclelora.sweep import snapshot, unpack
from recyclelora.system.errors import UserError


def test_the_archive_of_equal_code_is_equal_and_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(snapshot, "PACKAGES", ("hydra_plugins",))
    for name in ("a", "b"):
        snapshot._pack(tmp_path / name / snapshot.ARCHIVE)
        assert [path.name for path in (tmp_path / name).iterdir()] == [snapshot.ARCHIVE]
    folder = snapshot._unpacked(tmp_path / "a" / snapshot.ARCHIVE)
    assert (folder / "src/hydra_plugins/recyclelora_sweeper/sweeper.py").is_file() and (
        folder / "conf/train.yaml"
    ).is_file()
    made = (folder / "git.json").stat().st_mtime_ns
    assert snapshot._unpacked(tmp_path / "b" / snapshot.ARCHIVE) == folder
    assert (folder / "git.json").stat().st_mtime_ns == made
    assert list(folder.parent.iterdir()) == [folder] and folder.parent.stat().st_mode & 0o777 == 0o700


def test_a_job_unpacks_what_its_node_does_not_see_and_nothing_else(tmp_path: Path):
    archive = tmp_path / "s" / snapshot.ARCHIVE
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as file:
        file.write(unpack.__file__, "__main__.py")
        file.writestr("src/module_of_the_sweep.py", "print('found', __file__)")
    folder = tmp_path / unpack.digest(archive)
    command = [sys.executable, str(archive), str(folder), "-m", "module_of_the_sweep"]
    environment = {**os.environ, "PYTHONPATH": str(folder / "src")}
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        assert done.stdout == f"found {folder}/src/module_of_the_sweep.py\n"
    archive.write_bytes(archive.read_bytes() + b" ")
    unpack.unpack(archive, folder)  # jobs that were submitted before go on with what is there
    with pytest.raises(OSError, match="was renewed since"):
        unpack.unpack(archive, tmp_path / ("0" * 16))


def test_code_that_nothing_began_with_for_long_is_removed(tmp_path: Path):
    archive = tmp_path / "s" / snapshot.ARCHIVE
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("git.json", "{}")
    place = tmp_path / f".code-{os.getuid()}"
    place.mkdir(0o700)
    folders = {name: place / name for name in ("0" * 16, "1" * 16, "own things")}
    for folder in folders.values():
        folder.mkdir()
        os.utime(folder, (0, 0))
    os.utime(folders["1" * 16])
    folder = snapshot._unpacked(archive)
    assert {path.name for path in place.iterdir()} == {folder.name, "1" * 16, "own things"}
    os.utime(folder, (0, 0))
    snapshot._unpacked(archive)  # a job that begins with it keeps it
    assert folder.stat().st_mtime > 1e9 and (folder / "git.json").is_file()


def test_where_nothing_can_be_made_beside_it_a_sweep_unpacks_its_code_itself(tmp_path: Path):
    archive = tmp_path / "s" / snapshot.ARCHIVE
    archive.parent.mkdir()
    (tmp_path / f".code-{os.getuid()}").write_text("no folder")
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("git.json", "{}")
    assert (snapshot._unpacked(archive) / "git.json").parent.parent.parent == archive.parent
    archive.write_text("no archive")
    with pytest.raises(UserError, match=r"snapshot\.zip: cannot be unpacked to .*: File is not a zip file"):
        snapshot._unpacked(archive)


@pytest.mark.parametrize(
    ("override", "changes"),
    [
        ("study=plain", False),
        ("hydra.sweep.dir=here/${study}", False),
        ("hydra.sweep.dir='multirun/${now:%Y-%m-%d}/${now:%H-%M-%S}'", True),
        ("output_dir='out/${now:%H-%M-%S}'", True),
        ("hydra.sweep.dir='${oc.env:RECYCLELORA_HOME}/here'", True),
    ],
)
def test_a_folder_that_another_composition_finds_elsewhere_is_known(override: str, changes: bool):
    register_schemas()
    with initialize_config_dir(str(home() / "conf")):
        config = compose("train", ["data=streets", override], return_hydra_config=True)
    assert snapshot.changes(config) is changes


def test_the_next_process_gets_the_folder_as_decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Hydra's default folder holds a second: each composition would be another sweep."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "seed=0,1"])
    monkeypatch.setattr(snapshot, "_pack", lambda archive: (archive.parent / "snapshot").mkdir(parents=True))
    calls: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _, command: calls.append(command[3:]))
    snapshot.enter(tmp_path / "it's 12-30", changing=True)
    assert calls == [["-m", "seed=0,1", f"hydra.sweep.dir='{tmp_path}/it\\'s 12-30'"]]
    snapshot.enter(tmp_path / "it's 12-30", changing=True)
    assert len(calls) == 1
    with pytest.raises(UserError, match="composed twice"):  # whatever else may change: not for ever
        snapshot.enter(tmp_path / "12-31", changing=True)


@pytest.mark.slow
def test_a_folder_with_a_time_in_it_is_one_sweep(tmp_path: Path):
    places = [f"output_dir={tmp_path / 'outputs'}", f"cache={tmp_path / 'cache'}", f"data.root={tmp_path / 'nothing'}"]
    folder = f"hydra.sweep.dir='{tmp_path}/multirun/${{now:%Y-%m-%d}}/${{now:%H-%M-%S-%f}}'"
    command = [sys.executable, str(home() / "train.py"), "-m", *places, folder, "seed=0,1", "tracking=none"]
    done = subprocess.run(
        [*command, "backbone=vit_tiny_test", "hydra.launcher.in_process=true", "max_failures=1"],
        capture_output=True, text=True, timeout=120, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 4, (done.stdout, done.stderr)  # there are no data: all that is wanted is one folder
    assert [path.parent.parent for path in tmp_path.glob("multirun/*/*/study.json")] == list(
        tmp_path.glob("multirun/*")
    )
    assert len(list(tmp_path.glob("multirun/*/*/snapshot.zip"))) == 1


def test_option_files_of_ones_own_are_part_of_it_and_stay_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Editing them later changes no later trial."""
    mine, sweep = tmp_path / "mine", tmp_path / "sweep"
    (mine / "experiment").mkdir(parents=True)
    (mine / "experiment/a.yaml").write_text("seed: 1\n")
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _, arguments: started.append(arguments))
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", "--config-dir", str(mine), "experiment=a"])
    monkeypatch.setenv("RECYCLELORA_TRUSTED", f"{mine}:{home()}/conf/hydra/launcher/ours.yaml")
    for name in ("RECYCLELORA_SNAPSHOT", "RECYCLELORA_ENTERED", "RECYCLELORA_HOME", "PYTHONPATH"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    sweep.mkdir()
    snapshot.enter(sweep)
    folder = snapshot._unpacked(sweep / "snapshot.zip")
    own = folder / "options"
    assert (own / "experiment/a.yaml").read_text() == "seed: 1\n"
    assert started[0][3:] == ["--config-dir", str(own), "-m", "experiment=a"]
    named = os.environ["RECYCLELORA_TRUSTED"].split(":")
    assert {str(own), f"{folder}/conf/hydra/launcher/ours.yaml"} <= set(named)


@pytest.mark.parametrize("began", [True, False])
def test_an_option_newer_than_the_sweep_is_told_from_a_typo(began: bool, monkeypatch: pytest.MonkeyPatch):
    if began:
        monkeypatch.setenv(snapshot.VARIABLE, "/srv/outputs/sweeps/mine/snapshot.zip")
    register_schemas()
    with initialize_config_dir(str(home() / "conf")), pytest.raises(HydraException) as refused:
        compose("train", ["hydra/launcher=ours"], return_hydra_config=True)
    said = explain(refused.value)
    assert said.startswith("hydra/launcher=ours: no such option") and ("snapshot=renew" in said) == began


def test_a_home_that_cannot_be_written_does_not_keep_a_sweep_from_beginning(tmp_path: Path, monkeypatch):
    (tmp_path / "state").write_text("no folder")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    snapshot.note_own(tmp_path)
    assert not snapshot.is_noted(tmp_path)


def test_packages_that_add_something_are_part_of_it(tmp_path: Path):
    """Upgrading one later changes no later trial; one module, one package, and one in a namespace."""
    site, project = tmp_path / "site", tmp_path / "spaces"
    install_project(home() / "examples/bitfit_adapter", site)
    (project / "inner").mkdir(parents=True)
    (project / "inner/__init__.py").touch()
    (project / "other.py").touch()
    install(project, "in-a-namespace", {"recyclelora.conf": {"a": "spaces.inner"}}, site)
    (tmp_path / "alone.py").write_text("X = 1\n")
    install(tmp_path / "alone.py", "alone", {"recyclelora.metrics": {"b": "alone:X"}}, site)
    install(tmp_path / "gone.py", "gone", {"recyclelora.metrics": {"c": "gone:X"}}, site)
    code = f"import pathlib, recyclelora.sweep.snapshot as s; s._fill(pathlib.Path({str(tmp_path / 'snapshot')!r}))"
    paths = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": paths})
    source = tmp_path / "snapshot/src"
    shutil.rmtree(site)
    assert (source / "bitfit_adapter/conf/adapter").is_dir() and (source / "alone.py").read_text() == "X = 1\n"
    assert [path.name for path in (source / "spaces").iterdir()] == ["inner"]
    shown = "import importlib.metadata as m; print(m.entry_points(group='recyclelora.adapters')['bitfit'].load())"
    done = subprocess.run(
        [sys.executable, "-c", shown], check=True, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(source)},
    )  # fmt: skip
    assert "bitfit_adapter" in done.stdout
