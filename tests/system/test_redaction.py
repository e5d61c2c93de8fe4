from __future__ import annotations

import pytest

from recyclelora.runs.record import command_line
from recyclelora.system.redaction import redacted


def test_passwords_of_addresses_go_and_the_rest_stays():
    assert (
        redacted("postgresql://me:hunter2@db/x and http://host:5000/a")
        == "postgresql://me:***@db/x and http://host:5000/a"
    )
    assert redacted("tracking.uri=http://me:passwd@host:5000/x") == "tracking.uri=http://***@host:5000/x"
    assert redacted("postgresql://me@db/x git@host:x/y http://host/a@b") == (
        "postgresql://me@db/x git@host:x/y http://host/a@b"
    )


def test_a_token_as_user_name_or_in_a_query_goes():
    assert redacted("at https://ghp_0123456789@host/x, and more") == "at https://***@host/x, and more"
    assert redacted("https://host/x?run=3&access_token=abc&y=1 https://host?Key=a") == (
        "https://host/x?run=3&access_token=***&y=1 https://host?Key=***"
    )


@pytest.mark.parametrize("name", ["HF_TOKEN", "MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY", "wandb_api_key"])
def test_what_secret_variables_hold_goes(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(name, "hunter2-and-more")
    monkeypatch.setenv("EDITOR", "vim-and-more")
    assert redacted("a hunter2-and-more vim-and-more") == "a *** vim-and-more"


def test_short_values_blot_out_no_words(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SECRET", "run")
    assert redacted("a run") == "a run"


def test_the_command_that_runs_and_sweeps_write_down_has_no_password(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        "sys.argv", ["/a/train.py", "-m", "hydra.sweeper.storage=postgresql://me:hunter2@db/x", "a=b c"]
    )
    assert command_line() == "train.py -m hydra.sweeper.storage=postgresql://me:***@db/x 'a=b c'"
