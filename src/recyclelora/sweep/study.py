"""Optuna's study: a view of the ledger that samplers, pruners and the dashboard read.

It is opened by the driver alone, brought up to date from the ledger, and rebuilt from it when it is missing or broken.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import json_to_distribution
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from recyclelora.runs.mailbox import read_reports
from recyclelora.sweep.ledger import COMPLETE, FAILED, PRUNED, Trial
from recyclelora.sweep.samplers import CONSTRAINTS
from recyclelora.system.errors import UserError
from recyclelora.system.storage import set_aside, sqlite_url

NETWORK = (
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "glusterfs",
    "afs",
    "pvfs2",
    "9p",
    "fuse.",
)
"""File systems on which SQLite loses data; ``fuse.`` stands for all of FUSE's."""

MARK = "sweep"
"""User attribute of a study in a shared storage: when the sweep began that it belongs to."""
PATIENCE = 10.0
"""Seconds for which a locked file is waited for."""
STATES = {COMPLETE: TrialState.COMPLETE, PRUNED: TrialState.PRUNED, FAILED: TrialState.FAIL}


def storage_url(given: str | None, sweep: Path) -> str | None:
    """Where the study is kept: as given, or SQLite in the sweep's folder; None: in memory only.

    Raises:
        UserError: a storage on which the study would not be safe, or that is none.
    """
    if given is None:
        return None if network_file_system(sweep) else sqlite_url(sweep / "study.db")
    if given == "memory":
        return None
    try:
        url = make_url(given)
    except ArgumentError:
        raise UserError(
            "hydra.sweeper.storage: not a database URL, such as postgresql://user@host/name (password in PGPASSWORD)"
        ) from None
    if url.get_backend_name() == "sqlite" and url.database:
        kind = network_file_system(Path(url.database).absolute().parent)
        if kind is not None:
            raise UserError(
                f"hydra.sweeper.storage={given}: SQLite is not safe on a network file system ({kind}); leave storage "
                "out (the ledger keeps everything), or use PostgreSQL"
            )
    return given


def shown(url: str | None) -> str:
    """A storage's URL without its password."""
    return "memory (the ledger keeps everything)" if url is None else make_url(url).render_as_string(hide_password=True)


def network_file_system(folder: Path) -> str | None:
    """The kind of the network file system that a folder lies on; None on a local one."""
    folder = folder.absolute()
    best, kind = "", ""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            before, _, after = line.partition(" - ")
            mount = before.split()[4]
            if folder.is_relative_to(mount) and len(mount) >= len(best):
                best, kind = mount, after.split()[0]
    return kind if kind.startswith(NETWORK) else None


def open_study(
    url: str | None, name: str, directions: Sequence[str], trials: Sequence[Trial], earlier: Sequence[FrozenTrial], *,
    widened: bool = False, own: bool = True, mark: str = "",
) -> tuple[optuna.Study, list[str]]:  # fmt: skip
    """Open or create the study and make it agree with the ledger.

    Args:
        url: of :func:`storage_url`
        name: of the study
        directions: ``maximize`` or ``minimize``, one an objective
        trials: the ledger's searched trials
        earlier: finished trials of another study to start from; in front of this study's own
        widened: whether its parameters have other values to choose from than before, and it has to be made again
        own: whether the storage is the sweep's own file; in any other, other people keep their studies
        mark: tells this sweep's study from one of the same name

    Returns:
        the study, and what had to be mended.

    Raises:
        UserError: the storage cannot be reached, or the study in it is another sweep's.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = Path(str(make_url(url).database)) if own and url is not None else None
    fitting, remarks = _fitting(trials, len(directions))
    taken = [trial.number for trial in trials]
    try:
        found = _opened(url, path, name, directions, fitting, earlier)
        if widened and found.study.get_trials(deepcopy=False):
            found = Opened(found.study, disagrees=True, missing=True)
    except Locked as error:
        remarks.append(f"{shown(url)}: {error}: the study is kept in memory this time; the ledger has everything")
        found = _opened(None, None, name, directions, fitting, earlier)
    except Exception as error:
        if path is None:
            if isinstance(error, SQLAlchemyError):
                raise _refused(url, error) from error
            raise
        found = None  # a damaged file fails in any way; nothing is in it that the ledger lacks
    if found is None or (found.disagrees and path is not None and _only_ours(found.study)):
        assert path is not None
        aside = set_aside(path, "broken")
        for rest in ("-wal", "-shm"):
            path.with_name(path.name + rest).unlink(missing_ok=True)
        why = "has other values to choose from" if widened else "is damaged or not what the ledger says"
        remarks.append(f"{path.name} {why}; it is kept as {aside.name}")
        found = Opened(_created(url, name, directions, own), disagrees=False, missing=True)
    elif found.disagrees:
        _refuse_theirs(url, found.study, fitting, mark)
        optuna.delete_study(study_name=name, storage=found.study._storage)
        found = Opened(_created(url, name, directions, own), disagrees=False, missing=True)
    study = found.study
    known = {trial.number for trial in study.get_trials(deepcopy=False)}
    if not found.missing and not known.issuperset(taken):  # their numbers must not be given to new ones
        for frozen in _rebuilt([], max(known, default=-1) + 1, taken):
            study.add_trial(frozen)
    if found.missing:
        for frozen in [*earlier, *_rebuilt(fitting, len(earlier), taken)]:
            study.add_trial(frozen)
        if trials and url is not None:
            remarks.append(f"the study was rebuilt from the ledger: {len(trials)} trials")
    _agree(study, fitting, len(earlier))
    if not own and study.user_attrs.get(MARK) is None:
        study.set_user_attr(MARK, mark)
    return study, remarks


@dataclass(frozen=True)
class Opened:
    """A study as it was found."""

    study: optuna.Study
    disagrees: bool
    """it tells something else than the ledger"""
    missing: bool
    """it lacks trials of the ledger"""


class Locked(Exception):
    """Another process holds a SQLite file for longer than one waits."""


def _opened(
    url: str | None, path: Path | None, name: str, directions: Sequence[str], trials: Sequence[Trial],
    earlier: Sequence[FrozenTrial],
) -> Opened:  # fmt: skip
    """Open or create a study and compare it; a file that is locked for a moment is waited for.

    Raises:
        Locked: it stays so.
    """
    until = time.monotonic() + PATIENCE
    while True:
        try:
            if path is not None:
                _check(path)
            study = _created(url, name, directions, path is not None)
            known = study.get_trials(deepcopy=False)
        except Exception as error:
            if "database is locked" not in f"{error} {error.__cause__}":
                raise
            if time.monotonic() > until:
                raise Locked("it is locked by another process") from error
            time.sleep(0.5)
        else:
            missing = _disagrees(known, trials, earlier) or (path is not None and _has_others(known, trials, earlier))
            return Opened(study, missing and bool(known), missing)


def _only_ours(study: optuna.Study) -> bool:
    """Whether a storage holds no study but this one."""
    return [found.study_name for found in study._storage.get_all_studies()] == [study.study_name]


def _refuse_theirs(url: str | None, study: optuna.Study, trials: Sequence[Trial], mark: str) -> None:
    """Leave a study alone that only has the same name: another sweep's, by its mark, or by all of its trials.

    Raises:
        UserError: it is one.
    """
    theirs = study.user_attrs.get(MARK)
    frozen = {trial.number: trial.params for trial in study.get_trials(deepcopy=False)}
    common = any(frozen.get(trial.number) == trial.params for trial in trials)
    if theirs not in (None, mark) or (theirs is None and not common):
        raise UserError(
            f"hydra.sweeper.storage {shown(url)}: its study {study.study_name} belongs to another sweep; give this one "
            "another name with hydra.sweeper.study_name="
        )


def _fitting(trials: Sequence[Trial], objectives: int) -> tuple[list[Trial], list[str]]:
    """Trials that Optuna takes, and why it does not take the others: their records were edited."""
    fitting, remarks = [], []
    for trial in trials:
        try:
            if trial.state == COMPLETE and len(trial.values or ()) != objectives:
                raise ValueError(f"values is {trial.values}, not of {objectives} objectives")
            frozen_trial(trial)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            why = (str(error).splitlines() or [""])[0]
            remarks.append(f"{trial.folder}: not shown to the sampler: {why}")
        else:
            fitting.append(trial)
    return fitting, remarks


def forget(url: str, name: str, mark: str) -> None:
    """Remove a sweep's study from a database where it does not lie in the sweep's own folder; none there is fine.

    Raises:
        UserError: the storage cannot be reached.
    """
    try:
        storage = _storage(url)
        if optuna.load_study(study_name=name, storage=storage).user_attrs.get(MARK) in (None, mark):
            optuna.delete_study(study_name=name, storage=storage)
    except KeyError:
        pass
    except SQLAlchemyError as error:
        raise _refused(url, error) from error


def _refused(url: str | None, error: SQLAlchemyError) -> UserError:
    return UserError(f"hydra.sweeper.storage {shown(url)}: {str(error).splitlines()[0]}")


def _created(url: str | None, name: str, directions: Sequence[str], own: bool) -> optuna.Study:
    study = optuna.create_study(
        study_name=name, storage=_storage(url, own), load_if_exists=True,
        directions=[StudyDirection[direction.upper()] for direction in directions],
    )  # fmt: skip
    found = [direction.name.lower() for direction in study.directions]
    if found != list(directions):
        raise UserError(f"study {name}: was created with direction {found}, now asked for {list(directions)}")
    return study


def _storage(url: str | None, own: bool = False) -> BaseStorage:
    if url is None:
        return InMemoryStorage()
    try:
        storage = RDBStorage(url)
    except ImportError as error:
        raise UserError(f"hydra.sweeper.storage {shown(url)}: needs a driver: {str(error).splitlines()[0]}") from error
    if own:
        event.listen(storage.engine, "connect", _quick)  # this engine only: others share the process
        storage.engine.dispose()
    return storage


def _quick(connection: sqlite3.Connection, _: Any) -> None:
    """SQLite without waiting for the disk: a view that the ledger can rebuild needs no more."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=OFF")


def _check(path: Path) -> None:
    """Let SQLite look for damage.

    Raises:
        sqlite3.DatabaseError: there is some.
    """
    if path.exists():
        with contextlib.closing(sqlite3.connect(path)) as connection:
            (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(found)


def _disagrees(frozen: Sequence[FrozenTrial], trials: Sequence[Trial], earlier: Sequence[FrozenTrial]) -> bool:
    """Whether the study lacks trials that the ledger has, or tells something else of them."""
    known = {trial.number: trial for trial in frozen}
    return len(known) < len(earlier) or any(
        trial.number not in known or _differs(known[trial.number], trial) for trial in trials
    )


def _has_others(frozen: Sequence[FrozenTrial], trials: Sequence[Trial], earlier: Sequence[FrozenTrial]) -> bool:
    """Whether the study has results that neither the ledger nor the study it started from knows."""
    known = {*range(len(earlier)), *(trial.number for trial in trials)}
    return any(t.state == TrialState.COMPLETE and t.number not in known and SAME not in t.user_attrs for t in frozen)


def _differs(frozen: FrozenTrial, trial: Trial) -> bool:
    """Whether Optuna's trial has other parameters, or another result; that it was not told yet is no difference."""
    told = frozen.state.is_finished() and trial.ended
    complete = frozen.state == TrialState.COMPLETE
    return frozen.params != trial.params or (
        told and (complete != (trial.state == COMPLETE) or (complete and frozen.values != trial.values))
    )


def _rebuilt(trials: Sequence[Trial], first: int, taken: Sequence[int]) -> list[FrozenTrial]:
    """Optuna's trials from the ledger's, by number; one that is not among them becomes a failed trial."""
    by_number = {trial.number: trial for trial in trials}
    numbers = range(first, max(taken, default=first - 1) + 1)
    return [frozen_trial(by_number[n]) if n in by_number else create_trial(state=TrialState.FAIL) for n in numbers]


def frozen_trial(trial: Trial) -> FrozenTrial:
    """Optuna's trial for one of the ledger."""
    return create_trial(
        state=STATES.get(trial.state, TrialState.RUNNING),
        values=trial.values if trial.state == COMPLETE else None,
        params=trial.params,
        distributions={key: json_to_distribution(text) for key, text in trial.distributions.items()},
        intermediate_values=dict(read_reports(trial.unit_folder(0))),
        user_attrs=user_attributes(trial),
    )


def user_attributes(trial: Trial) -> dict[str, Any]:
    """What the dashboard and samplers may want to know of a trial besides its values."""
    about: dict[str, Any] = {"ledger": trial.folder.name, "overrides": " ".join(trial.overrides)}
    if trial.reason:
        about["reason"] = trial.reason
    if trial.constraints:
        about[CONSTRAINTS] = trial.constraints
    return about


def _agree(study: optuna.Study, trials: Sequence[Trial], first: int) -> None:
    """Tell the study what ended while it was not told."""
    known = {trial.number: trial for trial in trials}
    for frozen in study.get_trials(deepcopy=False):
        trial = known.get(frozen.number)
        if trial is not None and trial.ended and not frozen.state.is_finished() and frozen.number >= first:
            tell(study, trial)


def never_written(study: optuna.Study, trials: Sequence[Trial]) -> list[int]:
    """Numbers of trials that a driver asked for and was killed before it wrote them down."""
    known = {trial.number for trial in trials}
    return [t.number for t in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)) if t.number not in known]


def waiting(study: optuna.Study) -> bool:
    """Whether a point is queued in the study that no driver has taken: one was killed in that moment."""
    return bool(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))


def tell(study: optuna.Study, trial: Trial) -> None:
    """Tell the study how a trial ended."""
    handle = handle_of(study, trial.number)
    for key, value in user_attributes(trial).items():
        handle.set_user_attr(key, value)
    state = STATES[trial.state]
    if trial.state == PRUNED and len(study.directions) > 1:
        state = TrialState.FAIL  # Optuna has no pruned trials of several objectives
    values = trial.values if state == TrialState.COMPLETE else None
    study.tell(handle, values=values, state=state, skip_if_finished=True)


SAME = "same_as"
"""User attribute of Optuna's trial: number of the trial whose result it took; the ledger has no such trial."""


def same_as(study: optuna.Study, number: int, twin: Trial) -> None:
    """Give a trial that need not run the result of its twin; one that is not complete has none to give."""
    handle = handle_of(study, number)
    handle.set_user_attr(SAME, twin.number)
    if twin.constraints:
        handle.set_user_attr(CONSTRAINTS, twin.constraints)
    complete = twin.state == COMPLETE
    study.tell(
        handle, values=twin.values if complete else None, state=STATES[COMPLETE if complete else FAILED]
    )  # fmt: skip


def _identity(study: optuna.Study, number: int) -> int:
    return int(study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number))


def handle_of(study: optuna.Study, number: int) -> optuna.trial.Trial:
    """Optuna's running trial: to report to, and to ask for parameters or whether it should be pruned."""
    return optuna.trial.Trial(study, _identity(study, number))
