"""From what Hydra composes, or a run has stored, to checked dataclasses; few rooms besides this one know Hydra.

Nothing here imports torch: a bad value must be refused within seconds.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from recyclelora.config.commands import (
    AnalyzeConfig,
    EvaluateConfig,
    ExportConfig,
    ImportConfig,
    InspectConfig,
    PredictConfig,
    RepeatConfig,
    ReportConfig,
)
from recyclelora.config.messages import NEEDED
from recyclelora.config.option_files import guard
from recyclelora.config.run import BUILT_IN, Config, option_kinds
from recyclelora.data.config import DataConfig
from recyclelora.data.folder import masks_beside
from recyclelora.system.checks import refusals
from recyclelora.system.errors import first_line
from recyclelora.system.plugins import conf_folders

UNFIT = (OmegaConfBaseException, KeyError, AttributeError, AssertionError, ValueError, TypeError)
"""What OmegaConf raises on a file that is no configuration."""


COMMANDS: dict[str, type] = {
    "train": Config,
    "evaluate": EvaluateConfig,
    "predict": PredictConfig,
    "export": ExportConfig,
    "analyze": AnalyzeConfig,
    "inspect_data": InspectConfig,
    "report": ReportConfig,
    "import_checkpoint": ImportConfig,
    "repeat": RepeatConfig,
}
"""What each command is asked."""


class ConfigError(ValueError):
    """A user's mistake in the configuration; its text is all that the user needs to see."""


def home() -> Path:
    """The folder that holds ``conf/`` and ``sweeps/``: the checkout, or the installed package."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parents[1]
    return checkout if (checkout / "conf" / "train.yaml").is_file() else package


def register_schemas() -> None:
    """Make the schemas, the ``sweeps`` folder and the options of installed packages known to Hydra.

    Option files attach their schema with ``/schema/<group>/<kind>@_here_``. An option from outside needs no file: its
    dataclass is an option of its group itself.
    """
    os.environ.setdefault("RECYCLELORA_HOME", str(home()))
    # primary configs of users that began as a copy of an earlier train.yaml ask for it
    OmegaConf.register_resolver("with_plugins", lambda own: [own, *conf_folders()], replace=True)
    OmegaConf.register_resolver("beside", masks_beside, replace=True)
    store = ConfigStore.instance()
    guard(home(), tuple(COMMANDS))
    for name, schema in COMMANDS.items():
        store.store(group="schema", name=name, node=schema, replace=True)
    store.store(group="schema/data", name="pair", node=DataConfig, replace=True)
    for group, kinds in option_kinds().items():
        for kind, schema in kinds.items():
            store.store(group=f"schema/{group}", name=kind, node=schema, replace=True)
            if kind not in BUILT_IN[group][0]:
                package = f"{group}.{kind}" if group == "losses" else group
                store.store(group=group, name=kind, node=schema, package=package, replace=True)


_commanding: ContextVar[bool] = ContextVar("commanding", default=False)


@contextmanager
def commanding() -> Iterator[None]:
    """Meanwhile Hydra finds the shipped option files whatever primary config it is given."""
    token = _commanding.set(True)
    try:
        yield
    finally:
        _commanding.reset(token)


def option_folders(searched: Container[str] = ()) -> list[str]:
    """Where Hydra finds option files besides where it is told to look, as URLs: ``conf`` and installed packages.

    Nothing where another application of Hydra runs.

    Args:
        searched: where it is told to look
    """
    own = f"file://{Path(os.environ.get('RECYCLELORA_HOME') or home()) / 'conf'}"
    return [own, *conf_folders()] if _commanding.get() or own in searched else []


def composed(command: str, overrides: Sequence[str] = ()) -> Any:
    """The checked configuration of a command with overrides; not for processes that Hydra itself has started.

    Raises:
        ConfigError: naming each bad key, its value and what is allowed.
        HydraException: it does not compose; so do errors of OmegaConf.
    """
    register_schemas()
    with commanding(), initialize_config_dir(str(home() / "conf")):
        node = compose(command, list(overrides))
    return typed(node)


def typed(node: DictConfig, *, stored: bool = False) -> Any:
    """Turn a composed configuration into its dataclass and check every value.

    What is ``stored`` with a run is not refused for what earlier versions accepted.

    Raises:
        ConfigError: naming each bad key, its value and what is allowed.
    """
    try:
        config = OmegaConf.to_object(node)
    except MissingMandatoryValue as error:
        missing = OmegaConf.missing_keys(node)
        command = next((name for name, schema in COMMANDS.items() if OmegaConf.get_type(node) is schema), "train")
        example = f": python {command}.py {NEEDED[command]}" if command in NEEDED else ""
        raise ConfigError(f"{', '.join(sorted(missing))}: must be given{example}") from error
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or ""
        raise ConfigError(f"{key}: {first_line(error)}") from error
    validate(config, stored=stored)
    return config


def validate(config: Any, *, stored: bool = False) -> None:
    """Check a configuration dataclass and all inside it; raise one ConfigError that lists every bad key."""
    if refused := refusals(config, ("check",) if stored else ("check", "check_new")):
        raise ConfigError("\n".join(refused))


def to_yaml(config: Config) -> str:
    """The whole configuration as YAML that :func:`load_config` reads back equal."""
    return OmegaConf.to_yaml(OmegaConf.create(dataclasses.asdict(config)), resolve=True)


def load_config(path: Path) -> Config:
    """Read a run's ``config.yaml`` back into its dataclasses.

    Raises:
        ConfigError: when the file is not a configuration of this project.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if "${" in text:  # what is written here is resolved; a reader must not look into its own environment
            raise ValueError("it holds an interpolation")
        raw = OmegaConf.create(text)
        assert isinstance(raw, DictConfig)
        schema = OmegaConf.structured(Config)
        for group, kinds in option_kinds().items():
            if group == "losses":
                for name, options in raw.get("losses", {}).items():
                    schema.losses[name] = OmegaConf.structured(_schema(path, group, options.kind, kinds))
            else:
                schema[group] = OmegaConf.structured(_schema(path, group, raw[group].kind, kinds))
        merged = OmegaConf.merge(schema, raw)
    except ConfigError:
        raise
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except (*UNFIT, YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: not a run's configuration: {first_line(error) or 'empty'}") from error
    assert isinstance(merged, DictConfig)
    config: Config = typed(merged, stored=True)
    return config


def _schema(path: Path, group: str, kind: str, kinds: dict[str, type]) -> type:
    if kind not in kinds:
        raise ConfigError(f"{path}: {group}.kind={kind} is not known here; install the package it comes from")
    return kinds[kind]
