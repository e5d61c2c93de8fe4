from __future__ import annotations

import importlib
import sys

import pytest

from recyclelora.system.extras import left_out


def test_a_package_that_is_left_out_is_missing_inside_and_there_afterwards():
    sys.modules.pop("colorsys", None)
    with left_out("colorsys"), pytest.raises(ImportError):
        importlib.import_module("colorsys")
    assert importlib.import_module("colorsys") is sys.modules["colorsys"]


def test_what_was_imported_before_stays():
    with left_out("json"):
        assert sys.modules["json"] is importlib.import_module("json")
    assert "json" in sys.modules
