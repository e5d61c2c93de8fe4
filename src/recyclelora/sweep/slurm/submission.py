"""A submission to SLURM, of a trial or of the driver: what a script needs, and what sbatch's answer means."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recyclelora.config.launchers import SlurmOptions, compatible
from recyclelora.sweep import snapshot
from recyclelora.sweep.execution import NotNow
from recyclelora.sweep.slurm.calls import ask, call, first_line
from recyclelora.sweep.slurm.queue import TOO_LARGE, refusal_advice
from recyclelora.system.errors import UserError

EXPORTED = (
    "PATH", "PYTHONPATH", "RECYCLELORA_HOME", "RECYCLELORA_SNAPSHOT", "RECYCLELORA_CACHE",
    "RECYCLELORA_TRUSTED", "RECYCLELORA_READABLE", "DATA_ROOT", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE",
    "SLURM_CONF",
)  # fmt: skip
"""Variables that jobs need where a site's sbatch passes none on; no secrets, for scripts are readable."""

WAITS = re.compile(
    # the controller, the network or munge is away
    r"unable to contact slurm controller|socket timed out|timed? ?out|temporarily|try again"
    r"|connect(ion)? (failure|refused)|zero bytes were transmitted|standby|authentication error|munge"
    # the cluster's own tables are full
    r"|job queue full|too many jobs|insufficient storage"
    # a user's or an account's number of jobs, as SLURM spells it: AssocMaxSubmitJobLimit, QOSMaxSubmitJobPerUserLimit
    r"|(max|grp)submitjob"
    # a partition that is drained
    r"|partition not available",
    re.IGNORECASE,
)
"""Refusals that pass, whatever was asked for."""
WRONG = re.compile(
    r"invalid (partition|account|qos|generic resource|gres|feature|constraint|reservation|license|wckey|node name"
    r"|numeric|time|directive|option|argument|job array|trackable|cluster|user id|.*specification)"
    r"|(unrecognized|unknown|ambiguous) option|mutually exclusive|script argument|dos line breaks"
    r"|node configuration is not available|requested .*(is )?(invalid|unsupported)|only contains"
    r"|memory (required|specification)|more processors requested|(node|cpu) count (per|spec)"
    r"|not permitted|permission denied|access denied|access/permission|unable to open|no such file"
    rf"|perjob|perjoblimit|maxwall|walldurationper|{TOO_LARGE}",
    re.IGNORECASE,
)
"""Refusals that come again however often the same is asked for."""

RENAMED = {"name": "job_name", "timeout_min": "time", "mem_gb": "mem", "tasks_per_node": "ntasks_per_node"}
"""Keys of ``hydra.launcher`` -> submitit's words for them."""
OURS = (
    "submitit_folder", "max_num_timeout", "python", "reservation", "requeue", "trials_per_job", "poll_s", "driver",
    "array", "resources", "fallback", "fallback_min",
)  # fmt: skip
"""Keys that submitit does not know."""


def trial_script(
    options: SlurmOptions, folder: Path, name: str, trials: int, limit_min: int, left_out: Sequence[str],
    array: int | None = None,
) -> str:  # fmt: skip
    """The text that sbatch gets for a job of one trial, or of several that share it, or for an array of such jobs.

    Args:
        options: ``hydra.launcher``
        folder: of the job's files, with ``%j`` for its number
        name: of the job
        trials: how many share it
        limit_min: its time limit
        left_out: nodes that must not get it
        array: so many jobs; None: one that is no array
    """
    from submitit.slurm.slurm import _make_sbatch_string

    o = options
    given = {key: value for key, value in compatible(vars(o)).items() if key not in OURS}
    more: dict[str, Any] = {"requeue": True} if o.requeue else {"no-requeue": True}
    if o.reservation is not None:
        more["reservation"] = o.reservation
    given |= {
        "name": name,
        "map_count": array,
        "timeout_min": limit_min,
        "tasks_per_node": trials if trials > 1 else o.tasks_per_node,
        "additional_parameters": {k: v for k, v in {**more, **o.additional_parameters}.items() if v is not False},
        # the shell outlives a signal, so that training has the time to save itself
        "setup": [*exports(), *(o.setup or []), *(["trap : TERM"] if o.use_srun else [])],
        # one process of a training that fails ends the others; one trial of several must not
        "srun_args": [f"--kill-on-bad-exit={int(trials == 1)}", "--wait=0", *(o.srun_args or [])],
    }
    if "mem_gb" in given:
        given["mem_gb"] = f"{round(1024 * given['mem_gb'])}MB"
    if left_out:
        given["exclude"] = ",".join(filter(None, [o.exclude, *left_out]))
    python = o.python or shlex.quote(sys.executable)
    if not o.use_srun:
        given["additional_parameters"].setdefault("signal", f"B:USR2@{o.signal_delay_s}")
        python = f"exec {python}"  # in the shell's place, to which alone signals come then
    named = {RENAMED.get(key, key): value for key, value in given.items() if value is not None}
    command = f"{_as_snapshot(python)} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    return str(_make_sbatch_string(command=command, folder=folder, **named))


def _as_snapshot(python: str) -> str:
    """How Python is started so that it runs the sweep's code, which it unpacks on a node that does not see it."""
    archive, folder = os.environ.get(snapshot.VARIABLE, ""), os.environ.get("RECYCLELORA_HOME", "")
    return f"{python} {shlex.join([archive, folder])}" if archive.endswith(snapshot.ARCHIVE) else python


def sbatch(script: Path, chosen: Mapping[str, object], *, limit_min: int, waits: Callable[[], bool]) -> str:
    """Submit a script and return the job's number.

    Args:
        script: its path, which no other submission ever has
        chosen: keys of ``hydra.launcher``, see :func:`recyclelora.sweep.slurm.calls.environment`
        limit_min: the job's time limit
        waits: whether SLURM has taken such a job before, so that a refusal for no known reason will pass

    Raises:
        UserError: SLURM refuses what is asked for, in its own words, and what to change.
        NotNow: SLURM does not take it at present.
    """
    try:
        answer = call(["sbatch", "--parsable", str(script)], chosen=chosen)
    except OSError as error:
        if waits():
            raise NotNow("there is no sbatch here any more") from error
        raise UserError("hydra/launcher=slurm: there is no sbatch here") from error
    number = job_number(answer.out) if answer.ok else None
    if number is None and (answer.ok or answer.code is None):
        number = taken(script)  # it may have been taken without our hearing of it
    if number is not None:
        return number
    if answer.code is None:
        raise NotNow("sbatch does not answer")
    said = refusal(answer.error or answer.out)
    todo = refusal_advice(said, limit_min)
    if WAITS.search(said) or (not WRONG.search(said) and waits()):
        raise NotNow(f"sbatch: {said}{todo}")
    raise UserError(f"sbatch refuses the job: {said}{todo}")


def job_number(out: str) -> str | None:
    """The job's number in what sbatch prints, among a site's own lines.

    >>> job_number("Maintenance on 12 May\\n4711;tiger\\n"), job_number("Submitted batch job 12"), job_number("")
    ('4711', '12', None)
    """
    found = re.findall(r"^\s*(?:Submitted batch job )?(\d+)(?:;\S*)?\s*$", out, re.MULTILINE)
    return found[-1] if found else None


def refusal(text: str) -> str:
    """Why sbatch refuses, without what a site says to everyone."""
    lines = [line for line in text.splitlines() if re.search(r"\b(error|fatal)\b", line, re.IGNORECASE)]
    return first_line("\n".join(lines) or text)


def taken(script: Path) -> str | None:
    """The job, or array, that was made from a script; None where the queue knows none."""
    answer = ask(["squeue", "--noheader", "--all", f"--user={os.getuid()}", "--format=%F %o"], seconds=20)
    jobs = (line.strip().partition(" ") for line in (answer or "").splitlines())
    return next((number for number, _, command in jobs if command.strip() == str(script)), None)


def queue_is_empty() -> bool:
    """Whether none of this user's jobs runs or waits; False where SLURM does not say."""
    return ask(["squeue", "--noheader", "--all", f"--user={os.getuid()}"], seconds=20) == ""


def exports() -> list[str]:
    """Shell lines that give a job this process's environment, so that srun passes it on to the trial."""
    unset = ["unset SLURM_EXPORT_ENV"]
    return unset + [f"export {name}={shlex.quote(os.environ[name])}" for name in EXPORTED if name in os.environ]
