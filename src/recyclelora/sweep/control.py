"""Looking at a sweep, and steering it, from any shell."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from recyclelora.runs.unit import CANCELLED, Unit
from recyclelora.sweep.cost import cost_of
from recyclelora.sweep.ledger import FAILED, PAUSED, Ledger
from recyclelora.sweep.race.reading import read_race
from recyclelora.sweep.race.rules import conclusion
from recyclelora.sweep.record import read_study
from recyclelora.sweep.steering import living, request_trials
from recyclelora.sweep.table import COLUMNS, count_states, paused_in_words, race_table, running_rows
from recyclelora.system.errors import UserError
from recyclelora.system.next_steps import as_typed_here, next_steps, typed_as
from recyclelora.system.progress import screen, shown


def status(sweep: Path) -> None:
    """Print how a sweep stands."""
    ledger, console = Ledger(sweep), screen()
    trials = ledger.trials()
    for remark in ledger.remarks:
        console.print(remark)
    about = read_study(sweep)
    assert about is not None
    counts = ", ".join(f"{number} {state}" for state, number in count_states(trials).items() if number)
    console.print(f"{about.get('name', sweep.name)}: {counts or 'nothing yet'} of {about['n_trials']}")
    raced = read_race(sweep)
    console.print(f"cost: {cost_of(trials, about['n_trials'], raced)}")
    driver = ", ".join(living(sweep)) or "none runs"
    console.print(f"driver: {driver}")
    if paused := paused_in_words(trials):
        console.print(paused)
    if running := running_rows(trials):
        table = Table(*COLUMNS)
        for row in running:
            table.add_row(*row)
        console.print(table)
    if raced is not None and raced[1]:
        console.print(race_table(*raced, "race"))
        console.print(conclusion(*raced))
    for trial in trials:
        if trial.state == FAILED:
            console.print(f"failed: trial {trial.number} ({trial.what}): {trial.reason}")
    steps = [("compare the trials", typed_as("report", f"sweep={shown(sweep)}"))]
    if living(sweep):
        steps.append(("stop a trial", typed_as("sweep", "cancel", shown(sweep), "<number>")))
    elif len(trials) < about["n_trials"] or any(not trial.ended for trial in trials):
        steps.append(("go on with it", as_typed_here(about["command"])))
    console.print(next_steps(*steps))


def cancel(sweep: Path, numbers: list[int]) -> None:
    """Ask trials to stop, at their next step or in the queue; they count as failed, for having been cancelled.

    Raises:
        UserError: there is no such trial, or it has ended.
    """
    trials = {trial.number: trial for trial in Ledger(sweep).trials() if not trial.ended}
    unknown = [number for number in numbers if number not in trials]
    if unknown:
        raise UserError(f"{sweep}: trial {unknown[0]} is not running; running: {', '.join(map(str, trials)) or 'none'}")
    # what is paused takes no place: a sweep that is cancelled can be taken up again where it was
    asked = numbers or [number for number, trial in trials.items() if trial.state != PAUSED]
    for number in asked:
        for unit in range(len(trials[number].units)):
            Unit(trials[number].unit_folder(unit)).ask_to_stop(CANCELLED)
    if not numbers:
        request_trials(sweep, 0, _asked(sweep))
    print(f"asked {len(asked)} trials to stop" + ("" if numbers else "; no new ones are started"))
    print(next_steps(("see how it stands", typed_as("sweep", "status", shown(sweep)))))


def extend(sweep: Path, n_trials: int) -> None:
    """Tell the driver, or the next one, how many trials there shall be.

    Raises:
        UserError: the number makes no sense.
    """
    about = read_study(sweep)
    if n_trials < 1:
        raise UserError(f"{n_trials}: at least one trial")
    if about and about.get("sampler", "") is None and n_trials != (every := about["n_trials"]):
        raise UserError(
            f"{sweep}: a grid has the {every} trials of its values; give {as_typed_here(about['command'])} further "
            f"values, or take a cancel back with {every}"
        )
    request_trials(sweep, n_trials, _asked(sweep))
    drivers = living(sweep)
    command = as_typed_here(about["command"]) if about else "its command"
    who = f"the driver ({', '.join(drivers)}) goes on" if drivers else f"no driver runs; {command} goes on"
    screen().print(f"{who} to {n_trials} trials")
    screen().print(next_steps(("see how it stands", typed_as("sweep", "status", shown(sweep)))))


def _asked(sweep: Path) -> int:
    """How many trials the sweep's command asked for."""
    about = read_study(sweep)
    return about["n_trials"] if about else 0
