"""What ``prepare.py`` leaves is what a run needs: nothing is computed twice."""

from __future__ import annotations

import pytest
from conftest import TINY

from recyclelora.commands.prepare import prepare
from recyclelora.system.cache import KINDS, inventory
from recyclelora.system.errors import UserError
from recyclelora.training.run import Run

OPTIONS = [*TINY, "decoder=linear", "data.decode_cache=1", "data.rare_classes.temperature=0.01"]


def test_a_prepared_run_decodes_counts_and_decomposes_nothing(make_config, gta2city, monkeypatch, tmp_path):
    config = make_config(*OPTIONS)
    prepare(config)
    assert (tmp_path / "outputs/inspect/gta2city/index.html").is_file()
    assert inventory(tmp_path / "cache").keys() <= set(KINDS)  # `clear all` finds whatever runs write

    def again(*arguments: object) -> None:
        pytest.fail("done again")

    monkeypatch.setattr("recyclelora.data.datasets.base.read_image", again)
    monkeypatch.setattr("recyclelora.data.rare_classes.ClassCounts.count", again)
    monkeypatch.setattr("recyclelora.adapters.linalg.factorize._decompose", again)
    assert Run.identify(config, None).execute() is not None


def test_broken_data_stop_the_preparation(make_config, gta2city):
    (gta2city / "gta/images/00003.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"errors in the data:\n.*unreadable image: images/00003\.png"):
        prepare(make_config(*OPTIONS))
