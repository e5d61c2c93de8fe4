from __future__ import annotations

import pytest

from recyclelora.provenance import command_line
from recyclelora.redaction import redacted


def test_passwords_of_addresses_go_and_the_rest_stays():
    text = "tracking.uri=http://me:pass/wd@host:5000/x"
    assert (
        redacted("postgresql://me:hunter2@db/x and http://host:5000/a")
        == "postgresql://me:***@db/x and http://host:5000/a"
    )
    assert redacted(text.replace("/wd", "wd")) == "tracking.uri=http://me:***@host:5000/x"


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
