"""The lock, the bill of materials and the audit say the same, and leave nothing unchecked."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

from recyclelora.config.compose import home

PIN = re.compile(r"^([\w.-]+)==(\S+)[^\n]*\\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.M)
PROJECT = tomllib.loads((home() / "pyproject.toml").read_text())
MALICIOUS = {
    ("lightning", "2.6.2"),
    ("lightning", "2.6.3"),
    ("pytorch-lightning", "2.6.2"),
    ("pytorch-lightning", "2.6.3"),
}


def plain(name: str) -> str:
    """A package's name as indexes compare them."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(file: str) -> dict[str, str]:
    return {plain(name): version for name, version, _ in PIN.findall((home() / "requirements" / file).read_text())}


LOCK, RUN = pins("lock.txt"), pins("run.txt")


@pytest.mark.parametrize("file", ["lock.txt", "run.txt"])
def test_every_line_of_a_lock_is_a_pin_with_hashes(file: str):
    text = (home() / "requirements" / file).read_text()
    rest = PIN.sub("", text)
    assert not [line for line in rest.splitlines() if line and not line.startswith("#")]
    assert len(pins(file)) == len(PIN.findall(text))


def test_what_the_project_asks_for_is_locked():
    extras = PROJECT["project"]["optional-dependencies"]
    names = {plain(re.match(r"[\w.-]+", need)[0]) for need in PROJECT["project"]["dependencies"]}
    by_extra = {name: {plain(re.match(r"[\w.-]+", need)[0]) for need in needs} for name, needs in extras.items()}
    assert by_extra.pop("all") == {"recyclelora"}
    assert names.union(*by_extra.values()) <= LOCK.keys()
    in_image = ("decoders", "sweep", "mlflow", "weights", "export", "postgres", "build")
    assert names.union(*(by_extra[name] for name in in_image)) <= RUN.keys()
    assert all(f"--extra {name} " in (home() / "Makefile").read_text() for name in in_image)
    assert not {"pytest", "mypy", "bandit", "playwright"} & RUN.keys()  # an image needs no tools of development


@pytest.mark.parametrize("lock", [LOCK, RUN], ids=["lock.txt", "run.txt"])
def test_a_lock_holds_what_its_packages_need(lock: dict[str, str]):
    """Installed without dependencies, a package that the lock forgets would be missing."""
    installed = {plain(found.name): found for found in distributions()}
    assert len(installed.keys() & lock.keys()) > 100
    for name in installed.keys() & lock.keys():
        if installed[name].version != lock[name]:
            continue
        for need in map(Requirement, installed[name].requires or []):
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                assert need.specifier.contains(lock[plain(need.name)], prereleases=True), f"{name} needs {need}"


def test_the_image_has_the_versions_that_were_tested():
    assert RUN.items() <= LOCK.items()


def test_malicious_releases_are_in_no_lock_and_in_no_later_one():
    assert not MALICIOUS & (LOCK.items() | RUN.items())
    excluded = PROJECT["tool"]["uv"]["constraint-dependencies"]
    for name, version in MALICIOUS:
        assert any(line.startswith(f"{name}!=") and f"!={version}" in line for line in excluded)


def test_the_bill_of_materials_is_that_of_the_lock(tmp_path: Path):
    pytest.importorskip("cyclonedx_py")
    recipe = re.search(r"^sbom:.*\n((?:.*\\\n)*.*)", (home() / "Makefile").read_text(), re.M)[1].replace("\\\n", " ")
    command = recipe.replace("$(BIN)/cyclonedx-py", f"{sys.executable} -m cyclonedx_py")
    command = command.replace("sbom.json", str(tmp_path / "sbom.json")) + " --no-validate"  # which takes minutes
    subprocess.run(shlex.split(command), cwd=home(), check=True, capture_output=True, timeout=120)
    sbom = json.loads((tmp_path / "sbom.json").read_text())
    assert sbom["bomFormat"] == "CycloneDX"
    assert {plain(c["name"]): c["version"] for c in sbom["components"]} == LOCK
    hashes = [h for c in sbom["components"] for r in c["externalReferences"] for h in r["hashes"]]
    assert len(hashes) == (home() / "requirements/lock.txt").read_text().count("--hash=sha256:")


@pytest.fixture
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", home() / "requirements/audit.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CLEAN = {"name": "a", "version": "1", "vulns": []}
BAD = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]}
UNKNOWN = {"name": "c", "skip_reason": "Dependency not found"}


@pytest.mark.parametrize(
    ("packages", "code", "words"),
    [
        ([CLEAN], 0, "1 of 1 packages audited, 0 with"),
        ([CLEAN, BAD], 1, "b 2: PYSEC-1; fixed in: 3"),
        ([CLEAN, UNKNOWN], 1, "the database does not know: c"),
        ([UNKNOWN], 0, "WARNING: not audited"),  # nothing was checked: said plainly, and no clean bill
    ],
)
def test_an_audit_is_judged_by_what_was_really_checked(audit, capsys, packages, code, words):
    assert audit.verdict(packages) == code
    assert words in capsys.readouterr().out
