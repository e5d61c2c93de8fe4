from __future__ import annotations

import pytest

from recyclelora.system.devices import check_launched_processes
from recyclelora.system.errors import UserError


def test_torchrun_must_start_as_many_processes_as_were_asked_for(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "4")
    check_launched_processes(devices=2, num_nodes=2)
    with pytest.raises(UserError, match=r"torchrun started 4 processes, but .* asks for 2"):
        check_launched_processes(devices=2, num_nodes=1)


def test_without_torchrun_nothing_is_compared(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "4")
    check_launched_processes(devices=1, num_nodes=1)
