"""The driver as a small SLURM job that is queued again when its time is over (``detach=true``)."""

from __future__ import annotations

import json
import shlex
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

from recyclelora.config.launchers import SlurmOptions
from recyclelora.sweep.execution import NotNow
from recyclelora.sweep.slurm.files import check_own
from recyclelora.sweep.slurm.queue import look, minutes_allowed
from recyclelora.sweep.slurm.submission import exports, sbatch
from recyclelora.system.errors import UserError
from recyclelora.system.redaction import redacted
from recyclelora.system.storage import private, write_json
from recyclelora.system.typed_json import read_object


def detach(options: SlurmOptions, sweep: Path, study: str) -> None:
    """Let a job run this very command in this process's place, and say where to look.

    Raises:
        UserError: such a job is there already, or SLURM refuses it.
    """
    check_own(sweep / "submitit")
    path = sweep / "submitit" / "driver.json"
    before = read_object(path)["job"] if path.exists() else None
    state = (look([before]) or {}).get(before) if before else None
    if state is not None and not state.ended:
        raise UserError(f"{sweep}: job {before} is its driver already ({state.state.lower()})")
    # the job that is queued again goes on with what this command has set aside already
    arguments = [a for a in sys.orig_argv[1:] if not a.lstrip("+").startswith("fresh=")]
    command = [sys.executable, *arguments, "hydra.sweeper.detach=false"]
    job = submit_driver(command, sweep, options, study)
    write_json(path, {"job": job})
    print(f"job {job} drives the sweep now: its output is in {sweep / 'driver.log'}; 'scancel {job}' stops the driver")


def submit_driver(command: Sequence[str], sweep: Path, options: SlurmOptions, study: str) -> str:
    """Submit the driver itself as a small job that is queued again when its time is over.

    Args:
        command: the driver's program and arguments
        sweep: the sweep's folder; the driver's output goes to ``driver.log`` in it
        options: ``hydra.launcher``
        study: the sweep's name

    Returns:
        the job's number

    Raises:
        UserError: SLURM refuses it, in its own words.
    """
    private(sweep / "submitit")
    if redacted(shlex.join(command)) != shlex.join(command):  # a script is for others to read
        command = _hidden(command, sweep / "submitit" / "driver.command")
    text = driver_script(command, sweep, options, study)
    path = sweep / "submitit" / f"driver-{uuid.uuid4().hex[:8]}.sh"
    path.write_text(text, encoding="utf-8")
    d = options.driver
    chosen = {**vars(options), "partition": d.partition or options.partition, "account": d.account or options.account}
    try:
        return sbatch(path, {**chosen, "qos": d.qos}, limit_min=_limit_min(options), waits=lambda: False)
    except NotNow as error:
        raise UserError(f"the driver's job is not taken at present, try again: {_own_keys(error)}") from error
    except UserError as error:
        raise UserError(_own_keys(error)) from error


def _own_keys(error: Exception) -> str:
    """What to change about the driver's own job."""
    return str(error).replace("hydra.launcher.", "hydra.launcher.driver.").replace("cpus_per_task", "cpus")


def _limit_min(options: SlurmOptions) -> int:
    """The time limit of the driver's job."""
    d = options.driver
    return min(d.timeout_min, minutes_allowed(d.partition or options.partition) or d.timeout_min)


def _hidden(command: Sequence[str], path: Path) -> list[str]:
    """A command that runs ``command``, which is kept in a file for this user alone."""
    path.unlink(missing_ok=True)
    path.touch(0o600, exist_ok=False)
    path.write_text(json.dumps(list(command)), encoding="utf-8")
    code = "import json, os, sys; c = json.load(open(sys.argv[1])); os.execv(c[0], c)"
    return [sys.executable, "-c", code, str(path)]


def driver_script(command: Sequence[str], sweep: Path, options: SlurmOptions, study: str) -> str:
    """The text that sbatch gets for a detached driver."""
    o, d = options, options.driver
    wanted = {
        "job-name": f"{o.name or study}-driver",
        "output": sweep.absolute() / "driver.log",
        "open-mode": "append",
        "time": _limit_min(o),
        "cpus-per-task": d.cpus,
        "mem": f"{round(1024 * d.mem_gb)}M",
        "partition": d.partition or o.partition,
        "account": d.account or o.account,
        "qos": d.qos,
        "signal": "B:USR2@60",
    }
    flags = [f"#SBATCH --{key}={shlex.quote(str(value))}" for key, value in wanted.items() if value is not None]
    return "\n".join([
        "#!/bin/bash",
        *flags,
        "#SBATCH --requeue",
        *exports(),
        *(o.setup or []),
        "trap 'scontrol requeue \"$SLURM_JOB_ID\"' USR2",
        f"{shlex.join(command)} &",
        "child=$!",
        "trap 'kill -TERM \"$child\"' TERM",
        'while kill -0 "$child" 2>/dev/null; do wait "$child"; code=$?; done',
        'exit "$code"',
        "",
    ])  # fmt: skip
