"""The container files, as far as they can be checked without a Docker engine."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from mlflow_server import free_port
from postgresql import database, postgresql  # noqa: F401
from waiting import wait_for

from recyclelora.config.compose import home

DOCKER = home() / "docker"
COMPOSE = (DOCKER / "compose.yaml").read_text()


@pytest.fixture(scope="module")
def steps() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docker_steps", DOCKER / "steps.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def stages(steps: ModuleType) -> dict[str, Any]:
    return steps.parse(DOCKER / "Dockerfile")


def filled(text: str, values: dict[str, str]) -> str:
    """Variables of a compose file replaced as Compose does."""
    return re.sub(r"\$\{(\w+)(?::-([^}]*))?\}", lambda m: values.get(m[1], m[2] if m[2] is not None else ""), text)


def services() -> dict[str, Any]:
    return yaml.safe_load(filled(COMPOSE, {}))["services"]


def test_targets_end_as_an_unprivileged_numeric_user_and_install_by_hash(stages):
    for target in ("cuda", "cpu", "mlflow"):
        users = [text for kind, text in stages[target].steps if kind == "USER"]
        assert users == ["1000:1000"]
    installs = [(s.name, t) for s in stages.values() for kind, t in s.steps if kind == "RUN" and "pip install" in t]
    for stage, text in installs:
        by_hash, local = "--require-hashes" in text, "--no-index /dist" in text
        assert "--no-deps" in text and (by_hash or local or stage == "torch-cpu"), text


def test_the_project_comes_last_so_that_its_changes_rebuild_little(steps, stages):
    names = [stage.name for stage in steps.order(stages, "cuda")]
    assert names == ["base", "pins", "torch-cuda", "packages", "project", "cuda"]
    copied = {text for name in names[:-2] for kind, text in stages[name].steps if kind == "COPY"}
    assert not [text for text in copied if text.startswith(("src", "conf", "pyproject"))]


def test_a_stage_starts_with_what_its_base_ended_with(steps, stages, tmp_path: Path):
    root = steps.DebianRoot(tmp_path, [])
    for name in ("base", "pins", "packages"):
        root.begin(stages[name])
        for kind, text in stages[name].steps:
            if kind in ("ENV", "ARG", "WORKDIR", "USER"):
                root.apply(kind, text)
        root.end(stages[name])
    assert root.left["pins"][1] == "/pins" and root.left["packages"][1] == "/workspace"
    assert root.environment["DATA_ROOT"] == "/data" and root.user == "root"


def test_what_is_copied_exists_and_passes_dockerignore(steps, stages):
    ignore = (home() / ".dockerignore").read_text()
    for stage in stages.values():
        for kind, text in stage.steps:
            if kind == "COPY" and not text.startswith("--from"):
                for source in text.split()[:-1]:
                    assert (home() / source).exists() and steps.let_through(source, ignore), source
    assert not any(
        steps.let_through(name, ignore) for name in (".git", "outputs", "data", "docker/secrets", "docker/.env")
    )


def test_the_lock_is_split_without_a_loss(tmp_path: Path):
    lock = home() / "requirements/run.txt"
    subprocess.run(["awk", "-f", str(DOCKER / "split_lock.awk"), str(lock)], cwd=tmp_path, check=True)
    torch, rest = ((tmp_path / name).read_text() for name in ("torch.txt", "packages.txt"))
    body = [line for line in lock.read_text().splitlines() if not line.startswith("#")]
    assert sorted([*torch.splitlines(), *rest.splitlines()]) == sorted(body)
    names = set(re.findall(r"^([\w-]+)==", torch, re.M))
    assert {"torch", "torchvision", "triton", "nvidia-cublas"} <= names
    assert not [n for n in re.findall(r"^([\w-]+)==", rest, re.M) if n.startswith(("nvidia", "cuda", "torch"))]
    versions = (tmp_path / "torch_versions.txt").read_text().split()
    assert [v.split("==")[0] for v in versions] == ["torch", "torchvision"]


def test_the_compose_file_is_valid_and_a_mistake_is_not():
    compose = pytest.importorskip("compose_spec").PyCompose
    text = filled(COMPOSE, {})
    merged = yaml.safe_dump({k: v for k, v in yaml.safe_load(text).items() if not k.startswith("x-")})
    assert set(compose.from_yaml(merged).to_spec().services) == {"database", "mlflow", "train", "train-cpu"}
    with pytest.raises(ValueError, match="prots"):
        compose.from_yaml(merged.replace("ports:", "prots:"))


def test_every_variable_has_a_default_or_an_example():
    example = set(re.findall(r"^(\w+)=", (DOCKER / ".env.example").read_text(), re.M))
    for name, default in re.findall(r"\$\{(\w+)(:-[^}]*)?\}", COMPOSE):
        assert default or name in example, name
    assert example <= set(re.findall(r"\$\{(\w+)", COMPOSE))


def test_services_are_locked_down():
    every = services()
    for name, service in every.items():
        assert service["read_only"] is True, name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert "privileged" not in service
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name
    assert [name for name, service in every.items() if "ports" in service] == ["mlflow"]
    assert every["database"]["networks"] == ["records"]
    assert yaml.safe_load(COMPOSE)["networks"]["records"]["internal"] is True


def test_no_secret_is_in_an_environment_or_a_command():
    every = services()
    for service in every.values():
        for key, value in service.get("environment", {}).items():
            assert "PASSWORD" not in key or (key.endswith("_FILE") and value.startswith("/run/secrets/"))
    assert every["database"]["secrets"] == every["mlflow"]["secrets"] == ["database_password"]
    ignored = subprocess.run(["git", "check-ignore", "docker/secrets/database_password", "docker/.env"], cwd=home(),
                             capture_output=True, text=True)  # fmt: skip
    if (home() / ".git").exists():
        assert len(ignored.stdout.split()) == 2


def test_the_apptainer_file_takes_the_same_steps():
    text = (DOCKER / "apptainer.def").read_text()
    assert text.count("--require-hashes") == 2 and "--no-index /source" in text
    for source in re.findall(r"^    (\S+) /(?:pins|source)", text, re.M):
        assert (home() / source).exists()


# --- the tracking server's start script, on a real PostgreSQL ---------------------------------------------------------


def answer(port: int, host: str) -> int:
    """Status of the experiment page when asked under a host name; 0 while nothing listens."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/", headers={"Host": host})
    try:
        with urllib.request.urlopen(request, timeout=5) as found:
            return int(found.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@pytest.mark.slow
def test_mlflow_starts_on_postgresql_answers_to_its_names_and_hides_the_password(database, tmp_path: Path):
    pytest.importorskip("psycopg")
    db_port, password = database
    port = free_port()
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "DATABASE_PASSWORD_FILE": str(password), "DATABASE_HOST": f"127.0.0.1:{db_port}",
        "ARTIFACTS": str(tmp_path / "artifacts"), "LISTEN": "127.0.0.1", "PORT": str(port), "WORKERS": "1",
        "ALLOWED_HOSTS": f"localhost:{port},mlflow:5000",
    }  # fmt: skip
    log = tmp_path / "mlflow.log"
    with log.open("w") as out:
        server = subprocess.Popen(["sh", str(DOCKER / "mlflow.sh")], env=environment, stdout=out, stderr=out,
                                  start_new_session=True)  # fmt: skip
    try:
        wait_for(lambda: answer(port, f"localhost:{port}") == 200, 90)
        assert answer(port, "mlflow:5000") == 200
        assert answer(port, "evil.example:5000") == 403
        code = (
            "import mlflow; mlflow.set_experiment('e')\n"
            "with mlflow.start_run() as r: mlflow.log_metric('m', 0.5); mlflow.log_text('hello', 'a.txt')\n"
            "c = mlflow.MlflowClient(); i = r.info.run_id\n"
            "print(c.get_run(i).data.metrics, c.list_artifacts(i)[0].path)"
        )
        uri = os.environ | {"MLFLOW_TRACKING_URI": f"http://localhost:{port}"}
        done = subprocess.run([sys.executable, "-c", code], env=uri, capture_output=True, text=True, timeout=120)
        assert "{'m': 0.5} a.txt" in done.stdout, done.stderr
        seen = log.read_text() + Path(f"/proc/{server.pid}/cmdline").read_text()
        assert "p@ss" not in seen and "p%40ss" not in seen
    finally:
        os.killpg(server.pid, 15)
        server.wait(60)
