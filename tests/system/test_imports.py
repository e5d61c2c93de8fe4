from __future__ import annotations

import gc
import importlib
import subprocess
import sys

import pytest

from recyclelora.system.imports import left_out, quick_imports


def test_a_package_that_is_left_out_is_missing_inside_and_there_afterwards():
    sys.modules.pop("colorsys", None)
    with left_out("colorsys"), pytest.raises(ImportError):
        importlib.import_module("colorsys")
    assert importlib.import_module("colorsys") is sys.modules["colorsys"]


def test_what_was_imported_before_stays():
    with left_out("json"):
        assert sys.modules["json"] is importlib.import_module("json")
    assert "json" in sys.modules


def test_nothing_is_collected_while_modules_are_imported_and_what_they_hold_is_not_looked_at_again():
    sys.modules.pop("colorsys", None)
    frozen = gc.get_freeze_count()
    with quick_imports():
        importlib.import_module("colorsys")
        assert not gc.isenabled()
    assert gc.isenabled() and gc.get_freeze_count() > frozen
    gc.unfreeze()


def test_where_all_was_imported_before_nothing_is_kept_from_the_collector():
    frozen = gc.get_freeze_count()
    with quick_imports():
        importlib.import_module("json")
    assert gc.isenabled() and gc.get_freeze_count() == frozen


def test_a_collector_that_the_user_has_stopped_stays_so():
    gc.disable()
    try:
        with quick_imports():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.slow
def test_a_command_that_has_imported_torch_ends_without_a_word():
    code = "from recyclelora.system.imports import quick_imports\nwith quick_imports(): import torch, torch._dynamo"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
