"""A run that pauses where its sweep compares it with others, and goes on when it is promoted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import TINY, stop_after

from recyclelora.runs.unit import VARIABLE, read_reports
from recyclelora.sweep.ledger import Ledger, Trial
from recyclelora.system.errors import Interrupted, Paused
from recyclelora.training import stop
from recyclelora.training.run import Run

UNTIMED = ("seconds", "seconds_per_step", "data_wait_seconds", "data_wait_share", "evaluation_share", "peak_memory_mb")


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trial:
    found = Ledger(tmp_path / "sweep").add(3, {}, [], [[]], {})
    monkeypatch.setenv(VARIABLE, str(found.unit_folder(0)))
    monkeypatch.setattr(stop, "WORD", 0.2)
    return found


def until(trial: Trial, step: int | None) -> None:
    trial.until = step
    trial.save_state()


def untimed(path: Path) -> list[dict]:
    """The lines of a file of JSON lines, or its one object, without what another hour would change."""
    text = path.read_text()
    objects = [json.loads(text)] if path.suffix == ".json" else list(map(json.loads, text.splitlines()))
    return [{key: value for key, value in each.items() if key not in (*UNTIMED, "time")} for each in objects]


def test_paused_and_promoted_it_ends_bit_identical_to_an_uninterrupted_run(
    make_config, gta2city, tmp_path, monkeypatch, trial
):
    """Pauses before any evaluation, and at one after a stop that came there; the same signature."""
    options = [*TINY, "trainer.eval_every=2", "decoder.dropout=0.1", "trainer.ema=0.1"]
    config = make_config(*options, f"output_dir={tmp_path / 'sweep'}")
    values = {}
    for step in (1, 2):
        until(trial, step)
        if step == 2:
            with monkeypatch.context() as patch:
                stop_after(patch, step)
                with pytest.raises(Interrupted, match="after step 2"):
                    Run.identify(config, None).execute()
        with pytest.raises(Paused, match=f"paused after step {step}") as paused:
            Run.identify(config, None).execute()
        values[paused.value.step] = paused.value.value
    assert list(values) == [1, 2] and all(isinstance(value, float) for value in values.values())
    until(trial, None)
    Run.identify(config, None).execute()
    (parted,) = (tmp_path / "sweep").glob("trial_0003-*")
    reports = dict(read_reports(trial.unit_folder(0)))
    assert {step: reports[step] for step in (1, 2)} == values and list(reports) == [1, 2, 4]

    monkeypatch.delenv(VARIABLE)
    Run.identify(make_config(*options, f"output_dir={tmp_path / 'whole'}"), None).execute()
    (whole,) = (tmp_path / "whole/runs").glob("*")
    assert whole.name.rpartition("-")[2] == parted.name.rpartition("-")[2]
    for name in ("adapter.safetensors", "checkpoints/step_000004/optimizer.safetensors"):
        assert (parted / name).read_bytes() == (whole / name).read_bytes()
    for name in ("result.json", "metrics.jsonl"):
        assert untimed(parted / name) == untimed(whole / name), name


def test_the_driver_may_let_it_go_on_before_it_leaves(make_config, gta2city, tmp_path, monkeypatch, trial):
    until(trial, 2)
    paused = stop.RunStop.pause

    def promoted_meanwhile(self: stop.RunStop, step: int, value: float | None) -> bool:
        until(trial, None)
        return paused(self, step, value)

    monkeypatch.setattr(stop.RunStop, "pause", promoted_meanwhile)
    config = make_config(*TINY, f"output_dir={tmp_path / 'sweep'}")
    assert Run.identify(config, None).execute() is not None
    assert [step for step, _ in read_reports(trial.unit_folder(0))] == [2, 4]
