"""Hydra's own test suites for launchers, on our launcher under Hydra's sweeper, and on our sweeper itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.test_utils.launcher_common_tests import IntegrationTestSuite, LauncherTestSuite
from hydra.test_utils.test_utils import SweepTaskFunction, TSweepRunner
from omegaconf import DictConfig

from hydra_plugins.recyclelora_sweeper.launchers import LocalLauncher
from hydra_plugins.recyclelora_sweeper.sweeper import RecycleLoraSweeper
from recyclelora.sweep.ledger import Ledger


def test_hydra_discovers_both_plugins():
    assert LocalLauncher in Plugins.instance().discover(Launcher)
    assert RecycleLoraSweeper in Plugins.instance().discover(Sweeper)


@pytest.mark.parametrize("launcher_name, overrides", [("recyclelora_local", [])])
class TestOurLauncherUnderHydrasSweeper(LauncherTestSuite):
    """One job after another in the sweeper's process."""


class SweeperSuite(LauncherTestSuite):
    """The two tests of which our sweeper keeps another promise are replaced."""

    def test_failure_preserves_task_traceback(
        self, hydra_sweep_runner: TSweepRunner, launcher_name: str, overrides: list[str], tmpdir: Path
    ) -> None:
        """A failed trial ends nothing; its traceback is in the ledger, and the exit code says so at the end."""

        def fail(_: DictConfig) -> None:
            raise RuntimeError("launcher failure") from ValueError("launcher cause")

        with pytest.raises(SystemExit) as leave, sweeping(hydra_sweep_runner, launcher_name, overrides, tmpdir, fail):
            pass
        assert leave.value.code == 3
        (trial,) = Ledger(Path(tmpdir)).trials()
        outcome = trial.outcome(0)
        assert outcome is not None and trial.reason == "RuntimeError: launcher failure"
        assert "ValueError: launcher cause" in outcome["traceback"] and "in fail" in outcome["traceback"]

    def test_sweep_with_custom_resolver(
        self, hydra_sweep_runner: TSweepRunner, launcher_name: str, overrides: list[str], tmpdir: Path
    ) -> None:
        """A trial's value is a finite number."""
        with (
            pytest.raises(SystemExit),
            sweeping(hydra_sweep_runner, launcher_name, overrides, tmpdir, lambda _: "foo"),
        ):
            pass
        assert Ledger(Path(tmpdir)).trials()[0].reason == "the objective is 'foo', not a finite number"


def sweeping(
    runner: TSweepRunner, launcher: str, overrides: list[str], folder: Path, task: Callable[[DictConfig], Any]
) -> SweepTaskFunction:
    return runner(
        calling_file=None, calling_module="hydra.test_utils.a_module", task_function=task, config_path="configs",
        config_name="compose.yaml", overrides=["hydra/launcher=" + launcher, *overrides], temp_dir=folder,
    )  # fmt: skip


@pytest.mark.parametrize("launcher_name, overrides", [("recyclelora_local", ["hydra/sweeper=recyclelora"])])
class TestOurSweeper(SweeperSuite):
    """Every job in a process of its own."""


@pytest.mark.parametrize("launcher_name, overrides", [("basic", ["hydra/sweeper=recyclelora"])])
class TestOurSweeperWithALauncherItDoesNotKnow(SweeperSuite):
    """In batches."""


@pytest.mark.slow
@pytest.mark.parametrize("task_launcher_cfg, extra_flags", [({}, ["-m", "hydra/launcher=recyclelora_local"])])
class TestIntegration(IntegrationTestSuite):
    """Whole applications under Hydra's sweeper; under ours what a job prints is in its log."""
