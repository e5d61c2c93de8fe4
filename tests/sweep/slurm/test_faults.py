"""What SLURM says on bad days, from programs that print what real clusters print."""

from __future__ import annotations

import functools
import os
import re
import stat
import time
from pathlib import Path

import optuna
import pytest
from fake_slurm import FakeSlurm, fake, listed

from recyclelora.config.launchers import SlurmOptions
from recyclelora.runs.unit import Unit
from recyclelora.sweep import submitting
from recyclelora.sweep.attempts import Attempt
from recyclelora.sweep.driver import Driver
from recyclelora.sweep.execution import Job, NotNow, Stage, Status, Work
from recyclelora.sweep.executors import SLURM, make_executor
from recyclelora.sweep.ledger import Ledger, Trial
from recyclelora.sweep.planning import Plan
from recyclelora.sweep.slurm import calls, submission
from recyclelora.sweep.slurm import executor as executing
from recyclelora.sweep.slurm.driver import detach, submit_driver
from recyclelora.sweep.slurm.executor import SlurmExecutor
from recyclelora.sweep.slurm.queue import JobState, explain
from recyclelora.sweep.space import Space
from recyclelora.sweep.table import running_row
from recyclelora.system.errors import UserError
from sweep.slurm.tasks import Task

__all__ = ["fake"]


def executor_of(folder: Path, **keys: object) -> SlurmExecutor:
    made = make_executor({"_target_": SLURM, "poll_s": 0.01, **keys}, Task(), None, folder, 8, "study")
    assert isinstance(made, SlurmExecutor)
    return made


@pytest.fixture
def executor(fake: FakeSlurm, tmp_path: Path) -> SlurmExecutor:
    return executor_of(tmp_path / "sweep")


def trial_of(executor: SlurmExecutor, number: int = 0) -> Trial:
    trial = Ledger(executor.files.folder.parents[1]).add(number, {}, ["do=give"], [["do=give", "value=1"]], {})
    trial.attempts.append(Attempt(0, 1, "", ""))
    trial.save_state()
    return trial


def work_of(trial: Trial) -> Work:
    return Work(trial.number, trial.unit_folder(0), 1, trial.units[0])


def submitted(executor: SlurmExecutor) -> tuple[str, Trial]:
    trial = trial_of(executor)
    (job,) = executor.submit([work_of(trial)])
    return job.name, trial


def submitted_again(executor: SlurmExecutor, number: int) -> tuple[str, Trial]:
    trial = trial_of(executor, number)
    (job,) = executor.submit([work_of(trial)])
    Unit(trial.unit_folder(0)).started(1, job.name)
    return job.name, trial


def status(executor: SlurmExecutor, job: str) -> Status:
    executor._looked = -1e9
    return executor.status([job])[job]


# --- the environment --------------------------------------------------------------------------------------------------


def test_the_users_variables_neither_hide_jobs_nor_outrank_the_launcher(fake: FakeSlurm, tmp_path: Path, monkeypatch):
    for name, value in {
        "SQUEUE_PARTITION": "other", "SQUEUE_NAMES": "x", "SQUEUE_ACCOUNT": "x", "SQUEUE_QOS": "x", "SACCT_FORMAT": "x",
        "SLURM_CLUSTERS": "x", "SBATCH_TIMELIMIT": "1", "SBATCH_ACCOUNT": "mine", "SBATCH_PARTITION": "theirs",
        "SLURM_JOB_ID": "5", "SLURM_CONF": "/etc/here/slurm.conf", "HARMLESS": "1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    executor = executor_of(tmp_path / "sweep", partition="gpu")
    job, _ = submitted(executor)
    status(executor, job)
    for program, kept in (("squeue", {}), ("sbatch", {"SBATCH_ACCOUNT": "mine"})):
        seen = {k: v for k, v in fake.environment(program).items() if k.startswith(("SQ", "SB", "SL", "SACCT", "HARM"))}
        assert seen == {"SLURM_CONF": "/etc/here/slurm.conf", "HARMLESS": "1", **kept}
    assert "--all" in fake.calls("squeue")[-1].split()


# --- sbatch -----------------------------------------------------------------------------------------------------------

PASSING = [
    "sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: Job violates accounting/QOS "
    "policy (job submit limit, user's size and/or time limits)",
    "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates "
    "accounting/QOS policy (job submit limit, user's size and/or time limits)",
    "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
    "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
    "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying",
    "sbatch: error: Slurm job queue full, sleeping and retrying",
    "sbatch: error: QOSGrpSubmitJobsLimit\nsbatch: error: Batch job submission failed: Job violates accounting/QOS "
    "policy (job submit limit, user's size and/or time limits)",
    "sbatch: error: Batch job submission failed: Required partition not available (inactive or drain)",
    "sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received",
    'sbatch: error: Munge encode failed: Failed to access "/run/munge/munge.socket.2"',
]
WRONG = [
    "sbatch: error: invalid partition specified: nowhere\nsbatch: error: Batch job submission failed: Invalid "
    "partition name specified",
    "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified",
    "sbatch: error: Batch job submission failed: Requested node configuration is not available",
    "sbatch: error: Memory specification can not be satisfied\nsbatch: error: Batch job submission failed: Requested "
    "node configuration is not available",
    "sbatch: error: Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)",
    "sbatch: error: QOSMaxWallDurationPerJobLimit\nsbatch: error: Batch job submission failed: Job violates "
    "accounting/QOS policy (job submit limit, user's size and/or time limits)",
    "sbatch: unrecognized option '--nonsense=1'\nTry \"sbatch --help\" for more information",
]
BUT_POLICY = (
    "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size "
    "and/or time limits)"
)
REFUSED = {
    # what a SLURM 22.05 with accounting and EnforcePartLimits=ALL says -> the keys that the driver names
    f"sbatch: error: QOSMaxCpuPerUserLimit\n{BUT_POLICY}": "less than one such job: hydra.launcher.mem_gb",
    f"sbatch: error: QOSGrpCpuLimit\n{BUT_POLICY}": "less than one such job: hydra.launcher.mem_gb",
    f"sbatch: error: QOSGrpCPUMinutesLimit\n{BUT_POLICY}": "or less than one job: hydra.launcher.account, qos",
    f"sbatch: error: QOSMaxCpuMinutesPerJobLimit\n{BUT_POLICY}": "hydra.launcher.timeout_min=60, gres, nodes",
    f"sbatch: error: QOSMaxWallDurationPerJobLimit\n{BUT_POLICY}": "less than hydra.launcher.timeout_min=60",
    "sbatch: error: Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)":
        "the partition allows less than hydra.launcher.timeout_min=60",
    "sbatch: error: Batch job submission failed: Node count specification invalid": "hydra.launcher.nodes",
    "sbatch: error: Batch job submission failed: Memory required by task is not available": "hydra.launcher.mem_gb",
    "sbatch: error: Batch job submission failed: Requested reservation is invalid": "hydra.launcher.reservation",
    "sbatch: error: Batch job submission failed: Invalid node name specified": "hydra.launcher.nodelist",
    "sbatch: error: Batch job submission failed: Invalid feature specification": "hydra.launcher.constraint",
    "sbatch: error: Batch job submission failed: More processors requested than permitted": "cpus_per_task",
    "sbatch: error: Batch job submission failed: Invalid qos specification": "hydra.launcher.qos",
    WRONG[0]: "hydra.launcher.partition",
    WRONG[1]: "hydra.launcher.account",
    WRONG[3]: "hydra.launcher.constraint, gres, mem_gb",
}  # fmt: skip
HANGS = 'echo "${@: -1}" > $FAKE/path; sleep 100'
UNKNOWN = "sbatch: error: Batch job submission failed: Unspecified error"


@pytest.mark.parametrize("text", PASSING)
def test_what_passes_is_waited_for_from_the_first_job_on(fake: FakeSlurm, executor: SlurmExecutor, text: str):
    fake.queue(listed("9", "RUNNING"))  # of this user
    fake.says("sbatch", "Welcome! Invalid account? Ask us.\n", f"lua: remember error codes\n{text}\n", 1)
    with pytest.raises(NotNow, match="sbatch: "):
        submitted(executor)


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_with_the_request_ends_the_sweep_at_any_time(fake: FakeSlurm, executor, text: str, capfd):
    submitted(executor)
    fake.says("sbatch", "", text, 1)
    with pytest.raises(UserError, match="sbatch refuses the job: ") as refused:
        executor.submit([work_of(trial_of(executor, 1))])
    assert "\n" not in str(refused.value) and capfd.readouterr() == ("", "")  # said once, by who asks
    assert not list(executor.files.private.iterdir())


@pytest.mark.parametrize("text", REFUSED)
def test_what_can_never_start_is_refused_with_the_key_to_change(fake: FakeSlurm, executor: SlurmExecutor, text: str):
    submitted(executor)  # that others were taken is no hope for it
    fake.says("sbatch", "", text, 1)
    with pytest.raises(UserError, match=re.escape(REFUSED[text])) as refused:
        executor.submit([work_of(trial_of(executor, 1))])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("limit", ["AssocMaxSubmitJobLimit", "QOSMaxSubmitJobPerUserLimit"])
def test_a_limit_of_ones_own_jobs_is_waited_for_while_there_are_any(fake: FakeSlurm, executor, limit: str):
    """A limit of 0 is how sites close an account."""
    fake.says("sbatch", "", f"sbatch: error: {limit}\n{BUT_POLICY}", 1)
    with pytest.raises(UserError, match=r"hydra.launcher.account, qos: none of your jobs is in the queue"):
        submitted(executor)
    assert len(fake.calls("sbatch")) == 2  # the last of them may have ended between
    fake.queue(listed("9", "PENDING"))
    with pytest.raises(NotNow, match=r"no more jobs into the queue: hydra.launcher.account, qos"):
        executor.submit([work_of(trial_of(executor, 1))])
    fake.does("squeue", "exit 1")
    with pytest.raises(NotNow):
        executor.submit([work_of(trial_of(executor, 2))])


def test_an_unknown_refusal_is_waited_for_once_such_a_job_was_taken(fake: FakeSlurm, executor: SlurmExecutor):
    fake.says("sbatch", "", UNKNOWN, 1)
    with pytest.raises(UserError, match="Unspecified error"):
        submitted(executor)
    fake.says("sbatch", "7\n")
    executor.submit([work_of(trial_of(executor, 1))])
    for again in (executor, executor_of(executor.files.folder.parents[1])):  # also by the next driver
        fake.says("sbatch", "", UNKNOWN, 1)
        with pytest.raises(NotNow):
            again.submit([work_of(trial_of(executor, 2))])
    other = executor_of(executor.files.folder.parents[1], cpus_per_task=3)  # of a larger job it says nothing
    with pytest.raises(UserError):
        other.submit([work_of(trial_of(executor, 3))])


def test_an_sbatch_that_is_gone_is_waited_for(fake: FakeSlurm, executor: SlurmExecutor, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="there is no sbatch here"):
        submitted(executor)
    monkeypatch.setenv("PATH", f"{fake.folder / 'bin'}:/usr/bin:/bin")
    executor.submit([work_of(trial_of(executor, 1))])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotNow, match="no sbatch"):
        executor.submit([work_of(trial_of(executor, 2))])


@pytest.mark.parametrize(
    "out", ["*** 12 May: maintenance ***\n4711\n", "quota: 80 %\n4711;tiger\n", "Submitted batch job 4711\n"]
)
def test_a_jobs_number_is_found_among_a_sites_words(fake: FakeSlurm, executor: SlurmExecutor, tmp_path: Path, out: str):
    fake.says("sbatch", out)
    assert submitted(executor)[0] == "4711"
    assert submit_driver(["true"], tmp_path / "sweep", SlurmOptions(), "s") == "4711"


def test_a_hanging_sbatch_ends_at_its_deadline_and_its_job_does_not_run(fake: FakeSlurm, executor, monkeypatch):
    monkeypatch.setattr(submission, "call", functools.partial(calls.call, seconds=0.5))
    fake.does("sbatch", HANGS)
    fake.does("squeue", "exit 1")  # the controller is busy with itself
    began = time.monotonic()
    with pytest.raises(NotNow, match="sbatch does not answer"):
        submitted(executor)
    assert time.monotonic() - began < 20
    assert not list(executor.files.private.glob("*.pkl"))  # whatever was taken finds nothing to run
    fake.does("squeue", 'echo "55 $(cat $FAKE/path)"')
    fake.says("sbatch", "56\n")
    assert executor.submit([work_of(trial_of(executor, 1))]) == [Job("56")]
    assert fake.calls("scancel") == ["55"]


def test_a_job_that_sbatch_did_not_name_is_found_by_its_script(fake: FakeSlurm, executor, monkeypatch):
    monkeypatch.setattr(submission, "call", functools.partial(calls.call, seconds=0.5))
    fake.does("sbatch", HANGS)
    fake.does("squeue", 'echo "54 /other.sh"; echo "55 $(cat $FAKE/path)"')
    job, _ = submitted(executor)
    assert job == "55" and (executor.files.folder.parent / "55/55_submitted.pkl").exists()


def test_a_signal_cuts_a_hanging_call_short(fake: FakeSlurm, executor: SlurmExecutor, monkeypatch):
    monkeypatch.setattr(calls, "HURRIED", 0.3)
    fake.does("squeue", "sleep 100")
    executor.hurry()
    began = time.monotonic()
    assert calls.ask(["squeue"]) is None
    assert time.monotonic() - began < 20
    calls.hurry(False)


# --- squeue -----------------------------------------------------------------------------------------------------------


def test_bytes_that_are_no_utf8_harm_nothing(fake: FakeSlurm, executor: SlurmExecutor):
    job, _ = submitted(executor)
    fake.queue(
        b"9 \xff\xfe",
        listed("8", "R\u00fcnning").encode("latin-1"),
        listed(job, "PENDING", "Bl\u00f6d").encode("latin-1"),
    )
    assert status(executor, job) == Status(Stage.QUEUED, "Bl\ufffdd")


def test_an_empty_queue_is_no_death(fake: FakeSlurm, executor: SlurmExecutor, monkeypatch):
    monkeypatch.setattr(executing, "LATE_FILES", 0.5)
    job, trial = submitted(executor)
    fake.says("scontrol", f"JobId={job} JobName=x JobState=RUNNING Reason=None ExitCode=0:0 NodeList=n1\n")
    assert status(executor, job).stage == Stage.RUNNING
    fake.says("scontrol", "", "slurm_load_jobs error: Invalid job id specified\n", 1)  # as another cluster would say
    for step in range(4):
        Unit(trial.unit_folder(0)).progress(step, 9, 1.0)
        assert status(executor, job).stage == Stage.RUNNING
        time.sleep(0.3)
    assert fake.calls("scancel") == []
    time.sleep(0.5)
    assert status(executor, job) == Status(Stage.GONE, "SLURM does not know this job any more", node_fault=True)
    assert fake.calls("scancel") == [job]  # should it live after all


def test_where_nobody_can_say_a_job_is_lost_only_after_a_long_silence(fake: FakeSlurm, executor, monkeypatch):
    job, _ = submitted(executor)
    fake.says("scontrol", "", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n", 1)
    assert status(executor, job).stage == Stage.QUEUED
    monkeypatch.setattr(executing, "SILENT", 0.0)
    assert status(executor, job).stage == Stage.GONE


# --- why a job waits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "reason", "words"),
    [
        ("PENDING", "PartitionTimeLimit", "hydra.launcher.timeout_min=60"),
        ("PENDING", "QOSMaxWallDurationPerJobLimit", "hydra.launcher.timeout_min=60"),
        ("PENDING", "QOSTimeLimit", "hydra.launcher.timeout_min=60"),
        ("PENDING", "AssocMaxGRESMinutesPerJob", "hydra.launcher.timeout_min=60, gres"),
        ("PENDING", "QOSMaxCpuMinutesPerJobLimit", "hydra.launcher.timeout_min=60, gres"),
        ("PENDING", "AssocGrpGRESMinutes", "hydra.launcher.account, qos"),
        ("PENDING", "QOSGrpCPUMinutesLimit", "hydra.launcher.account, qos"),
        ("PENDING", "AssocGrpWallLimit", "hydra.launcher.account, qos"),
        ("PENDING", "QOSMaxGRESPerNode", "hydra.launcher.mem_gb"),
        ("PENDING", "QOSMinGRES", "hydra.launcher.mem_gb"),
        ("PENDING", "PartitionMaxNodes", "hydra.launcher.nodes"),
        ("PENDING", "QOSMaxGRESPerJob", "hydra.launcher.mem_gb"),
        ("PENDING", "JobHeldUser", "scontrol release 101"),
        ("PENDING", "launch failed requeued held", "scancel 101"),
        ("REQUEUE_HOLD", "job requeued in held state", "scontrol release 101"),
        ("PENDING", "ReqNodeNotAvail, UnavailableNodes:n[1-3]", "hydra.launcher.nodelist"),
        ("PENDING", "PartitionDown", "hydra.launcher.partition"),
        ("PENDING", "PartitionConfig", "hydra.launcher.cpus_per_task"),
        ("PENDING", "BadConstraints", "hydra.launcher.constraint"),
    ],
)  # fmt: skip
def test_what_will_not_start_says_what_to_change(fake: FakeSlurm, executor, state: str, reason: str, words: str):
    job, _ = submitted(executor)
    fake.queue(listed(job, state, reason))
    found = status(executor, job)
    assert found.stage == Stage.QUEUED and found.stuck and (found.reason or "").startswith(f"{reason}: ")
    assert words in (found.reason or "")


@pytest.mark.parametrize(
    "reason",
    [
        "Priority",
        "Resources",
        "BeginTime",
        "Dependency",
        "QOSMaxJobsPerUserLimit",
        "QOSMaxGRESPerUser",
        "AssocGrpCpuLimit",
        "AssocGrpGRES",
        "AssocGrpCPURunMinutesLimit",
        "QOSGrpGRESRunMinutes",
        "QOSGrpNodeLimit",
    ],
)
def test_what_passes_by_itself_is_only_shown(fake: FakeSlurm, executor: SlurmExecutor, reason: str):
    job, _ = submitted(executor)
    fake.queue(listed(job, "PENDING", reason))
    assert status(executor, job) == Status(Stage.QUEUED, reason)


def test_a_limit_of_one_user_never_passes_where_no_other_job_of_theirs_runs(fake, executor, monkeypatch):
    """Without ``DenyOnLimit`` sbatch takes a job that is larger than all that its user may have at once."""
    job, _ = submitted(executor)
    fake.queue(listed(job, "PENDING", "QOSMaxGRESPerUser"))
    assert status(executor, job) == Status(Stage.QUEUED, "QOSMaxGRESPerUser")  # SLURM may not have looked again yet
    monkeypatch.setattr(executing, "STALE", 0.0)
    found = status(executor, job)
    assert found.stuck and "less than one such job: hydra.launcher.mem_gb" in (found.reason or "")
    fake.queue(listed(job, "PENDING", "QOSMaxGRESPerUser"), listed("9", "RUNNING"))
    assert status(executor, job) == Status(Stage.QUEUED, "QOSMaxGRESPerUser")


def test_a_job_that_outlives_its_budget_says_nothing_about_its_trial(fake: FakeSlurm, executor, monkeypatch):
    """SLURM calls it TIMEOUT, reason TimeLimit, as if it had met its own limit."""
    monkeypatch.setattr(executor, "_silent_for", lambda job: 99.0)
    job, trial = submitted(executor)
    Unit(trial.unit_folder(0)).started(1, job)
    fake.queue(listed(job, "TIMEOUT", "TimeLimit", ran="3:26"))
    found = status(executor, job)
    assert found.excused and found.node_fault and "after 3 of its 60 min: a budget" in (found.reason or "")
    for ran in ("1:00:12", "59:59"):
        (late, trial) = submitted_again(executor, trial.number + 1)
        fake.queue(listed(late, "TIMEOUT", "TimeLimit", ran=ran))
        found = status(executor, late)
        assert not found.excused and "took longer than hydra.launcher.timeout_min" in (found.reason or "")


def test_a_job_that_a_nodes_prolog_kept_from_starting_is_released_but_not_for_ever(fake: FakeSlurm, executor):
    job, _ = submitted(executor)
    held = listed(job, "PENDING", "launch failed requeued held")
    fake.does("scontrol", "")
    fake.queue(held)
    for _ in range(executing.MOST_RELEASES):
        found = status(executor, job)
        assert (found.stage, found.stuck, found.news) == (Stage.QUEUED, False, True)
    assert fake.calls("scontrol")[-3:] == [f"release {job}"] * 3
    assert status(executor, job).stuck and f"scontrol release {job}" in (status(executor, job).reason or "")
    fake.queue(listed(job, "RUNNING"))
    assert status(executor, job).stage == Stage.RUNNING
    fake.queue(held)
    assert status(executor, job).news  # it started meanwhile: there are nodes that can
    assert len(fake.calls("sbatch")) == 1


def test_a_job_that_was_taken_and_then_found_impossible_says_why():
    """SLURM 22.05 gives it the exit status 1, as if a signal had killed it."""
    found = explain(JobState("FAILED", "BadConstraints", signal=1), 60)
    assert found.stage == Stage.GONE and found.node_fault and "hydra.launcher.constraint" in (found.reason or "")


def test_scontrol_writes_the_same_reasons_with_underscores(fake: FakeSlurm, executor: SlurmExecutor):
    job, _ = submitted(executor)
    fake.does(
        "scontrol",
        f"[ $1 = show ] && echo JobId={job} JobState=PENDING Reason=launch_failed_requeued_held 'Dependency=(null)'",
    )
    assert f"scancel {job}" in (status(executor, job).reason or "")


def test_the_shipped_time_limit_fits_the_partition(fake: FakeSlurm, tmp_path: Path):
    fake.says(
        "scontrol",
        "PartitionName=cpu Default=NO MaxTime=UNLIMITED State=UP\nPartitionName=short Default=YES MaxTime=08:00:00\n"
        "PartitionName=long Default=NO MaxTime=7-00:00:00\n",
    )
    for keys, minutes in (({}, 480), ({"partition": "long"}, 1440), ({"partition": "cpu"}, 1440),
                          ({"partition": "long,short"}, 480), ({"timeout_min": 600}, 600)):  # fmt: skip
        script = executor_of(tmp_path, **{"timeout_min": None, **keys}).script(Work(0, tmp_path, 1, []))
        assert f"#SBATCH --time={minutes}" in script.splitlines()
    fake.says("scontrol", "", "Unable to contact slurm controller", 1)
    assert "#SBATCH --time=1440" in executor_of(tmp_path, timeout_min=None).script(Work(0, tmp_path, 1, []))


# --- what excludes each other -----------------------------------------------------------------------------------------


def test_one_of_two_options_that_sbatch_does_not_take_together(tmp_path: Path):
    shipped = {"cpus_per_task": 8, "gres": "gpu:1", "mem_gb": 64}
    given = {"mem_per_cpu": "4G", "cpus_per_gpu": 8, "gpus_per_task": 2, "exclusive": False}
    script = executor_of(tmp_path, **shipped, **given, additional_parameters={"contiguous": False}).script(
        Work(0, tmp_path, 1, [])
    )
    flags = {
        line.split("=")[0].removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")
    }
    assert {"mem-per-cpu", "cpus-per-gpu", "gpus-per-task"} <= flags
    assert not {"mem", "cpus-per-task", "gres", "exclusive", "contiguous"} & flags
    with pytest.raises(UserError, match="mem_per_cpu and mem_per_gpu"):
        executor_of(tmp_path, mem_per_cpu="1G", mem_per_gpu="1G")


# --- nodes on which nothing begins ------------------------------------------------------------------------------------


def test_a_node_on_which_jobs_die_at_once_gets_no_more(fake: FakeSlurm, tmp_path: Path, monkeypatch):
    executor = executor_of(tmp_path / "sweep", exclude="n9")
    job, _ = submitted(executor)
    fake.queue(listed(job, "FAILED", code=127, node="n3"))
    monkeypatch.setattr(executor, "_silent_for", lambda job: 99.0)
    found = status(executor, job)
    assert found.node_fault and "before its trial began" in (found.reason or "")
    assert "n3 gets no more jobs" in (found.reason or "") and str(executor.files.folder.parent / job) in (
        found.reason or ""
    )
    executor.submit([work_of(trial_of(executor, 1))])
    assert "#SBATCH --exclude=n9,n3" in fake.script.splitlines()
    # where no other node is left, rather a bad one than none
    fake.does("sbatch", f'if grep -q exclude=n9,n3 "${{@: -1}}"; then echo "{WRONG[2]}" >&2; exit 1; fi; echo 7')
    assert executor.submit([work_of(trial_of(executor, 2))]) == [Job("7")]
    assert "#SBATCH --exclude=n9" in fake.script.splitlines()


def test_a_node_is_not_to_blame_for_what_a_trial_does(fake: FakeSlurm, executor: SlurmExecutor, monkeypatch):
    job, trial = submitted(executor)
    monkeypatch.setattr(executor, "_silent_for", lambda job: 99.0)
    Unit(trial.unit_folder(0)).started(1, job)
    fake.queue(listed(job, "FAILED", code=7, node="n3"))
    assert status(executor, job) == Status(Stage.GONE, "failed: the job left with exit code 7")
    assert executor.submitter.left_out == set()


# --- the driver -------------------------------------------------------------------------------------------------------


class Lines:
    def __init__(self) -> None:
        self.said: list[str] = []

    def event(self, text: str) -> None:
        self.said.append(text)

    def update(self, driver: Driver) -> None:
        pass


def driver_of(executor: SlurmExecutor, *, trials: int = 1, max_retries: int = 2) -> tuple[Driver, Lines]:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    numbers = [{"x": i} for i in range(trials)]
    x = optuna.distributions.CategoricalDistribution([p["x"] for p in numbers])
    plan = Plan(Space({"x": x}, ["x"], {}), trials, numbers, None, max_retries=max_retries)
    ledger, lines = Ledger(executor.files.folder.parents[1]), Lines()
    ledger.root.mkdir(parents=True, exist_ok=True)
    return Driver(plan, optuna.create_study(direction="maximize"), ledger, executor, lines, optuna.create_study), lines


def turn(driver: Driver) -> None:
    """One turn of the driver's loop, without its pauses."""
    driver.executor._looked = driver.units._looked_back = -1e9
    driver.units.look()
    driver.units.take_late()
    driver._submit()


def test_a_refused_trial_is_not_left_running(fake: FakeSlurm, executor: SlurmExecutor):
    driver, _ = driver_of(executor)
    fake.says("sbatch", "", WRONG[0], 1)
    with pytest.raises(UserError):
        turn(driver)
    (trial,) = driver.ledger.trials()
    assert (trial.state, trial.attempts) == ("waiting", [])


def test_while_nothing_is_taken_the_driver_waits_and_says_so_once(fake: FakeSlurm, executor, monkeypatch):
    monkeypatch.setattr(submitting, "PAUSES", (0.01, 0.02))
    driver, lines = driver_of(executor)
    driver.submitting._pause = 0.01
    fake.queue(listed("9", "RUNNING"))
    fake.says("sbatch", "", PASSING[0], 1)
    for _ in range(4):
        turn(driver)
        time.sleep(0.03)
    assert [a.job for t in driver.ledger.trials() for a in t.attempts] == [] and len(fake.calls("sbatch")) == 4
    fake.says("sbatch", "12\n")
    turn(driver)
    assert [line.split(";")[0] for line in lines.said] == ["sbatch: AssocMaxSubmitJobLimit", "jobs are taken again"]
    assert [(t.state, t.attempts[0].job) for t in driver.ledger.trials()] == [("running", "12")]


def test_what_waits_for_a_person_is_said_once_and_shown_everywhere(fake: FakeSlurm, executor: SlurmExecutor):
    driver, lines = driver_of(executor)
    turn(driver)
    fake.queue(listed("101", "PENDING", "PartitionTimeLimit"))
    turn(driver)
    turn(driver)
    (said,) = lines.said
    assert said.startswith("job 101 (trial 0) cannot start: PartitionTimeLimit: ") and "timeout_min=60" in said
    (trial,) = driver.ledger.trials()
    assert "waits: PartitionTimeLimit: the partition allows less" in running_row(trial, 0, "101")[5]
    fake.queue(listed("101", "RUNNING"))
    turn(driver)
    assert running_row(trial, 0, "101")[5] == "queued"


def test_a_trial_whose_jobs_die_before_it_begins_goes_elsewhere(fake: FakeSlurm, executor, monkeypatch):
    """With no retry left for the trial's own failures."""
    monkeypatch.setattr(executor, "_silent_for", lambda job: 99.0)
    driver, lines = driver_of(executor, trials=2, max_retries=0)
    turn(driver)
    first, second = driver.ledger.trials()
    Unit(second.unit_folder(0)).started(1, "102")
    fake.queue(listed("101", "FAILED", code=1, node="n3"), listed("102", "RUNNING", node="n1"))
    turn(driver)
    assert "--exclude=n3" in fake.script and "trial 0 is tried again" in lines.said[0]
    Unit(first.unit_folder(0)).outcome("complete", attempt=2, seconds=1.0, values=[5.0])
    turn(driver)
    assert [t.values for t in driver.ledger.trials()] == [[5.0], None]


def test_where_no_job_gets_as_far_as_its_trial_the_trials_do_not_burn(fake: FakeSlurm, executor, monkeypatch):
    monkeypatch.setattr(executor, "_silent_for", lambda job: 99.0)
    driver, _ = driver_of(executor, trials=8)
    turn(driver)
    fake.queue(*(listed(str(job), "FAILED", code=127, node=f"n{job}") for job in range(101, 109)))
    with pytest.raises(UserError, match=r"jobs died before their trials began.*exit code 127 on n\d+ before its trial"):
        turn(driver)
    assert {t.state for t in driver.ledger.trials()} <= {"waiting", "running"}


def test_one_black_hole_is_no_reason_to_end_while_other_jobs_may_begin(fake: FakeSlurm, executor, monkeypatch):
    monkeypatch.setattr(executor, "_silent_for", lambda job: 99.0)
    driver, _ = driver_of(executor, trials=5)
    turn(driver)
    fake.queue(*(listed(str(job), "FAILED", code=1, node="n2") for job in range(101, 105)), listed("105", "RUNNING"))
    turn(driver)
    assert {t.state for t in driver.ledger.trials()} == {"running"} and len(driver.units.jobs) == 5


@pytest.mark.parametrize("end", ["NODE_FAIL", "CANCELLED", "PREEMPTED"])
def test_what_befalls_a_trial_uses_up_none_of_its_tries(fake: FakeSlurm, executor, monkeypatch, end: str):
    monkeypatch.setattr(executor, "_silent_for", lambda job: 99.0)
    driver, _ = driver_of(executor, max_retries=0)
    turn(driver)
    (trial,) = driver.search.trials.values()
    for attempt in range(1, 6):
        job = trial.attempts[-1].job
        Unit(trial.unit_folder(0)).started(attempt, job)
        fake.queue(listed(job, end))
        turn(driver)
    assert trial.state == "running" and len(trial.attempts) == 6
    Unit(trial.unit_folder(0)).started(6, trial.attempts[-1].job)
    fake.queue(listed(trial.attempts[-1].job, "FAILED", code=7))
    turn(driver)
    assert trial.state == "failed"


def test_a_late_outcome_is_taken(fake: FakeSlurm, executor: SlurmExecutor, monkeypatch):
    """Two trials whose jobs are believed dead: one is submitted again, one is given up; both have ended well."""
    driver, _ = driver_of(executor, trials=2)
    turn(driver)
    again, given_up = driver.search.trials.values()
    again.attempts[0].ended, again.attempts[0].node_fault = "now", True
    again.attempts.append(Attempt(0, 2, "103", ""))
    again.save_state()
    driver.units.jobs = {"103": [(again, 0)]}
    executor._last["103"] = Status(Stage.QUEUED)
    Path((executor.files.of("103") / "103_units.json").parent).mkdir()
    (executor.files.of("103") / "103_units.json").write_text(
        '{"name": "x", "units": [{"folder": "../ledger/0000/unit_0", "attempt": 2}]}'
    )
    given_up.attempts[0].node_fault = True
    driver.units._end(given_up, "failed", reason="SLURM does not know this job any more; 3 attempts")
    for trial, value in ((again, 3.0), (given_up, 4.0)):
        Unit(trial.unit_folder(0)).outcome("complete", attempt=1, seconds=1.0, values=[value])
    assert not Unit(again.unit_folder(0)).wants(2)  # the new job, should it start, has nothing to do
    turn(driver)
    assert [(t.state, t.values) for t in driver.ledger.trials()] == [("complete", [3.0]), ("complete", [4.0])]
    assert fake.calls("scancel") == ["103"]


def test_a_path_that_slurm_would_read_otherwise_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"100%job: SLURM reads % in a path as its own"):
        executor_of(tmp_path / "100%job")


def test_a_folder_that_a_group_shares_keeps_its_rights(fake: FakeSlurm, tmp_path: Path):
    """What is private lies inside, apart for each user."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs").chmod(0o2775)
    executor = executor_of(tmp_path / "sweep", submitit_folder=f"{tmp_path}/logs/%j")
    job, _ = submitted(executor)
    assert stat.S_IMODE((tmp_path / "logs").stat().st_mode) == 0o2775
    inside = {path.name: stat.S_IMODE(path.stat().st_mode) & 0o777 for path in (tmp_path / "logs").iterdir()}
    assert inside == {f".new-{os.getuid()}": 0o700, job: 0o700}


def test_a_sweep_that_another_account_began_says_what_to_do(fake: FakeSlurm, tmp_path: Path, monkeypatch):
    root = tmp_path / "sweep" / "submitit"
    root.mkdir(parents=True)
    allowed = os.access
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != root and allowed(path, mode))
    words = r"submitit: is another account's, .* study=; reuse=true"
    with pytest.raises(UserError, match=words):
        executor_of(tmp_path / "sweep")
    with pytest.raises(UserError, match=words):
        detach(SlurmOptions(), tmp_path / "sweep", "study")


def test_jobs_trust_and_read_what_the_user_lets_their_driver_where_sbatch_passes_nothing_on(monkeypatch):
    monkeypatch.setenv("RECYCLELORA_TRUSTED", "/my files:/theirs")
    monkeypatch.setenv("RECYCLELORA_READABLE", "MY_TOKEN")
    monkeypatch.setenv("MY_TOKEN", "abcdefgh")
    monkeypatch.setenv("HF_HOME", "/srv/weights")
    lines = submission.exports()
    assert "export HF_HOME=/srv/weights" in lines  # shared weights are found where they were when the run was named
    assert {"export RECYCLELORA_TRUSTED='/my files:/theirs'", "export RECYCLELORA_READABLE=MY_TOKEN"} <= {*lines}
    assert not any("abcdefgh" in line for line in lines)
