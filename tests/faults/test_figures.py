"""Every figure of docs/reliability.md, in small; `make faults` counts them in full."""

from __future__ import annotations

import shutil

import cold_start
import corruptions
import crash_points
import driver_kills
import hostile
import kills
import page
import pytest
import ranks
import refusals
import resume
import soak
from slurm_cluster import needs_slurm

straced = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")


@pytest.mark.slow
def test_killed_runs_end_as_if_nothing_had_happened():
    found = kills.measure(seed=1, count=8, saves=4)
    t = found["training"]
    assert (t["kills"], t["unreadable"], t["lost_beyond_interval"], t["failed"]) == (8, 0, 0, 0)
    assert t["identical"] == 8
    assert found["saving"]["recyclelora"]["unreadable"] == 0


@pytest.mark.slow
@straced
def test_no_fault_at_any_write_leaves_a_bad_state():
    found = crash_points.measure(seed=0, count=9)
    assert found["faults"] >= 20
    assert {name: p["what"] for name, p in found["protocols"].items() if p["what"]} == {}
    synced = {name for name, p in found["protocols"].items() if not p["renamed_before_synced"]}
    assert synced >= {"checkpoint", "result", "metrics log", "run directory", "partial scores", "factor cache"}


@straced
def test_the_harness_sees_a_write_that_is_not_safe():
    found = crash_points.measure(seed=0, count=1, protocols=(crash_points.STOCK,))["stock"]["torch.save in place"]
    assert found["bad_states"] > 0


@pytest.mark.slow
def test_killed_drivers_whose_trials_pause_or_race_repeat_and_lose_nothing():
    pausing = driver_kills.until(2, driver_kills.one_pausing, None, seed=0, longest=3.0)
    assert pausing["kills"] == 2 and pausing["others"] == pausing["begun_after_their_end"] == 0
    assert (pausing["trials"], pausing["right_best"]) == (27 * pausing["sweeps"], pausing["sweeps"])
    racing = driver_kills.until(2, driver_kills.one_race, None, seed=0, longest=3.0)
    assert racing["kills"] == 2 and racing["complete"] == racing["runs"] and racing["begun_after_their_end"] == 0
    assert racing["same_verdicts"] == racing["sweeps"]


@pytest.mark.slow
def test_a_run_goes_on_from_any_step_with_and_without_workers():
    found = resume.measure(seed=2, count=1)
    assert found["0 workers"] == found["2 workers"] == {"resumed": 1, "identical": 1}


@pytest.mark.slow
def test_damage_is_noticed_by_name():
    found = corruptions.measure(seed=3, count=24)
    c = found["checkpoints"]
    assert c["detected_by_name"] == c["previous_used"] == c["damaged"] == 24
    assert found["both_damaged"]["refused"] == found["both_damaged"]["damaged"] > 0
    assert found["resumed_bit_identical"]
    assert not [name for name, p in found["caches"].items() if p["wrong_without_a_word"]]
    assert found["studies"]["rebuilt"] == found["studies"]["damaged"] == 4


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sixteen_starts_at_once_on_nothing():
    found = cold_start.measure(seed=0, count=1, stock_rounds=0)
    assert (found["processes"], found["failed"], found["mlflow_runs_missing"]) == (16, 0, 0)
    sweeps = found["one_sweep"]
    assert (sweeps["commands"], sweeps["failed"], sweeps["exactly_4_complete"]) == (16, 0, 1)


@pytest.mark.slow
def test_a_killed_and_a_stopped_process_end_the_other():
    found = ranks.measure(seed=4, count=2)
    assert found["killed"]["hangs"] == found["stopped"]["hangs"] == 0
    assert found["killed"]["tracebacks"] == found["stopped"]["tracebacks"] == 0


@pytest.mark.slow
def test_mistakes_and_defects_are_named():
    found = refusals.measure(seed=5, count=60)
    for part in ("keys_and_values", "shapes_and_patterns"):
        assert found[part]["what"] == {}
    assert found["keys_and_values"]["with_torch"] == 0
    assert found["data_defects"]["missed"] == []
    assert found["drawn_configurations"]["what"] == {}


@pytest.mark.slow
def test_nothing_hostile_executes_and_no_secret_is_written():
    found = hostile.measure(seed=6, count=8)
    assert found["what"] == {} and found["executed"] == found["escaped"] == 0
    assert found["secrets"]["what"] == [] and found["secrets"]["files_searched"] > 10


@pytest.mark.slurm
@needs_slurm()
@pytest.mark.timeout(300)
def test_sweeps_on_a_cluster_that_fails_all_the_time_lose_nothing():
    found = soak.measure(minutes=0.7, seed=1)
    assert sum(found["faults"].values()) >= 3
    for name in ("driver lives", "driver is killed"):
        sweep = found[name]
        assert sweep["what"] == [] and sweep["begun_after_their_end"] == 0
        assert sweep["healthy_right"] == sweep["healthy"] > 0 and sweep["reasons_right"] == sweep["sabotaged"]
    assert found["jobs_left"] == found["processes_left"] == 0


def test_the_page_says_what_the_figures_say():
    assert page.PAGE.read_text() == page.page()
