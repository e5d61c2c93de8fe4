"""Why a job waits, in words: most reasons pass by themselves; for the others, the key to change."""

from __future__ import annotations

import re

REASONS = (
    (r"PartitionTimeLimit", "the partition allows less than hydra.launcher.timeout_min={limit}"),
    (r"WallDuration|MaxWall", "the account or QOS allows less than hydra.launcher.timeout_min={limit}"),
    (r"PartitionNodeLimit", "the partition does not give so many nodes: hydra.launcher.nodes"),
    (r"Minutes", "the account's budget is used up: hydra.launcher.account"),
    (r"PerJob|MaxMemPerLimit|MinCpu|MinGRES|MinMemory|MinTRES",
     "the account or QOS allows other sizes of jobs: hydra.launcher.mem_gb, cpus_per_task, gres, nodes, qos"),
    (r"InvalidAccount|AccountNotAllowed|AssocNotAllowed", "hydra.launcher.account is not allowed here"),
    (r"InvalidQOS|QOSNotAllowed|QOSUsageThreshold", "hydra.launcher.qos is not allowed here"),
    (r"PartitionDown|PartitionInactive|PartitionConfig",
     "the partition takes no jobs now: wait, or another hydra.launcher.partition"),
    (r"BadConstraints|FedJobLock|AccountingPolicy",
     "no node has what is asked for: hydra.launcher.constraint, gres, mem_gb, cpus_per_task, exclude"),
    (r"ReqNodeNotAvail|DOWN,?[ _]DRAINED|NodeDown",
     "nodes that it needs are down, drained or reserved: wait, or another hydra.launcher.nodelist, partition"),
    (r"ReservationDeleted|InvalidReservation", "hydra.launcher.reservation is gone"),
    (r"DependencyNeverSatisfied", "what it depends on has failed: hydra.launcher.additional_parameters"),
    (r"(launch|prolog).*held|requeued.*held|MaxRequeue",
     "a node could not start it: 'scontrol release {job}' tries again, 'scancel {job}' lets the sweep submit it anew"),
    (r"Held", "held: 'scontrol release {job}' lets it start"),
)  # fmt: skip
"""Pattern over SLURM's reason -> what to do; ``{limit}`` in minutes, ``{job}`` its number."""


def advice(job: str, reason: str, state: str, limit_min: int) -> str | None:
    """What a person can do about a waiting job; None for a reason that passes by itself, such as Priority."""
    held = f"{reason} Held" if state in ("REQUEUE_HOLD", "SPECIAL_EXIT") else reason
    found = next((text for pattern, text in REASONS if re.search(pattern, held, re.IGNORECASE)), None)
    return found and found.format(job=job, limit=limit_min)
