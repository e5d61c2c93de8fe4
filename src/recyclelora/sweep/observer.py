"""What a driver tells those who watch it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from recyclelora.sweep.ledger import COMPLETE, Trial

if TYPE_CHECKING:
    from recyclelora.sweep.driver import Driver


class Observer(Protocol):
    """Shows a person what happens."""

    def event(self, text: str) -> None:
        """Something happened that is worth a line."""
        ...

    def update(self, driver: Driver) -> None:
        """Show how things stand."""
        ...


def told(trial: Trial) -> str:
    """A trial's end in one line."""
    name = f"{'confirmation' if trial.confirms else 'trial'} {trial.number} ({trial.what})"
    if trial.state == COMPLETE:
        return f"{name}: {', '.join(f'{value:.4f}' for value in trial.values or ())}"
    return f"{name} {trial.state}: {trial.reason}"
