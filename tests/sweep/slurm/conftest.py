"""A SLURM of three nodes for the tests of one file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_cluster import Cluster, running_cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running cluster whose jobs can import this checkout and these tests, and must not write a secret down."""
    tests = Path(__file__).parents[2]
    with pytest.MonkeyPatch.context() as patch:
        source = [str(tests.parent / "src"), str(tests), str(tests / "support"), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, source)))
        patch.setenv("API_TOKEN", "s3cr3t")
        yield from running_cluster(tmp_path_factory.mktemp("slurm") / "cluster")
