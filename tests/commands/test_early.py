"""Ctrl-C before a command has imported what it needs."""

from __future__ import annotations

import sys

import pytest

from recyclelora.commands import early


@pytest.mark.parametrize("script", ["here/predict.py", "bin/recyclelora", "bin/recyclelora-inspect-data"])
def test_ctrl_c_during_imports_is_one_line(script: str, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script])
    monkeypatch.setattr(sys, "excepthook", lambda *_: print("traceback", file=sys.stderr))
    early.watch()
    by_import = RuntimeError("Error calling __set_name__")
    by_import.__cause__ = KeyboardInterrupt()
    for error in (KeyboardInterrupt(), by_import):
        sys.excepthook(type(error), error, None)
        assert capsys.readouterr().err.endswith(": stopped by Ctrl-C\n")
    sys.excepthook(ValueError, ValueError("a fault"), None)
    assert capsys.readouterr().err == "traceback\n"


def test_programs_that_call_the_package_keep_their_tracebacks(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["here/my_study.py"])
    before = sys.excepthook
    early.watch()
    assert sys.excepthook is before
