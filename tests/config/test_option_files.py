"""A stranger's option file sets values and does nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from recyclelora.config.compose import commanding, home, register_schemas
from recyclelora.config.option_files import READABLE, TRUSTED, allow_reading, place_chosen_by
from recyclelora.system.errors import UserError
from recyclelora.system.plugins import installed

GLOBAL = "# @package _global_\n"


@pytest.fixture
def stranger(tmp_path: Path):
    """Compose ``train`` with the content of an option file of somebody else's."""

    def composed(text: str, *overrides: str, name: str = "experiment/theirs", header: str = GLOBAL) -> DictConfig:
        path = tmp_path / "theirs" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(header + text)
        register_schemas()
        group, _, option = name.rpartition("/")
        with initialize_config_dir(str(home() / "conf")):
            return compose(
                "train", [f"hydra.searchpath=[file://{home()},file://{tmp_path / 'theirs'}]", f"{group}={option}",
                          *overrides], return_hydra_config=True,
            )  # fmt: skip

    return composed


ACTS = {
    "hydra.job.env_set.GIT_CONFIG_COUNT": "hydra: {job: {env_set: {GIT_CONFIG_COUNT: '1'}}}",
    "hydra.job.env_copy": "hydra: {job: {env_copy: [HF_TOKEN]}}",
    "hydra.job": "evil: {env_set: {A: b}}\nhydra: {job: '${evil}'}",
    "hydra.job_logging.handlers.file.filename":
        "hydra: {job_logging: {handlers: {file: {class: logging.FileHandler, filename: /tmp/x}}}}",
    "hydra.hydra_logging.root.level": "hydra: {hydra_logging: {root: {level: INFO}}}",
    "hydra.callbacks.a._target_": "hydra: {callbacks: {a: {_target_: os.system}}}",
    "hydra.output_subdir": "hydra: {output_subdir: ..}",
    "hydra.launcher.setup": "hydra: {launcher: {setup: [touch /tmp/x]}}",
    "hydra.launcher.python": "hydra: {launcher: {python: /tmp/x}}",
    "hydra.launcher.additional_parameters.wrap": "hydra: {launcher: {additional_parameters: {wrap: id}}}",
    "hydra.sweeper.storage": "hydra: {sweeper: {storage: 'postgresql://evil/x'}}",
    "hydra.sweeper.warm_start": "hydra: {sweeper: {warm_start: 'postgresql://evil/x'}}",
    "hydra.sweeper.params": "hydra: {sweeper: {params: {hydra.job.env_set.A: 'choice(b)'}}}",
    "hydra.sweeper.points": "hydra: {sweeper: {points: {a: [' ++hydra.job.env_set.A=1']}}}",
    "hydra.sweeper.points ": "part: ydra.job.env_set.A=1\nhydra: {sweeper: {points: {a: ['h${part}']}}}",
    "hydra.sweeper.points  ": "other: [hydra.job.env_set.A=1]\nhydra: {sweeper: {points: {a: '${other}'}}}",
    "hydra.sweeper.enqueue": "hydra: {sweeper: {enqueue: [{fresh: true}]}}",
    "fresh": "fresh: true",
    "tracking.uri": "tracking: {uri: 'https://evil.example'}",
}  # fmt: skip


@pytest.mark.parametrize("key", ACTS)
def test_what_acts_is_refused_by_file_and_key(stranger, tmp_path, key):
    with pytest.raises(UserError) as error:
        stranger(ACTS[key])
    text = str(error.value)
    assert text.startswith(f"{tmp_path}/theirs/experiment/theirs.yaml: ") and f"{key.strip()}: an option file" in text
    assert f"export {TRUSTED}={tmp_path}/theirs/experiment/theirs.yaml" in text and "\n" not in text


def test_no_package_hides_a_key(stranger, tmp_path):
    with pytest.raises(UserError, match=r"hydra\.job\.env_set\.A"):
        stranger("env_set: {A: b}", header="# @package hydra.job\n")
    (tmp_path / "theirs/parts").mkdir()
    (tmp_path / "theirs/parts/part.yaml").write_text("A: b\n")
    with pytest.raises(UserError, match=r"parts/part\.yaml: hydra\.job\.env_set\.A"):
        stranger("defaults: [/parts@hydra.job.env_set: part]")
    with pytest.raises(UserError, match=r"launcher/theirs\.yaml: hydra\.launcher\.setup"):
        stranger("defaults: [slurm]\nsetup: [id]", name="hydra/launcher/theirs", header="")


def test_a_file_that_the_user_trusts_may_act(stranger, tmp_path, monkeypatch):
    monkeypatch.setenv(TRUSTED, f"/nowhere:{tmp_path}/theirs/hydra")
    monkeypatch.setenv("CLUSTER_TOKEN", "abcdefgh")
    text = "defaults: [slurm]\nsetup: [module load cuda]\ncomment: '${oc.env:CLUSTER_TOKEN}'"
    launcher = stranger(text, name="hydra/launcher/ours", header="").hydra.launcher
    assert (launcher.setup, launcher.comment) == (["module load cuda"], "abcdefgh")
    with pytest.raises(UserError, match="env_set"):
        stranger(ACTS["hydra.job.env_set.GIT_CONFIG_COUNT"])


def test_values_are_as_free_as_ever(stranger):
    config = stranger(
        "seed: 5\ntracking: {mlflow: false}\nhydra:\n  run: {dir: out}\n  launcher: {timeout_min: 3}\n  sweeper:\n"
        "    n_trials: 4\n    params: {seed: 'range(3)'}\n    points: {a: [adapter=lora]}\n"
    )
    assert (config.seed, config.hydra.launcher.timeout_min, config.hydra.sweeper.n_trials) == (5, 3, 4)


def test_secrets_of_the_environment_are_read_for_the_users_own_command_line_only(stranger, monkeypatch):
    monkeypatch.setenv("MY_TOKEN", "abcdefgh")
    monkeypatch.setenv("DATA", "/data")
    monkeypatch.delenv(READABLE, raising=False)
    config = stranger("study: '${oc.env:MY_TOKEN}'\ndata: {root: '${oc.env:DATA}'}\ninit_from: '${oc.env:NONE,x}'")
    assert (config.data.root, config.init_from) == ("/data", "x")
    with pytest.raises(OmegaConfBaseException, match="may not read what looks like a secret"):
        _ = config.study
    with pytest.raises(OmegaConfBaseException, match="secret"):  # put together from pieces
        _ = stranger("init_from: MY_\nstudy: '${oc.env:${init_from}TOKEN}'").study
    monkeypatch.setenv(READABLE, "")
    allow_reading(["study=${oc.env:MY_TOKEN}"])
    assert stranger("seed: 1", "study=${oc.env:MY_TOKEN}").study == "abcdefgh"


def test_who_says_where_a_sweep_lies_is_remembered(stranger, tmp_path):
    stranger("seed: 1")
    assert place_chosen_by() is None
    theirs = tmp_path / "theirs/experiment/theirs.yaml"
    for text in ("output_dir: /somewhere", "study: ../up", "study: '${output_dir}'", "hydra: {sweep: {dir: /some}}"):
        stranger(text)
        assert place_chosen_by() == theirs, text
    for text, *overrides in (("study: mine",), ("output_dir: /somewhere", "output_dir=/mine"), ("seed: 2",)):
        stranger(text, *overrides)
        assert place_chosen_by() is None, text


def test_the_command_line_refuses_in_one_line_before_anything_happens(tmp_path):
    (tmp_path / "theirs/experiment").mkdir(parents=True)
    (tmp_path / "theirs/own").mkdir()
    marker = tmp_path / "was here"
    (tmp_path / "theirs/experiment/evil.yaml").write_text(
        f"{GLOBAL}hydra: {{job_logging: {{version: 1, handlers: {{f: {{class: logging.FileHandler, filename: '{marker}'"
        "}}, root: {handlers: [f], level: INFO}}}\n"
    )
    (tmp_path / "theirs/primary.yaml").write_text(f"hydra: {{searchpath: ['pkg://evil'], run: {{dir: {tmp_path}}}}}\n")
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil/__init__.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    for arguments, key in (
        (["experiment=evil"], "hydra.job_logging"),
        (["-m", "seed=1,2", "experiment=evil"], "hydra.job_logging"),
        (["--config-name", "primary"], "hydra.searchpath"),
    ):
        command = [sys.executable, "-m", "recyclelora.train", "--config-dir", str(tmp_path / "theirs"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=os.environ, check=False)
        assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1), done.stderr
        assert key in done.stderr and TRUSTED in done.stderr
        assert not marker.exists() and not (tmp_path / "outputs").exists()


def test_an_account_has_a_home_where_the_environment_has_none(monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("RECYCLELORA_CACHE", raising=False)
    register_schemas()
    with initialize_config_dir(str(home() / "conf")):
        assert compose("train").cache == f"{Path.home()}/.cache/recyclelora"


def test_what_a_terminal_cannot_show_ends_nothing(tmp_path):
    command = [sys.executable, "-m", "recyclelora.train", "study=na\u00efve/\u2192"]
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr and "\\u2192" in done.stderr


def test_a_copy_of_the_first_releases_own_file_composes_and_searches_nowhere_else(tmp_path):
    register_schemas()
    own = '${with_plugins:"file://${oc.env:RECYCLELORA_HOME}"}'
    text = (home() / "conf/train.yaml").read_text().replace("hydra:\n", f"hydra:\n  searchpath: {own}\n")
    for searched in (own, own.replace("oc.env:RECYCLELORA_HOME", "oc.env:HOME"), "[file:///tmp]"):
        (tmp_path / "mine.yaml").write_text(text.replace(own, searched))
        with commanding(), initialize_config_dir(str(tmp_path)):
            if searched == own:
                assert compose("mine").seed == 0
            else:
                with pytest.raises(UserError, match=r"hydra\.searchpath: an option file may not"):
                    compose("mine")


def test_installed_packages_are_looked_up_once_however_many_files(stranger, monkeypatch):
    scans = []
    installed.cache_clear()
    monkeypatch.setattr("recyclelora.system.plugins.entry_points", lambda group: scans.append(group) or [])
    stranger("seed: 1")
    stranger("seed: 2")
    assert scans.count("recyclelora.conf") == 1
    installed.cache_clear()
