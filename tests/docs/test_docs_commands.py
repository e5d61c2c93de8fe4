"""Every command in the README and docs is one that exists and, where it takes a configuration, composes.

Nothing is trained and no data are opened here: what needs data is composed only. Worked examples that are run as they
are printed have tests of their own.
"""

from __future__ import annotations

import ast
import importlib.util
import itertools
import re
import shlex
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override

from recyclelora.commands.help import COMMANDS as MODULES
from recyclelora.config.compose import COMMANDS as SCHEMAS
from recyclelora.config.compose import home, register_schemas, typed
from recyclelora.sweep.command import checked_arguments

PAGES = [
    home() / "README.md", home() / "CONTRIBUTING.md", home() / "SECURITY.md", *sorted((home() / "docs").glob("*.md")),
]  # fmt: skip
SCRIPTS = tomllib.loads((home() / "pyproject.toml").read_text())["project"]["scripts"]
"""Installed command -> the function that it calls, such as ``recyclelora.commands.train:main``."""

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
RUN_ELSEWHERE = {
    "--config-dir my_conf": "test_docs_data.py, with the folder that the page describes",
    "adapter=bitfit": "test_plugins.py, with the package installed",
    "losses=": "test_seams.py, with the package installed",
    "data=gta2kitti360": "test_other_packages.py, with the package installed",
    "metrics=[frequency]": "test_extra_metrics.py, with the package installed",
}
"""Commands that need something of the user's own, and the test that runs them."""

SYSTEM = (
    "git",
    "cd",
    "source",
    "export",
    "cp",
    "mkdir",
    "chmod",
    "umask",
    "ln",
    "openssl",
    "docker",
    "apptainer",
    "sbatch",
    "if",
    "tensorboard",
    "wandb",
    "optuna-dashboard",
)
"""Programs whose lines are not this project's; a line that starts with none of the known words fails."""


def shell_lines(page: Path) -> Iterator[str]:
    """Lines of shell blocks, continued lines joined, and `python x.py ...` within text."""
    text = page.read_text()
    for language, body in FENCE.findall(text):
        if language in ("", "bash", "console", "sh"):
            for line in body.replace("\\\n", " ").splitlines():
                line = line.strip().removeprefix("$ ")
                if line.startswith(("python ", "make ", "recyclelora")) or (language and line):
                    yield line
    prose = FENCE.sub("", text)
    yield from (
        " ".join(span.split()) for span in re.findall(r"`(python [^`]+|recyclelora [^`]+|make [a-z-]+)`", prose)
    )


def help_lines() -> Iterator[str]:
    """The examples that ``recyclelora <command> --help`` shows."""
    for module in MODULES.values():
        text = ast.get_docstring(ast.parse((home() / f"src/recyclelora/commands/{module}.py").read_text()))
        yield from re.findall(r"^    (recyclelora .*)$", text or "", re.M)


def commands() -> list[str]:
    """Every different line: placeholders filled, optional parts taken, each of alternatives such as ``timm|peft``."""
    found: dict[str, None] = {}
    for line in itertools.chain(help_lines(), *map(shell_lines, PAGES)):
        line = re.sub(r"<[^<>]*>", "X", line).replace(",...", "").replace("...", "")
        line = re.sub(r" \[(\S+=[^\]]+)\]", r" \1", line)
        words = shlex.split(line, comments=True)
        words = list(itertools.dropwhile(lambda word: re.match(r"[A-Z_]+=", word), words))  # VARIABLE=value in front
        # within a container, or under srun
        inside = [at for at, (word, after) in enumerate(itertools.pairwise([*words, ""]))
                  if word in SCRIPTS and (word != "recyclelora" or after in MODULES)]  # fmt: skip
        words = words[inside[0] :] if inside else words
        for chosen in itertools.product(*map(alternatives, words)) if words else ():
            found[shlex.join(chosen)] = None
    return list(found)


def alternatives(word: str) -> list[str]:
    """``format=timm|peft`` as ``format=timm`` and ``format=peft``."""
    key, equals, values = word.partition("=")
    return [f"{key}={value}" for value in values.split("|")] if equals else [word]


COMMANDS = commands()
CONFIGURED = [name for name, module in MODULES.items() if module in SCHEMAS or module == "prepare"]
TAKES_KEYS = rf"python (?!init_data)\w+\.py|recyclelora-|recyclelora ({'|'.join(CONFIGURED)}) "
COMPOSED = [c for c in COMMANDS if re.match(TAKES_KEYS, c)]


@pytest.fixture(scope="module", autouse=True)
def shipped_configuration() -> Iterator[None]:
    register_schemas()
    with initialize_config_dir(str(home() / "conf")):
        yield


def _swept(override: Override) -> Iterable[object]:
    """Every choice; of an interval its ends."""
    if override.is_interval_sweep():
        interval = override.value()
        assert isinstance(interval, IntervalSweep)
        return [interval.start, interval.end]
    return override.sweep_string_iterator()


def compose_like(command: str, arguments: list[str]) -> int:
    """Compose a command line as ``launch`` would, every run of a sweep; returns how many there are."""
    if "--cfg" in arguments:
        at = arguments.index("--cfg")
        arguments = arguments[:at] + arguments[at + 2 :]
    overrides = [a for a in checked_arguments(command, arguments) if a not in ("-m", "--multirun")]
    parsed = OverridesParser.create().parse_overrides(overrides)
    axes = [
        [f"{o.get_key_element()}={value}" for value in _swept(o)] if o.is_sweep_override() else [line]
        for o, line in zip(parsed, overrides, strict=True)
    ]
    runs = list(itertools.product(*axes))
    name = "train" if command == "prepare" else command
    for run in runs:
        typed(compose(name, list(run)))
    return len(runs)


@pytest.mark.parametrize("command", COMPOSED)
def test_a_documented_command_composes(command: str):
    if any(mark in command for mark in RUN_ELSEWHERE):
        return
    words = shlex.split(command)
    if words[0] == "recyclelora":
        name, arguments = MODULES[words[1]], words[2:]
    elif words[0] in SCRIPTS:
        name, arguments = SCRIPTS[words[0]].removeprefix("recyclelora.commands.").split(":")[0], words[1:]
    else:
        name, arguments = words[1].removesuffix(".py"), words[2:]
        assert (home() / words[1]).is_file()
    assert not arguments or compose_like(name, arguments) >= 1


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in COMPOSED])
def test_another_documented_command_exists(command: str):
    words = shlex.split(command)
    targets = re.findall(r"^([a-z-]+):", (home() / "Makefile").read_text(), re.M)
    match words:
        case ["make", target, *_]:
            assert target in targets
        case ["python" | "python3", "-m", module, *_]:
            assert importlib.util.find_spec(module) is not None
        case ["recyclelora", command, *_]:
            assert command in {*MODULES, "--help", "X"}
        case ["python", "-c", code, *_]:
            ast.parse(code)
        case ["python", script, *_]:
            assert (home() / script).is_file()
        case ["pip", "install", *what]:
            paths = [w for w in what if "/" in w and not w.startswith("-")]
            assert all((home() / path).exists() for path in paths)
        case _:
            assert words[0] in SYSTEM, "teach this test the command, or correct the page"


def test_what_is_run_elsewhere_is_still_documented():
    for mark in RUN_ELSEWHERE:
        assert any(mark in command for command in COMMANDS)


def test_a_sweep_is_every_run_and_a_mistake_is_noticed():
    assert compose_like("train", ["-m", "adapter=frozen,lora", "seed=0,1"]) == 4
    with pytest.raises(Exception, match="recyclelra"):
        compose_like("train", ["adapter=recyclelra"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_are_python(page: Path):
    for language, body in FENCE.findall(page.read_text()):
        if language == "python":
            ast.parse(body)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", FENCE.sub("", page.read_text())):
        assert target.startswith("http") or (page.parent / target).exists(), target
