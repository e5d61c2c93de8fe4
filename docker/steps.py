"""The steps of docker/Dockerfile, run one by one in a new Debian root where there is no Docker engine.

    sudo python3 docker/steps.py --root /var/tmp/recyclelora-root --then 'recyclelora-train experiment=demo'

`debootstrap` stands in for the base image. Every stage that the target needs is run in the same root, in the order of
the file: RUN with its variables in a chroot, COPY of what .dockerignore lets through, COPY --from as a check that the
path is there. Needs root, debootstrap, and the network that an image's build needs.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SUITE = "bookworm"
PASSED_ON = re.compile(r"(?i).*_proxy|PIP_.*|SSL_CERT_FILE")
"""Variables of a builder's own machine, which an engine would pass on too."""


@dataclass
class Stage:
    """One FROM and what follows it: (instruction, text) each."""

    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    @property
    def needed(self) -> list[str]:
        """Names of the stages that this one starts from or copies from."""
        copied = [
            match[1] for kind, text in self.steps if kind == "COPY" and (match := re.match(r"--from=(\S+)", text))
        ]
        return [self.base, *copied]


def parse(dockerfile: Path) -> dict[str, Stage]:
    """The stages of a Dockerfile by name."""
    stages: dict[str, Stage] = {}
    lines = [line for line in dockerfile.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for step in re.sub(r"\s*\\\n\s*", " ", "\n".join(lines)).splitlines():
        kind, _, text = step.partition(" ")
        if kind == "FROM":
            base, _, name = text.partition(" AS ")
            stages[name] = stage = Stage(name, base)
        elif stages:
            stage.steps.append((kind, text))
    return stages


def order(stages: dict[str, Stage], target: str) -> list[Stage]:
    """The stages that a target needs, each after those that it needs itself."""
    found: dict[str, Stage] = {}

    def add(name: str) -> None:
        if name in stages and name not in found:
            for needed in stages[name].needed:
                add(needed)
            found[name] = stages[name]

    add(target)
    return list(found.values())


def let_through(source: str, dockerignore: str) -> bool:
    """Whether .dockerignore, which leaves out everything but some paths, lets a path into the build."""
    kept = [line[1:] for line in dockerignore.splitlines() if line.startswith("!")]
    return any(source == path or source.startswith(path + "/") for path in kept)


class DebianRoot:
    """A Debian root in a folder, with the state that a Dockerfile's instructions change."""

    def __init__(self, folder: Path, binds: list[str]) -> None:
        self.folder = folder
        self.binds = binds
        self.environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
        self.environment |= {k: v for k, v in os.environ.items() if PASSED_ON.fullmatch(k)}
        self.workdir = "/"
        self.user = "root"
        self.left: dict[str, tuple[dict[str, str], str, str]] = {}
        """What each stage ended with: variables, working directory, user."""

    def begin(self, stage: Stage) -> None:
        """Take over what the stage's base ended with."""
        if stage.base in self.left:
            self.environment, self.workdir, self.user = self.left[stage.base]

    def end(self, stage: Stage) -> None:
        """Remember what later stages start from."""
        self.left[stage.name] = (self.environment, self.workdir, self.user)

    def bootstrap(self) -> None:
        """What the base image has: Debian with Python."""
        packages = "python3,python3-venv,ca-certificates"
        command = ["debootstrap", "--variant=minbase", f"--include={packages}", SUITE, str(self.folder)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
        for name in ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt"):
            if Path(name).exists():
                shutil.copyfile(name, self.inside(name))

    def inside(self, path: str) -> Path:
        """A path of the root as seen from outside."""
        return self.folder / os.path.normpath("/" + path).lstrip("/")

    def apply(self, kind: str, text: str) -> None:
        """Do what one instruction says."""
        match kind:
            case "RUN":
                self.run(re.sub(r"--mount=\S+\s*", "", text))
            case "COPY" if text.startswith("--from="):
                path = text.split()[1]
                assert self.inside(path).exists(), f"{path} was not made by an earlier stage"
            case "COPY":
                self.copy(*text.split())
            case "ENV" | "ARG":
                given = dict(pair.partition("=")[::2] for pair in shlex.split(text))
                self.environment = given | self.environment if kind == "ARG" else self.environment | given
            case "WORKDIR":
                self.workdir = text
                self.inside(text).mkdir(parents=True, exist_ok=True)
            case "USER":
                self.user = text

    def copy(self, source: str, target: str, *more: str) -> None:
        """COPY of files, of a folder's content, or of several files into a folder."""
        *sources, target = [source, target, *more]
        for name in sources:
            assert let_through(name, (ROOT / ".dockerignore").read_text()), f".dockerignore leaves {name} out"
            to = self.inside(target) / (Path(name).name if target.endswith("/") else "")
            to.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, to, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
            else:
                shutil.copyfile(ROOT / name, to)

    def run(self, command: str) -> None:
        """A shell line in the root, with /proc and /dev for as long as it runs."""
        mounts = [f"mount -t proc proc {self.folder}/proc", f"mount --rbind /dev {self.folder}/dev"]
        for path in self.binds:
            self.inside(path).mkdir(parents=True, exist_ok=True)
            mounts.append(f"mount --bind {shlex.quote(path)} {shlex.quote(str(self.inside(path)))}")
        variables = " ".join(shlex.quote(f"{name}={value}") for name, value in self.environment.items())
        enter = (
            f"exec chroot --userspec={self.user} {self.folder} env -i {variables} "
            f"sh -c {shlex.quote(f'cd {self.workdir} && {command}')}"
        )
        lines = "\n".join([*mounts, enter])
        subprocess.run(["unshare", "--mount", "sh", "-ec", lines], check=True)  # noqa: S603, S607


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="cuda")
    parser.add_argument("--root", type=Path, required=True, help="a folder that does not exist yet; it is left there")
    parser.add_argument("--bind", action="append", default=[], help="a folder of this machine to show inside")
    parser.add_argument("--then", help="a command to run at the end, as the image's user")
    asked = parser.parse_args()
    if asked.root.exists():
        parser.error(f"{asked.root} exists")
    root = DebianRoot(asked.root, asked.bind)
    began = time.monotonic()
    root.bootstrap()
    print(f"{time.monotonic() - began:6.0f} s  debootstrap {SUITE}", flush=True)
    for stage in order(parse(ROOT / "docker/Dockerfile"), asked.target):
        root.begin(stage)
        for kind, text in stage.steps:
            began = time.monotonic()
            root.apply(kind, text)
            print(f"{time.monotonic() - began:6.0f} s  {stage.name}: {kind} {text[:90]}", flush=True)
        root.end(stage)
    if asked.then:
        began = time.monotonic()
        root.run(asked.then)
        print(f"{time.monotonic() - began:6.0f} s  as {root.user}: {asked.then}", flush=True)


if __name__ == "__main__":
    main()
