"""The race of a sweep in its report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recyclelora.config.commands import ReportConfig
from recyclelora.reports.comparison import compare
from recyclelora.reports.race_section import evidence, table
from recyclelora.reports.records import read_sweep
from recyclelora.reports.writing import write_report
from recyclelora.sweep.attempts import Attempt
from recyclelora.sweep.ledger import now, read_trial
from recyclelora.system.progress import Reporter

from .sweeps import run_name, write_run, write_study, write_trial

QUALITY = {"frozen": 0.6, "lora": 0.7, "soma": 0.601}
CHANCE = [0.012, -0.01, 0.004, -0.006, 0.009, -0.011, 0.002, 0.007]


def raced_sweep(sweep: Path, references: list[str]) -> Path:
    """Three adapters on eight seeds; soma is as good as frozen, lora much better."""
    race = {"references": references, "on": "miou.mean", "alpha": 0.05, "higher": True}
    write_study(sweep, n_trials=3, created="2026-01-01T00:00:00+0000", race=race, race_seeds=8)
    for number, (name, quality) in enumerate(QUALITY.items()):
        count = 6 if name == "lora" else 8
        dirs = tuple(f"{run_name(number, 'confirm')}/seed_{seed}" for seed in range(count))
        for seed, path in enumerate(dirs):
            shift = CHANCE[(seed + number) % 8] + CHANCE[(3 * seed) % 8]
            changes = {"adapter.name": name, "adapter.kind": "frozen" if name == "frozen" else "low_rank"}
            write_run(sweep / path, seed, quality + shift, changes)
        folder = write_trial(sweep, number, {"adapter": name}, values=[0.5], run_dirs=dirs, kind="confirm")
        trial = read_trial(folder)
        trial.attempts = [Attempt(unit, 1, "job", now(), now()) for unit in range(count)]
        trial.save_state()
    return sweep


def test_a_race_decides_in_place_of_the_tests_for_fixed_numbers_of_seeds(tmp_path: Path):
    c = compare(read_sweep(raced_sweep(tmp_path / "sweep", ["frozen"])), "last", None, 0)
    assert c.reference is not None and c.reference.name == "adapter=frozen"
    assert c.reference_reason == "the reference of the race"
    verdicts = {d.group.name: (d.verdict, d.race.seeds if d.race else None) for d in c.differences}
    assert verdicts == {"adapter=lora": ("better", 6), "adapter=soma": ("undecided", 8)}
    assert c.winner.startswith("Against adapter=frozen: better adapter=lora; undecided adapter=soma.")


def test_the_report_of_a_race_shows_standings_and_evidence(tmp_path: Path):
    sweep = raced_sweep(tmp_path / "sweep", ["frozen"])
    folder = write_report(ReportConfig(sweep=str(sweep), resamples=0), Reporter())
    text = (folder / "table.md").read_text()
    assert "better than adapter=frozen, decided after 6 seeds" in text and "undecided against adapter=frozen" in text
    assert "looking after every seed" not in text and (folder / "figures/evidence.png").exists()
    assert not (folder / "figures/differences.png").exists()
    assert "whatever the others" in (folder / "report.html").read_text()
    assert '6,"better than adapter=frozen, decided after 6 seeds"' in (folder / "table.csv").read_text()


def test_labels_stand_for_the_entrants_of_a_race(tmp_path: Path):
    sweep = raced_sweep(tmp_path / "sweep", ["frozen"])
    labels = ["frozen: Frozen (no adapter)", "lora: LoRA", "soma: SoMA"]
    folder = write_report(ReportConfig(sweep=str(sweep), resamples=0, labels=labels), Reporter(enabled=False))
    for name in ("table.md", "report.html"):
        text = (folder / name).read_text()
        assert "better than Frozen (no adapter), decided after 6 seeds" in text
        assert "Against Frozen (no adapter): better LoRA; undecided SoMA." in text
        assert text.count("minus Frozen (no adapter)") == 1
    assert "LoRA is adapter=lora" in (folder / "table.md").read_text()
    assert "better than adapter=frozen" in (folder / "table.csv").read_text()


def test_a_race_for_the_best_names_one_only_when_it_is_decided(tmp_path: Path):
    sweep = raced_sweep(tmp_path / "sweep", ["best"])
    c = compare(read_sweep(sweep), "last", None, 0)
    assert c.winner.startswith("adapter=lora is the best, decided after 6 seeds")
    assert {d.verdict for d in c.differences} == {"worse"}
    about = json.loads((sweep / "study.json").read_text())
    about["race"]["alpha"] = 1e-9
    (sweep / "study.json").write_text(json.dumps(about))
    assert compare(read_sweep(sweep), "last", None, 0).winner.startswith("No best yet: undecided between adapter=lora")


def test_a_race_that_has_just_begun_has_no_evidence_yet(tmp_path: Path):
    sweep = write_study(tmp_path / "sweep", n_trials=2, created="2026-01-01T00:00:00+0000", race_seeds=8,
                        race={"references": ["frozen"], "on": "miou.mean", "alpha": 0.05, "higher": True})  # fmt: skip
    for number, name in enumerate(("frozen", "lora")):
        write_trial(sweep, number, {"adapter": name}, state="running", kind="confirm")
    c = compare(read_sweep(sweep), "last", None, 0)
    assert evidence(c) is None and c.winner.startswith("Against adapter=frozen: undecided adapter=lora.")
    assert [row[1].text for row in table(c).rows] == ["0", "0"]


def test_a_reference_of_ones_own_is_compared_as_raced(tmp_path: Path):
    c = compare(read_sweep(raced_sweep(tmp_path / "sweep", ["frozen"])), "last", "soma", 0)
    assert c.reference is not None and c.reference.name == "adapter=soma"
    assert pytest.approx(0.1, abs=0.05) == next(d for d in c.differences if "lora" in d.group.name).scores[
        "mean of targets"
    ].mean  # fmt: skip
    assert {d.group.name: d.verdict for d in c.differences} == {
        "adapter=frozen": "undecided", "adapter=lora": "not compared in the race"
    }  # fmt: skip


def test_two_references_are_compared_whichever_is_looked_at(tmp_path: Path):
    """The race has lora against frozen only one way round."""
    sweep = raced_sweep(tmp_path / "sweep", ["lora", "frozen"])
    for reference, verdict in {"lora": ("adapter=frozen", "worse"), "frozen": ("adapter=lora", "better")}.items():
        c = compare(read_sweep(sweep), "last", reference, 0)
        assert verdict in [(d.group.name, d.verdict) for d in c.differences]
    rows = {row[0].text: [cell.text[:1] for cell in row[3:5]] for row in table(c).rows}
    assert {tuple(sorted(signs)) for name, signs in rows.items() if name != "adapter=soma"} == {("+", "–"), ("-", "–")}
