"""Optuna's study agrees with the ledger, whatever became of its file."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution, distribution_to_json
from optuna.exceptions import StorageInternalError

from recyclelora.sweep.ledger import COMPLETE, FAILED, Ledger
from recyclelora.sweep.storage import forget, storage_url
from recyclelora.sweep.study import open_study, tell
from recyclelora.sweep.view import View
from recyclelora.system.errors import UserError

TEXT = distribution_to_json(FloatDistribution(0.0, 9.0))


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Five ended trials of x -> x^2, the last of which failed."""
    for number in range(5):
        trial = Ledger(tmp_path).add(number, {"x": number + 0.5}, [], [[]], {"x": TEXT})
        trial.end(COMPLETE, values=[(number + 0.5) ** 2]) if number < 4 else trial.end(FAILED, reason="nan")
    return tmp_path


def opened(sweep: Path) -> tuple[list[tuple[float, str, list[float] | None]], list[str]]:
    study, remarks = open_study(storage_url(None, sweep), "mine", ["maximize"], Ledger(sweep).trials(), [])
    return [(trial.params["x"], trial.state.name, trial.values) for trial in study.get_trials()], remarks


WANTED = [(n + 0.5, "COMPLETE", [(n + 0.5) ** 2]) for n in range(4)] + [(4.5, "FAIL", None)]


def test_it_is_made_from_the_ledger_and_then_left_alone(sweep: Path):
    assert opened(sweep) == (WANTED, ["the study was rebuilt from the ledger: 5 trials"])
    assert opened(sweep) == (WANTED, [])
    assert [path.name for path in sweep.glob("study.db*broken*")] == []


def test_its_file_is_a_groups_where_the_umask_says_so(sweep: Path):
    before = os.umask(0o007)
    try:
        opened(sweep)
    finally:
        os.umask(before)
    assert (sweep / "study.db").stat().st_mode & 0o777 == 0o660


DAMAGE = {
    "a value": "UPDATE trial_values SET value = 7 WHERE trial_id = 2",
    "a parameter": "UPDATE trial_params SET param_value = 7 WHERE trial_id = 2",
    "a state": "UPDATE trials SET state = 'FAIL' WHERE trial_id = 2",
    "no state at all": "UPDATE trials SET state = 'GONE' WHERE trial_id = 2",
    "a distribution": "UPDATE trial_params SET distribution_json = 'x' WHERE trial_id = 2",
    "a trial": "DELETE FROM trials WHERE trial_id = 2",
    "the study": "DELETE FROM studies",
    "a table": "DROP TABLE trial_params",
}


@pytest.mark.parametrize("sql", DAMAGE.values(), ids=DAMAGE)
def test_it_is_rebuilt_when_it_tells_something_else(sweep: Path, sql: str):
    opened(sweep)
    with sqlite3.connect(sweep / "study.db") as connection:
        connection.execute(sql)
    connection.close()
    trials, remarks = opened(sweep)
    assert trials == WANTED
    assert remarks[-1] == "the study was rebuilt from the ledger: 5 trials"


def test_results_of_a_sweep_that_was_set_aside_are_forgotten(sweep: Path):
    opened(sweep)
    for number in (3, 4):
        shutil.rmtree(sweep / f"ledger/{number:04d}")
    trials, remarks = opened(sweep)
    assert trials == WANTED[:3] and remarks[-1] == "the study was rebuilt from the ledger: 3 trials"


def test_a_file_that_is_cut_off_is_kept_aside(sweep: Path):
    opened(sweep)
    path = sweep / "study.db"
    path.write_bytes(path.read_bytes()[:20_000])
    trials, remarks = opened(sweep)
    assert trials == WANTED
    assert len(list(sweep.glob("study.db.broken-*"))) == 1 and "is damaged" in remarks[0]


def test_a_trial_that_was_not_told_yet_is_told(sweep: Path):
    late = Ledger(sweep).add(5, {"x": 5.5}, [], [[]], {"x": TEXT})
    assert opened(sweep)[0] == [*WANTED, (5.5, "RUNNING", None)]
    late.end(COMPLETE, values=[30.25])
    assert opened(sweep) == ([*WANTED, (5.5, "COMPLETE", [30.25])], [])


def test_a_file_of_the_same_name_with_other_peoples_studies_stays_where_it_is(sweep: Path, tmp_path: Path):
    """A team keeps all its studies in a file that happens to be called study.db; ours is mended, theirs are there."""
    (tmp_path / "team").mkdir()
    url = f"sqlite:///{tmp_path}/team/study.db"
    theirs = optuna.create_study(study_name="theirs", storage=url)
    theirs.add_trial(optuna.create_trial(value=1.0))
    for _ in range(2):
        study, remarks = open_study(url, "mine", ["maximize"], Ledger(sweep).trials(), [], own=False, mark="a")
        assert len(study.get_trials()) == 5
        with sqlite3.connect(tmp_path / "team/study.db") as connection:
            connection.execute("UPDATE trial_values SET value = 7 WHERE trial_id = 3")
        connection.close()
    assert remarks == ["the study was rebuilt from the ledger: 5 trials"]
    assert [path.name for path in (tmp_path / "team").iterdir()] == ["study.db"]
    assert optuna.load_study(study_name="theirs", storage=url).best_value == 1.0
    with pytest.raises(UserError, match="its study mine belongs to another sweep; give this one another name"):
        open_study(url, "mine", ["maximize"], Ledger(sweep).trials(), [], own=False, mark="b")
    forget(url, "mine", "b")
    assert len(optuna.load_study(study_name="mine", storage=url).trials) == 5
    forget(url, "mine", "a")
    assert optuna.get_all_study_names(url) == ["theirs"]


def test_a_file_that_somebody_locks_is_not_renamed(sweep: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("recyclelora.sweep.study.PATIENCE", 0.1)
    with contextlib.closing(sqlite3.connect(sweep / "study.db")) as holding:
        holding.execute("BEGIN EXCLUSIVE")
        trials, remarks = opened(sweep)
    assert trials == WANTED and "locked by another process: the study is kept in memory this time" in remarks[0]
    assert opened(sweep) == (WANTED, ["the study was rebuilt from the ledger: 5 trials"])
    assert not list(sweep.glob("study.db.broken-*"))


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ({"params": {"x": 99.0}}, "99.0"),
        ({"params": {"x": "much"}}, "much"),
        ({"distributions": {"x": "{}"}}, ""),
        ({"distributions": {}}, ""),
    ],
)
@pytest.mark.parametrize("number", [1, 4])
def test_a_trial_that_was_edited_is_not_shown_to_the_sampler_and_keeps_its_number(
    sweep: Path, edit: dict, words: str, number: int
):
    path = sweep / f"ledger/{number:04d}/trial.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | edit))
    for _ in range(2):
        study, remarks = open_study(storage_url(None, sweep), "mine", ["maximize"], Ledger(sweep).trials(), [])
        assert f"{number:04d}: not shown to the sampler: " in remarks[0] and words in remarks[0]
    assert len(remarks) == 1 and study.ask().number == 5
    assert [trial.state.name for trial in study.get_trials()][number] == "FAIL"


class Screen:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def test_a_study_that_is_overwritten_while_it_is_used_goes_on_in_memory(sweep: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("recyclelora.sweep.view.PATIENCE", 0.1)
    study, _ = open_study(storage_url(None, sweep), "mine", ["maximize"], Ledger(sweep).trials(), [])
    screen = Screen()

    def rebuild() -> optuna.Study:
        return open_study(None, "mine", ["maximize"], Ledger(sweep).trials(), [])[0]

    view = View(study, rebuild, screen.say, lambda: False)
    assert view.use(lambda: study.ask().number, -1) == 5
    for rest in ("", "-wal", "-shm"):
        (sweep / f"study.db{rest}").write_bytes(b"\0" * 40_000)
    assert view.use(lambda: study.ask().number, -1) == 5  # the one before is not in the ledger
    assert [t.values for t in study.get_trials()[:4]] == [wanted[2] for wanted in WANTED[:4]]
    assert "goes on in memory; the ledger has everything" in screen.lines[-1]


def test_a_shared_database_is_waited_for_until_it_is_back_or_the_driver_is_to_end():
    study, screen, calls = optuna.create_study(), Screen(), [0]

    def fails_twice() -> int:
        calls[0] += 1
        if calls[0] < 3:
            raise StorageInternalError("An exception is raised during the commit.") from OSError("server closed")
        return 7

    monkey = pytest.MonkeyPatch()
    monkey.setattr("recyclelora.sweep.view.LONGEST_PAUSE", 0.05)
    try:
        assert View(study, optuna.create_study, screen.say, lambda: False, shared=True).use(fails_twice, -1) == 7
        assert screen.lines == [
            "the study's storage does not answer, and is waited for: server closed",
            "the study's storage answers again",
        ]
        calls[0] = 0
        assert View(study, optuna.create_study, screen.say, lambda: True, shared=True).use(fails_twice, -1) == -1
    finally:
        monkey.undo()


def test_a_call_that_got_through_though_its_answer_was_lost_is_made_again(sweep: Path, monkeypatch: pytest.MonkeyPatch):
    """What a database does that ends between its commit and its answer."""
    study, _ = open_study(storage_url(None, sweep), "mine", ["maximize"], Ledger(sweep).trials(), [])
    number = study.ask({"x": FloatDistribution(0.0, 9.0)}).number
    trial = Ledger(sweep).add(number, study.trials[number].params, [], [[]], {"x": TEXT})
    trial.end(COMPLETE, values=[9.0])
    commit, lost = study._storage.set_trial_state_values, [StorageInternalError("no answer")]

    def without_answer(*arguments: object, **more: object) -> bool:
        done = commit(*arguments, **more)
        if lost:
            raise lost.pop()
        return done

    monkeypatch.setattr(study._storage, "set_trial_state_values", without_answer)
    monkeypatch.setattr("recyclelora.sweep.view.LONGEST_PAUSE", 0.01)
    View(study, optuna.create_study, Screen().say, lambda: False, shared=True).use(lambda: tell(study, trial), None)
    assert not lost and study.trials[number].values == [9.0]


def test_a_folder_may_have_any_name(tmp_path: Path):
    for name in ("a?b", "50%41 {x}", "c#d"):
        trial = Ledger(tmp_path / name).add(0, {"x": 0.5}, [], [[]], {"x": TEXT})
        trial.end(COMPLETE, values=[0.25])
        for remarks in (["the study was rebuilt from the ledger: 1 trials"], []):
            assert opened(tmp_path / name) == ([(0.5, "COMPLETE", [0.25])], remarks)
        assert (tmp_path / name / "study.db").is_file()
    assert len(list(tmp_path.iterdir())) == 3
