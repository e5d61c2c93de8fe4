"""What ``--help`` shows: a command's docstring, and the option files that its configuration chooses from."""

from __future__ import annotations

import argparse
import ast
import sys
import textwrap
from pathlib import Path

WIDTH = 100

COMMANDS = {
    "train": "train", "evaluate": "evaluate", "predict": "predict", "analyze": "analyze", "report": "report",
    "export": "export", "import": "import_checkpoint", "init-data": "init_data", "inspect-data": "inspect_data",
    "prepare": "prepare", "repeat": "repeat", "sweep": "sweep", "track": "track", "cache": "cache",
}  # fmt: skip
"""``recyclelora <command>`` -> its module in this package."""


def overview() -> str:
    """All commands with the first line of their docstrings, which are read without importing anything."""
    rows = [f"  {name:<14}{_docstring(module).splitlines()[0]}" for name, module in COMMANDS.items()]
    return "\n".join([
        "Adapt vision foundation models and measure how well they segment streets never seen.", "",
        "recyclelora <command> key=value ...", "", *rows, "",
        "  recyclelora train experiment=demo", "  recyclelora evaluate run=outputs/runs/<run> data=city2acdc", "",
        "`recyclelora <command> --help` tells its keys. In the repository, `python train.py` is `recyclelora train`.",
    ])  # fmt: skip


def screen(module: str, config_name: str) -> str:
    """The help of a command that takes ``key=value``.

    Args:
        module: whose docstring it is
        config_name: the file in ``conf/`` whose defaults name the groups of options
    """
    return "\n".join([str(sys.modules[module].__doc__).strip(), *_options(config_name)])


def folder_parser(command: str, text: str | None) -> argparse.ArgumentParser:
    """Of a command that acts on a folder and takes words instead of ``key=value``; ``text`` is its docstring."""
    return argparse.ArgumentParser(
        prog=f"recyclelora {command}", description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def _docstring(module: str) -> str:
    return ast.get_docstring(ast.parse(Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8"))) or ""


def _options(config_name: str) -> list[str]:
    """Each group of options that the command composes, with the names of the files in it."""
    from omegaconf import OmegaConf

    from recyclelora.config.compose import home

    defaults = OmegaConf.load(home() / "conf" / f"{config_name}.yaml").defaults
    lines = []
    for group in (key for entry in defaults if not isinstance(entry, str) for key in entry):
        names = ", ".join(sorted({path.stem for at in ("conf", ".") for path in (home() / at / group).glob("*.yaml")}))
        lines += textwrap.wrap(f"{group + '=':<13}{names}", WIDTH, subsequent_indent=" " * 13) if names else []
    return ["", "Groups, of which each option is a file in conf/ or sweeps/:", *lines] if lines else []
