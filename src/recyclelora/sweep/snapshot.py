"""The code of a sweep: packed once, when the sweep begins, and run by its driver and all its jobs ever after.

A sweep takes days; the checkout that it was started from goes on changing. The archive in the sweep's folder is the
truth; it is unpacked beside the sweeps, once for all that began with the same code.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from recyclelora.config.compose import home
from recyclelora.config.option_files import TRUSTED, trusted
from recyclelora.runs.record import PACKAGES, git_state
from recyclelora.sweep import unpack as unpacking
from recyclelora.sweep.unpack import digest, unpack
from recyclelora.system.errors import UserError
from recyclelora.system.plugins import plug_ins
from recyclelora.system.storage import append_text, make_folder, private, set_aside, write_bytes, write_json

VARIABLE = "RECYCLELORA_SNAPSHOT"
"""Environment variable: the snapshot whose code this process runs; ``RECYCLELORA_HOME`` is where it is unpacked."""
ENTERED = "RECYCLELORA_ENTERED"
"""Environment variable: the process that has been replaced by its snapshot; such a process keeps its id."""
ARCHIVE = "snapshot.zip"
FOLDER = "snapshot"
"""What sweeps of earlier versions have instead of an archive."""
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of every file in an archive: equal code is an equal archive."""
FOLDERS = ("conf", "sweeps")
OPTIONS = "options"
"""Copy of the option files of ``--config-dir``."""
CONFIG_DIR = ("--config-dir", "-cd")
SKIPPED = shutil.ignore_patterns("__pycache__", "*.pyc")


def kept(sweep: Path) -> Path:
    """Where a sweep keeps its code, or will."""
    return sweep / FOLDER if (sweep / FOLDER).exists() else sweep / ARCHIVE


def exists(sweep: Path) -> bool:
    """Whether a sweep has begun, and keeps its code."""
    return kept(sweep).exists()


def is_running(sweep: Path) -> bool:
    """Whether this process runs the code of a sweep."""
    return os.environ.get(VARIABLE) == str(kept(sweep))


def note_own(sweep: Path) -> None:
    """Remember, for this account, that it made a sweep's folder which an option file has chosen.

    A home that cannot be written is no reason not to begin: the sweep's command then asks again when it goes on.
    """
    with contextlib.suppress(UserError, OSError):
        make_folder(_noted().parent)
        append_text(_noted(), f"{sweep}\n")


def is_noted(sweep: Path) -> bool:
    """Whether this account made it."""
    try:
        return str(sweep) in _noted().read_text(encoding="utf-8").splitlines()
    except OSError:
        return False


def _noted() -> Path:
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "recyclelora" / "snapshots"


def enter(sweep: Path, *, renew: bool = False, changing: bool = False) -> None:
    """Go on as the snapshot of a sweep: make it if there is none, and replace this process by it.

    Args:
        sweep: the sweep's folder, absolute
        renew: take the code as it is now, for the trials still to come
        changing: the folder was composed from something, such as the time, that the next process would find changed;
            it gets the folder as decided here

    Raises:
        UserError: this process has been replaced already, and is to be so again.
    """
    if is_running(sweep):
        return
    if os.environ.get(ENTERED) == str(os.getpid()):
        raise UserError(f"hydra.sweep.dir: composed twice it was {os.environ.get(VARIABLE)} and {sweep}; fix it")
    if renew and exists(sweep):
        set_aside(kept(sweep))
    if not exists(sweep):
        _pack(sweep / ARCHIVE)
    own = kept(sweep)
    folder = own if own.is_dir() else _unpacked(own)
    source = folder / "src"
    paths = [str(source), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ |= {VARIABLE: str(own), "PYTHONPATH": os.pathsep.join(paths), "RECYCLELORA_HOME": str(folder)}
    os.environ[ENTERED] = str(os.getpid())
    if named := _trusted(folder):
        os.environ[TRUSTED] = os.pathsep.join(map(str, named))
    sys.stdout.flush()
    sys.stderr.flush()
    arguments = [*_with_own_options(sys.argv[1:], folder), *([_override(sweep)] if changing else [])]
    os.execv(sys.executable, [sys.executable, "-m", "recyclelora.train", *arguments])  # noqa: S606


def _config_dir(arguments: Sequence[str]) -> Path | None:
    """The folder of option files that a command line names."""
    for flag, value in itertools.pairwise([*arguments, ""]):
        if flag.startswith("--config-dir="):
            return Path(flag.partition("=")[2]).absolute()
        if flag in CONFIG_DIR:
            return Path(value).absolute()
    return None


def _with_own_options(arguments: Sequence[str], folder: Path) -> list[str]:
    """A command line that names the copy of its option files; one of an earlier version has no copy."""
    if not (folder / OPTIONS).is_dir():
        return list(arguments)
    kept, own = [], ["--config-dir", str(folder / OPTIONS)]
    skip = False
    for argument in arguments:
        if not skip and argument not in CONFIG_DIR and not argument.startswith("--config-dir="):
            kept.append(argument)
        skip = argument in CONFIG_DIR
    return [*own, *kept]


def _trusted(folder: Path) -> list[Path]:
    """What the user trusts, and the copies of it in a snapshot."""
    named = trusted()
    copies = [(home(), folder), (_config_dir(sys.argv[1:]), folder / OPTIONS)]
    for path in list(named):
        for base, copy in copies:
            if base is not None and path.is_relative_to(base.resolve()):
                named.append(copy.resolve() / path.relative_to(base.resolve()))
            elif base is not None and base.resolve().is_relative_to(path):
                named.append(copy.resolve())
    return named


def changes(config: DictConfig) -> bool:
    """Whether the sweep's folder is composed with a resolver, such as ``${now:%H-%M}``, that may change its mind."""
    base = OmegaConf.to_container(config, resolve=False)
    assert isinstance(base, dict)
    parts = (base["hydra"]["sweep"]["dir"], base.get("output_dir"), base.get("study"))
    return any(re.search(r"\$\{[\w.]+:", str(part)) for part in parts)


def _override(sweep: Path) -> str:
    quoted = str(sweep).replace("'", "\\'")
    return f"hydra.sweep.dir='{quoted}'"


def _pack(archive: Path) -> None:
    """Pack package, plug-ins and configuration; complete or not at all."""
    packed = io.BytesIO()
    with tempfile.TemporaryDirectory() as name, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        _fill(Path(name))
        for path in sorted(path for path in Path(name).rglob("*") if path.is_file()):
            info = zipfile.ZipInfo(str(path.relative_to(name)), EPOCH)
            info.external_attr = 0o644 << 16
            file.writestr(info, path.read_bytes(), zipfile.ZIP_DEFLATED)
    if not archive.exists():  # else another process was faster
        make_folder(archive.parent)
        write_bytes(archive, packed.getvalue())


def _unpacked(archive: Path) -> Path:
    """The folder of an archive's content, for this user alone: beside the sweeps, or where that cannot be, in this one.

    Raises:
        UserError: it cannot be written.
    """
    place = archive.parents[1] / f".code-{os.getuid()}"
    try:
        private(place)
    except UserError:
        place = archive.parent / place.name
        private(place)
    folder = place / digest(archive)
    try:
        unpack(archive, folder)
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{archive}: cannot be unpacked to {folder}: {error}") from error
    return folder


def _fill(temporary: Path) -> None:
    source = Path(__file__).resolve().parents[2]
    for package in PACKAGES:
        shutil.copytree(source / package, temporary / "src" / package, ignore=SKIPPED)
    for entry in plug_ins():
        _keep(entry, temporary / "src")
    for name in FOLDERS:
        shutil.copytree(home() / name, temporary / name, dirs_exist_ok=True)
    options = _config_dir(sys.argv[1:])
    if options is not None and options.is_dir():
        shutil.copytree(options, temporary / OPTIONS, ignore=SKIPPED)
    shutil.copyfile(unpacking.__file__, temporary / "__main__.py")
    write_json(temporary / "git.json", git_state(home()))


def _keep(entry: EntryPoint, source: Path) -> None:
    """Copy what an installed package adds: the package or module that an entry point names, and its metadata.

    What it depends on is not copied; a package that is not to be found says so where it is used.
    """
    for name in itertools.accumulate(entry.module.split("."), "{}.{}".format):
        try:
            spec = find_spec(name)
        except (ImportError, ValueError):
            return
        if spec is None or spec.origin is not None:  # None: a namespace, in which others live, too
            break
    if spec is None or spec.origin is None:
        return
    code, place = Path(spec.origin), source / name.replace(".", "/")
    if spec.submodule_search_locations:
        shutil.copytree(code.parent, place, ignore=SKIPPED, dirs_exist_ok=True)
    else:
        make_folder(place.parent)
        shutil.copy2(code, place.parent)
    if entry.dist is not None:
        metadata = source / f"{entry.dist.name.replace('-', '_')}-{entry.dist.version}.dist-info"
        make_folder(metadata)
        for file in ("METADATA", "entry_points.txt"):
            (metadata / file).write_text(entry.dist.read_text(file) or "", encoding="utf-8")
