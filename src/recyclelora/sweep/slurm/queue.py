"""What SLURM says: of jobs, in one call for all, with or without accounting; why they wait; and of partitions."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
from collections.abc import Collection
from dataclasses import dataclass

from recyclelora.sweep.execution import FROM_OUTSIDE, Stage, Status
from recyclelora.sweep.slurm.calls import ask, call

QUEUED = frozenset({"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"})
RUNNING = frozenset(
    {"RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT"}
)
LOST_NODE = {
    "NODE_FAIL": "the node failed",
    "BOOT_FAIL": "the node did not boot",
    "PREEMPTED": "preempted by another job",
    "CANCELLED": "cancelled (scancel)",
    "REVOKED": "taken over by another cluster",
    "LAUNCH_FAILED": "the node could not start it",
    "RECONFIG_FAIL": "the node could not be configured",
}
"""Ends that say nothing about the trial, and are none of its tries."""
TEMPORARY = 75
"""Exit code of a job that could not begin its trial (EX_TEMPFAIL)."""
REASONS = (
    (r"submitjob", "the account or QOS lets no more jobs into the queue: hydra.launcher.account, qos"),
    (r"PartitionTimeLimit|time limit is invalid", "the partition allows less than hydra.launcher.timeout_min={limit}"),
    (r"WallDuration|(Association|QOS)TimeLimit",
     "the account or QOS allows less than hydra.launcher.timeout_min={limit}"),
    (r"MinutesPerJob",
     "the account or QOS allows less of time limit and size together: hydra.launcher.timeout_min={limit}, gres, nodes"),
    (r"Partition(Node|Max|Min)|node count", "the partition does not give so many nodes: hydra.launcher.nodes"),
    (r"partition configuration|memory required",
     "the partition allows other sizes of jobs: hydra.launcher.mem_gb, cpus_per_task, nodes, partition"),
    (r"(?<!Run)Minutes|GrpWall",
     "the budget of the account or QOS is used up, or less than one job: hydra.launcher.account, qos"),
    (r"PerJob|PerNode|MaxMemPerLimit|QOSMin",
     "the account or QOS allows other sizes of jobs: hydra.launcher.mem_gb, cpus_per_task, gres, nodes, qos"),
    (r"Invalid ?Account|AccountNotAllowed|AssocNotAllowed",
     "hydra.launcher.account is not allowed here, or not in hydra.launcher.partition"),
    (r"Invalid ?QOS|QOSNotAllowed|QOSUsageThreshold",
     "hydra.launcher.qos is not allowed here, or not in hydra.launcher.partition"),
    (r"invalid partition", "hydra.launcher.partition is not one of 'sinfo'"),
    # also of more CPUs than any node has
    (r"PartitionConfig", "the partition has or allows no such job at present: hydra.launcher.cpus_per_task, mem_gb, "
     "gres, nodes, partition"),
    (r"PartitionDown|PartitionInactive|partition not available",
     "the partition takes no jobs now: wait, or another hydra.launcher.partition"),
    (r"BadConstraints|FedJobLock|AccountingPolicy|node configuration|more processors|invalid (feature|generic)",
     "no node has what is asked for: hydra.launcher.constraint, gres, mem_gb, cpus_per_task, exclude, partition"),
    (r"ReqNodeNotAvail|DOWN,?[ _]DRAINED|NodeDown|invalid node name",
     "nodes that it needs are down, drained or reserved: wait, or another hydra.launcher.nodelist, partition"),
    (r"ReservationDeleted|InvalidReservation|reservation is invalid", "there is no such hydra.launcher.reservation"),
    (r"DependencyNeverSatisfied", "what it depends on has failed: hydra.launcher.additional_parameters"),
    (r"(launch|prolog).*held|MaxRequeue",
     "a node could not start it: 'scontrol release {job}' tries again, 'scancel {job}' lets the sweep submit it anew"),
    (r"Held", "held: 'scontrol release {job}' lets it start"),
)  # fmt: skip
"""Pattern over SLURM's reason, as squeue prints it or, with ``_`` for spaces, scontrol, or over sbatch's own words ->
what to do; ``{limit}`` in minutes, ``{job}`` its number. Limits of a group without ``PerJob`` pass as its other jobs
end, budgets do not."""
TOO_MUCH = (
    "the account or QOS allows less than one such job: hydra.launcher.mem_gb, cpus_per_task, gres, nodes, account, qos"
)
TOO_LARGE = r"\b(qos|assoc)(max|grp|min)(?!submit)"
"""Refusals of one job, whatever others do: limits that others share are looked at when it is to start."""
OF_ONE_USER = re.compile(r"PerUser|AssocMaxJobs", re.IGNORECASE)
"""Reasons that pass as this user's other jobs end, and never where there are none."""
LAUNCH_FAILED = re.compile(r"(launch|prolog).*held", re.IGNORECASE)
"""A node's Prolog failed: SLURM drains the node and holds the job, which has nothing to do with it."""


@dataclass(frozen=True)
class JobState:
    """A job as the queue shows it."""

    state: str
    reason: str = ""
    code: int = 0
    """of its batch script"""
    signal: int = 0
    restarts: int = 0
    node: str = ""
    """where it runs or ran; empty for several nodes"""
    ran: int | None = None
    """seconds"""
    limit: int | None = None
    """seconds that it may run; None where there is no limit, or SLURM does not say"""
    alone: bool = False
    """of one that waits: no job of this user runs"""

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state not in QUEUED | RUNNING


FIELDS = {
    "JobArrayID": 40, "State": 30, "RestartCnt": 12, "exit_code": 16, "NodeList": 80, "TimeUsed": 20, "TimeLimit": 20,
    "Reason": 240,
}  # fmt: skip
"""Columns of squeue and their widths in bytes; the last may hold anything that an administrator has written."""


def look(jobs: Collection[str]) -> dict[str, JobState] | None:
    """States of jobs of this user; None where SLURM does not answer, which says nothing about the jobs.

    A job is known to the controller until some minutes after its end (``MinJobAge``), then only to accounting.
    """
    fields = ",".join(f"{name}:{width}" for name, width in FIELDS.items())
    # hidden partitions' jobs, too; of arrays each job in its own line
    command = [
        "squeue",
        "--noheader",
        "--all",
        "--array",
        "--states=all",
        f"--user={os.getuid()}",
        f"--Format={fields}",
    ]
    answer = ask(command)
    if answer is None:
        return None
    found: dict[str, JobState] = {}
    ends = list(itertools.accumulate(FIELDS.values(), initial=0))
    lines = [[line[a:b].strip() for a, b in itertools.pairwise(ends)] for line in answer.splitlines()]
    alone = not any(state in RUNNING for _, state, *_ in lines)
    for job, state, restarts, status, nodes, ran, limit, reason in lines:
        if job in jobs:
            exit_status = _whole(status)
            found[job] = JobState(
                state, reason, exit_status >> 8 & 0xFF, exit_status & 0x7F, _whole(restarts), _single(nodes),
                in_seconds(ran), in_seconds(limit), alone and state in QUEUED,
            )  # fmt: skip
    return found


def look_closer(job: str) -> JobState | None:
    """A job that squeue does not list: its state by scontrol, or in accounting.

    Returns:
        None where the controller itself says that it knows no such job, and accounting has none either.

    Raises:
        Unanswered: nobody could say.
    """
    try:
        answer = call(["scontrol", "show", "job", "-o", job], seconds=20)
    except OSError as error:
        raise Unanswered from error
    if answer.ok and (state := word(answer.out, "JobState")):
        code, _, number = word(answer.out, "ExitCode").partition(":")
        return JobState(
            state, word(answer.out, "Reason"), _whole(code), _whole(number), _whole(word(answer.out, "Restarts")),
            _single(word(answer.out, "NodeList").replace("(null)", "")), in_seconds(word(answer.out, "RunTime")),
            in_seconds(word(answer.out, "TimeLimit")),
        )  # fmt: skip
    if "invalid job id" not in (answer.out + answer.error).lower():
        raise Unanswered
    return look_back(job)


class Unanswered(Exception):
    """None of SLURM's programs could say what has become of a job."""


def look_back(wanted: str) -> JobState | None:
    """A job that the controller has forgotten, from accounting; None where there is none."""
    if shutil.which("sacct") is None:
        return None
    command = ["sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={wanted}"]
    answer = ask([*command, "--format=JobID,State,ExitCode,NodeList,Elapsed,Timelimit"])
    for line in (answer or "").splitlines():
        job, state, exit_code, nodes, ran, limit, *_ = [*line.split("|"), *[""] * 5]
        if job == wanted and state:
            code, _, number = exit_code.partition(":")
            return JobState(
                state.split(" ")[0], "", _whole(code), _whole(number), 0, _single(nodes), in_seconds(ran),
                in_seconds(limit),
            )  # fmt: skip
    return None


def word(about: str, key: str) -> str:
    """The value of a key in what scontrol shows."""
    found = re.search(rf"(?:^|\s){key}=(\S+)", about)
    return found[1] if found else ""


def minutes_allowed(partition: str | None) -> int | None:
    """The longest time limit of a partition, or of several; None where there is none, or SLURM does not say.

    Args:
        partition: names with commas between; None: the cluster's default
    """
    answer = ask(["scontrol", "show", "partition", "-o"], seconds=20)
    limits = []
    for line in (answer or "").splitlines():
        default, name = word(line, "Default") == "YES", word(line, "PartitionName")
        limit = in_seconds(word(line, "MaxTime"))
        if limit is not None and (default if partition is None else name in re.split(r"\s*,\s*", partition.strip())):
            limits.append(limit // 60)
    return min(limits, default=None)


def in_seconds(text: str) -> int | None:
    """SLURM's ``[[days-]hours:]minutes:seconds``; None for UNLIMITED.

    >>> in_seconds("1-02:00:05"), in_seconds("10:00"), in_seconds("UNLIMITED")
    (93605, 600, None)
    """
    found = re.fullmatch(r"(?:(?:(\d+)-)?(\d+):)?(\d+):(\d+)", text)
    if found is None:
        return None
    days, hours, minutes, rest = (int(part or 0) for part in found.groups())
    return ((24 * days + hours) * 60 + minutes) * 60 + rest


def _whole(text: str) -> int:
    return int(text) if text.isdigit() else 0


def _single(nodes: str) -> str:
    """The name of one node; of several none is to blame."""
    return "" if re.search(r"[\[,]", nodes) else nodes


def explain(job: JobState, timeout_min: int, number: str = "") -> Status:
    """What a state means for the job's units."""
    todo = advice(number, job.reason, job.state, timeout_min)
    if job.alone and todo is None and OF_ONE_USER.search(job.reason):
        todo = TOO_MUCH
    if job.state in QUEUED:
        return Status(Stage.QUEUED, f"{job.reason}: {todo}" if todo else job.reason or None, stuck=todo is not None)
    if job.state in RUNNING:
        return Status(Stage.RUNNING)
    if job.state in LOST_NODE:
        return Status(Stage.GONE, LOST_NODE[job.state], node_fault=True, excused=True)
    if job.state == "TIMEOUT" and job.ran is not None and job.limit is not None and job.ran < job.limit - 1:
        budget = f"ended by SLURM after {job.ran // 60} of its {job.limit // 60} min"
        return Status(
            Stage.GONE, f"{budget}: a budget of the account or QOS is used up", node_fault=True, excused=True
        )  # fmt: skip
    if job.state == "TIMEOUT":
        limit = f"took longer than hydra.launcher.timeout_min={timeout_min} and did not save itself in time"
        return Status(Stage.GONE, f"{limit}; a larger signal_delay_s gives it longer")
    if job.state == "OUT_OF_MEMORY":
        return Status(Stage.GONE, "ran out of memory: raise hydra.launcher.mem_gb")
    if job.state == "COMPLETED":
        return Status(Stage.GONE, "the job ended without a word about its trial", node_fault=True)
    if todo is not None:  # it was taken and then found impossible, as where its nodes were taken away
        return Status(Stage.GONE, f"{job.reason}: {todo}", node_fault=True)
    killer = job.signal or (job.code - 128 if job.code > 128 else 0)
    if killer in [s.value for s in signal.Signals]:
        name = signal.Signals(killer).name + (" (out of memory?)" if killer == signal.SIGKILL else "")
        return Status(Stage.GONE, f"killed by {name}", node_fault=killer in FROM_OUTSIDE)
    if job.code == TEMPORARY:
        return Status(Stage.GONE, "the job could not begin its trial", node_fault=True)
    words = re.sub("_", " ", job.state.lower())
    return Status(Stage.GONE, f"{words}: the job left with exit code {job.code}")


def advice(job: str, reason: str, state: str, limit_min: int) -> str | None:
    """What a person can do about a waiting job; None for a reason that passes by itself, such as Priority."""
    held = f"{reason} Held" if state in ("REQUEUE_HOLD", "SPECIAL_EXIT") else reason
    found = next((text for pattern, text in REASONS if re.search(pattern, held, re.IGNORECASE)), None)
    return found and found.format(job=job, limit=limit_min)


def refusal_advice(said: str, limit_min: int) -> str:
    """What a person can do about a job that sbatch does not take, to follow its words; empty where nobody knows.

    >>> refusal_advice("Batch job submission failed: Invalid license specification", 60)
    ''
    >>> refusal_advice("Batch job submission failed: Requested time limit is invalid (missing or ...)", 60)
    '; the partition allows less than hydra.launcher.timeout_min=60'
    """
    todo = advice("", re.sub(r"\(job submit limit.*?\)", "", said), "", limit_min)
    if todo is None and re.search(TOO_LARGE, said, re.IGNORECASE):
        todo = TOO_MUCH
    return f"; {todo}" if todo else ""
