"""What a command says in one line."""

from __future__ import annotations

import warnings

from recyclelora.commands.clear_line import one_clear_line


def test_warnings_for_users_are_lines_without_a_place_in_the_code():
    usual = warnings.formatwarning
    with one_clear_line("train"):
        assert warnings.formatwarning("no room", UserWarning, "f.py", 3) == "warning: no room\n"
        assert warnings.formatwarning("old", DeprecationWarning, "f.py", 3).startswith("f.py:3: ")
    assert warnings.formatwarning is usual
