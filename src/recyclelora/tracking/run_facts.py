"""What MLflow shows of a run beside its curves: name, parameters, tags, note and data sets."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import hashlib
import json
import posixpath
import re
from pathlib import Path
from typing import Any

from recyclelora.config.compose import composed
from recyclelora.config.run import Config
from recyclelora.runs.directory import RunRecord
from recyclelora.runs.metrics_log import FINAL

LONGEST = 5000
"""Characters of a parameter or tag; MLflow refuses parameters of more than 6000."""
LONGEST_NAME = 250
NO_PARAMETERS = ("output_dir", "cache", "fresh", "study", "data.classes", "data.folder", "tracking")
NO_CHANGES = (*NO_PARAMETERS, "data.root", "backbone.checkpoint", "data.num_classes", "data.class_names")
VARIED = "Trial."
"""Begins the parameters that say what a study varies, as it was typed: capitals stand before all others, and MLflow's
page that compares runs begins with the first parameters that differ, by name."""
CONTEXTS = {"source": "train", "source_val": "validation", "target": "target"}


def run_name(config: Config) -> str:
    """A name that tells runs of one experiment apart at a glance."""
    ranks = [b.rank for b in (getattr(config.adapter, "main", None), getattr(config.adapter, "sub", None)) if b]
    adapter = "-".join([config.adapter.name, "+".join(map(str, ranks))]).rstrip("-")
    return f"{adapter} {config.backbone.name} {config.data.name} seed {config.seed}"


def trial_name(kind: str, number: int, params: dict[str, Any], seed: int) -> str:
    """The same for a trial: what the study varies, by the ends of the names."""
    varied = [f"{_end(name)}={_cell(value)}" for name, value in params.items() if name != "seed"]
    return " ".join([f"{kind} {number}", *varied, f"seed={seed}"])


def flat_parameters(config: Config) -> dict[str, Any]:
    """Dotted names of every value a researcher may want to compare or filter by."""
    flat: dict[str, Any] = {}

    def walk(node: Any, path: str) -> None:
        if isinstance(node, dict) and node:
            for key, value in node.items():
                walk(value, f"{path}.{key}" if path else str(key))
        else:
            flat[path] = node

    walk(dataclasses.asdict(config), "")
    names = config.data.classes.names
    classes = {"data.num_classes": len(names), "data.class_names": ", ".join(names)[:LONGEST]}
    return {key: value for key, value in flat.items() if not key.startswith(NO_PARAMETERS)} | classes


def allowed(name: str) -> str:
    """A name with what MLflow refuses replaced: it reads it as a relative path of at most 250 characters."""
    plain = re.sub(r"[^\w\-. :/]", "_", name)[:LONGEST_NAME]
    return plain if posixpath.normpath(plain) == plain and plain[:1] not in "./" else plain.replace("/", "_") or "_"


def varied_name(name: str) -> str:
    """The parameter that says what a study chose for ``name``."""
    return allowed(VARIED + _end(name))


def _end(name: str) -> str:
    """``main.rank`` of ``adapter.main.rank``."""
    return ".".join(name.split(".")[-2:])


def headline(about: RunRecord) -> str:
    """The metric that counts: the mean of the targets, without labelled ones that of source validation."""
    roles = {record["role"] for record in about.get("datasets", []) if record["labelled"]}
    return f"{FINAL}/mean" if "target" in roles else f"{FINAL}/source_val"


def final_scores(about: RunRecord) -> list[str]:
    """Names of the metrics that hold a run's final mIoUs, the one that counts first."""
    labelled = [record for record in about.get("datasets", []) if record["labelled"]]
    targets = [allowed(f"{FINAL}/{record['name']}") for record in labelled if record["role"] == "target"]
    return list(dict.fromkeys([headline(about), *targets, f"{FINAL}/source_val"]))


def changes(config: Config) -> dict[str, tuple[Any, Any]]:
    """What differs from ``python train.py`` without overrides: name -> (value, default); None where there is none."""
    flat, defaults = flat_parameters(config), _defaults()
    names = [*flat, *(name for name in defaults if name not in flat)]
    return {
        name: (flat.get(name), defaults.get(name))
        for name in names
        if flat.get(name) != defaults.get(name) and not name.startswith(NO_CHANGES)
    }


@functools.cache
def _defaults() -> dict[str, Any]:
    """Of ``python train.py`` without any override."""
    return flat_parameters(composed("train"))


def note(config: Config, about: RunRecord, headline: str) -> str:
    """Markdown for the top of a run's page: its name, the command, and what differs from the defaults."""
    rows = [f"| {name} | {_cell(value)} | {_cell(default)} |" for name, (value, default) in changes(config).items()]
    table = ["", "| differs from the default | here | default |", "|---|---|---|", *rows] if rows else []
    return "\n".join([f"**{headline}**", "", f"`python {about['command']}`", *table])[:LONGEST]


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    return (text if len(text) < 80 else text[:77] + "...").replace("|", "\\|")


def tags(config: Config, about: RunRecord, run_dir: Path) -> dict[str, str]:
    """What runs are filtered by, beside parameters; ``changed`` is one readable column of what differs."""
    git = about.get("git") or {}
    launches: list[Any] = [about, *about.get("resumed", [])]
    jobs = [str(job) for launch in launches if (job := (launch.get("host") or {}).get("slurm_job"))]
    short = [f"{name}={_cell(value)}" for name, (value, _) in changes(config).items() if name != "seed"]
    known = {
        "mlflow.source.name": about["command"].split(" ")[0],
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": git.get("commit") or "unknown",
        "git_uncommitted": str(bool(git.get("diff"))).lower(),
        "signature": about["signature"],
        "protocol": about.get("protocol", "unknown"),
        "seed": str(config.seed),
        "changed": ", ".join(short)[:LONGEST],
        "tuned_on_targets": str(config.objective == "target_mean").lower(),
        "run_dir": str(run_dir),
        **user(run_dir),
    }
    return known | ({"slurm_job": ", ".join(dict.fromkeys(jobs))} if jobs else {})


def user(folder: Path) -> dict[str, str]:
    """MLflow's tag for whose a run's or sweep's directory is; none where its account has no name here."""
    try:
        return {"mlflow.user": folder.owner()}
    except (KeyError, OSError, NotImplementedError):
        return {}


def identity(folder: Path, began: str | None) -> dict[str, str]:
    """A tag that no other run's or sweep's directory has: where and when this one began."""
    return {"directory": hashlib.sha256(f"{began} {folder}".encode()).hexdigest()[:16]}


def started(began: str | None) -> int:
    """When a run or a study began, in milliseconds since 1970; now, where that was not written down."""
    return milliseconds(began) or milliseconds(datetime.datetime.now().isoformat()) or 0


def milliseconds(text: str | None) -> int | None:
    """An ISO time as MLflow counts it."""
    return None if text is None else int(1000 * datetime.datetime.fromisoformat(text).timestamp())


def data_inputs(config: Config, about: RunRecord) -> list[Any]:
    """The data sets of ``run.json`` as MLflow's: training data, source validation and targets."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    inputs = []
    for record in about.get("datasets", []):
        # of the record with the digest of all files, since a part of a data set is another one
        digest = hashlib.sha256(json.dumps([record, about.get("dataset_digest")], sort_keys=True).encode())
        source = {"uri": f"{config.data.root}/{record['dataset']}", "split": record["split"]}
        dataset = Dataset(
            name=f"{record['name']} ({record['split']})" if record["name"] != record["split"] else record["name"],
            digest=digest.hexdigest()[:16],
            source_type="local",
            source=json.dumps(source),
            profile=json.dumps({"images": record["images"], "labelled": record["labelled"]}),
        )
        inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", CONTEXTS[record["role"]])]))
    return inputs
