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


def test_what_cannot_be_built_is_refused_before_data_are_looked_at(make_config, gta2city, monkeypatch, tmp_path):
    monkeypatch.setattr("recyclelora.system.extras.importlib.util.find_spec", lambda package: None)
    with pytest.raises(UserError, match=r"decoder=dpt needs the package segmentation_models_pytorch: .*\[decoders\]"):
        prepare(make_config(*TINY, "decoder=dpt"))
    with pytest.raises(UserError, match=r"allowed are 1 to"):
        prepare(make_config(*TINY, "decoder=linear", "adapter.main.rank=4000"))
    assert not (tmp_path / "outputs").exists()


def test_warnings_of_the_model_are_lines(make_config, gta2city, capsys):
    prepare(make_config(*TINY, "decoder=linear", "adapter.main.rank=31", "adapter.sub.rank=4"))
    said = capsys.readouterr()
    assert "warning: blocks.0" in said.out and "OverlapWarning" not in said.err + said.out


def test_broken_data_stop_the_preparation(make_config, gta2city):
    (gta2city / "gta/images/00003.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"errors in the data:\n.*unreadable image: images/00003\.png"):
        prepare(make_config(*OPTIONS))
