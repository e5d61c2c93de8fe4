"""Hydra's own test suites for launchers, on our launcher under Hydra's sweeper, and on our sweeper itself."""

from __future__ import annotations

import pytest
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.test_utils.launcher_common_tests import IntegrationTestSuite, LauncherTestSuite
from hydra_plugins.recyclelora_sweeper.launchers import LocalLauncher
from hydra_plugins.recyclelora_sweeper.sweeper import RecycleLoraSweeper


def test_hydra_discovers_both_plugins():
    assert LocalLauncher in Plugins.instance().discover(Launcher)
    assert RecycleLoraSweeper in Plugins.instance().discover(Sweeper)


@pytest.mark.parametrize("launcher_name, overrides", [("recyclelora_local", [])])
class TestOurLauncherUnderHydrasSweeper(LauncherTestSuite):
    """One job after another in the sweeper's process."""


@pytest.mark.parametrize("launcher_name, overrides", [("recyclelora_local", ["hydra/sweeper=recyclelora"])])
class TestOurSweeper(LauncherTestSuite):
    """Every job in a process of its own."""


@pytest.mark.parametrize("launcher_name, overrides", [("basic", ["hydra/sweeper=recyclelora"])])
class TestOurSweeperWithALauncherItDoesNotKnow(LauncherTestSuite):
    """In batches."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "task_launcher_cfg, extra_flags", [({}, ["-m", "hydra/launcher=recyclelora_local", "hydra/sweeper=recyclelora"])]
)
class TestIntegration(IntegrationTestSuite):
    """Whole applications."""
