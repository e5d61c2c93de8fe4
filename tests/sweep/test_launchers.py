"""The launchers' keys, what they become, and what SLURM's words mean; without SLURM."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.plugins import Plugins
from hydra.types import HydraContext
from omegaconf import OmegaConf
from sweeping import Sweeping

from recyclelora.config.compose import home, register_schemas
from recyclelora.config.launchers import DriverOptions, SlurmOptions
from recyclelora.sweep.execution import Stage, Status, Work
from recyclelora.sweep.executors import LOCAL, SLURM, make_executor, visible_gpus
from recyclelora.sweep.local import LocalExecutor
from recyclelora.sweep.slurm.driver import driver_script, submit_driver
from recyclelora.sweep.slurm.executor import SlurmExecutor
from recyclelora.sweep.slurm.job import share
from recyclelora.sweep.slurm.queue import JobState, explain, in_seconds
from recyclelora.system.errors import UserError

TASK: Any = SimpleNamespace(function=print)


def slurm(folder: Path, **keys: object) -> SlurmExecutor:
    executor = make_executor({"_target_": SLURM, **keys}, TASK, None, folder, 8, "study")
    assert isinstance(executor, SlurmExecutor)
    return executor


def flags(script: str) -> set[str]:
    return {line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH")}


def test_every_key_reaches_sbatch(tmp_path: Path):
    executor = slurm(
        tmp_path, partition="gpu", qos="high", constraint="a100|h100", reservation="r", account="a b", gres="gpu:1",
        cpus_per_task=8, mem_gb=1.5, timeout_min=90, signal_delay_s=60, exclusive=True, nodes=2, tasks_per_node=4,
        additional_parameters={"mail-type": "END"}, setup=["module load cuda"], srun_args=["--cpu-bind=none"],
        python="apptainer exec --nv 'an image.sif' python",
    )  # fmt: skip
    script = executor.script(Work(7, tmp_path / "unit", 1, []))
    assert flags(script) >= {
        "job-name=study-0007", "partition=gpu", "qos=high", "constraint='a100|h100'", "reservation=r",
        "account='a b'", "gres=gpu:1", "cpus-per-task=8", "mem=1536MB", "time=90", "signal=USR2@60", "exclusive",
        "nodes=2", "ntasks-per-node=4", "mail-type=END", "requeue", "open-mode=append",
    }  # fmt: skip
    lines = script.splitlines()
    command = next(line for line in lines if line.startswith("srun"))
    assert "--kill-on-bad-exit=1" in command and "--cpu-bind=none" in command
    assert f"apptainer exec --nv 'an image.sif' python -u -m submitit.core._submit {tmp_path}" in command
    assert lines.index("module load cuda") < lines.index(command)


def test_scripts_carry_paths_but_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", "/a b/src")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "s3cr3t")
    work = Work(0, tmp_path, 1, ["data.root='$(touch here)'"])
    for script in (slurm(tmp_path).script(work), driver_script(["python", "a; b"], tmp_path, SlurmOptions(), "s")):
        assert "export PYTHONPATH='/a b/src'" in script.splitlines()
        assert "s3cr3t" not in script and "touch here" not in script
    assert "python 'a; b' &" in script


def test_the_drivers_job_has_its_own_resources(tmp_path: Path):
    options = SlurmOptions(
        partition="gpu", account="a", gres="gpu:1", driver=DriverOptions("cpu", timeout_min=60, cpus=2, mem_gb=3)
    )
    found = flags(driver_script(["python"], tmp_path, options, "study"))
    assert found >= {"job-name=study-driver", "partition=cpu", "account=a", "time=60", "cpus-per-task=2", "mem=3072M"}
    assert "requeue" in found and not any(flag.startswith("gres") for flag in found)


def test_requeue_can_be_left_to_the_driver(tmp_path: Path):
    found = flags(slurm(tmp_path, requeue=False).script(Work(0, tmp_path, 1, [])))
    assert "no-requeue" in found and "requeue" not in found


@pytest.mark.parametrize(
    ("keys", "gpus"),
    [
        ({}, 1), ({"gres": "gpu:2"}, 2), ({"gres": "gpu:a100:4", "nodes": 2}, 8), ({"gres": "gpu:h100"}, 1),
        ({"gres": "gpu:a100:2(S:0,1),mps:50"}, 2), ({"gres": "gpu:2080ti:3"}, 3), ({"gpus_per_node": 8}, 8),
        ({"gpus_per_task": 1, "tasks_per_node": 4, "nodes": 2}, 8),
    ],
)  # fmt: skip
def test_gpus_of_an_allocation(keys: dict, gpus: int):
    assert SlurmOptions(**keys).gpus == gpus


def test_what_a_trial_needs_is_said_last(tmp_path: Path):
    options = SlurmOptions(
        partition=["a", "b"], mem_gb=8, gres="gpu:1",
        resources=[{"when": "backbone=huge|giant", "partition": "c", "gpus_per_node": 2}, {"when": "x=1", "mem_gb": 1}],
        fallback=[{"mem_per_gpu": "40G"}],
    )  # fmt: skip
    options.check()
    large, instead = options.choices(lambda key: "huge")
    assert (large.partition, large.gres, large.gpus_per_node, large.mem_gb) == ("c", None, 2, 8)
    assert (instead.partition, instead.mem_gb, instead.mem_per_gpu) == ("c", None, "40G")
    assert options.choices(lambda key: "small")[0].partition == "a,b"


def test_capacity_counts_trials(tmp_path: Path):
    assert (slurm(tmp_path).capacity, slurm(tmp_path).units_at_once) == (8, 1)
    packed = slurm(tmp_path, trials_per_job=3, array_parallelism=2)
    assert (packed.capacity, packed.units_at_once) == (6, 3)
    assert slurm(tmp_path, trials_per_job=2, array=True).units_at_once == 8


@pytest.mark.parametrize(
    ("target", "keys", "words"),
    [
        (SLURM, {"trials_per_job": 0}, "hydra.launcher.trials_per_job=0: must be at least 1"),
        (SLURM, {"trials_per_job": 2, "nodes": 2}, "trials that share an allocation are one process each"),
        (SLURM, {"use_srun": False, "tasks_per_node": 2}, "hydra.launcher.use_srun=false: only srun"),
        (SLURM, {"signal_delay_s": 120, "timeout_min": 2}, "must be less than timeout_min=2 minutes"),
        (SLURM, {"fallback_min": 0}, "hydra.launcher.fallback_min=0: must be more than 0"),
        (SLURM, {"fallback": [{"setup": ["id"]}]}, r"hydra.launcher.fallback\[0\] cannot set setup; it can mem_gb"),
        (SLURM, {"fallback": ["gpu"]}, r"hydra.launcher.fallback\[0\]=gpu: must be keys and values"),
        (SLURM, {"fallback": [{"gres": "a\nid"}]}, r"fallback\[0\].gres='a\\nid': must be one line"),
        (SLURM, {"resources": [{"mem_gb": 8}]}, r"hydra.launcher.resources\[0\]: has no when, such as"),
        (SLURM, {"resources": [{"when": "x", "mem_gb": 8}]}, r"resources\[0\].when='x': write key=value"),
        (SLURM, {"resources": [{"when": "x=1", "mem_gb": "much"}]}, r"hydra.launcher.resources\[0\]: Value 'much'"),
        (SLURM, {"poll_s": 0}, "hydra.launcher.poll_s=0: must be more than 0"),
        (SLURM, {"comment": "a\ntouch /tmp/x"}, r"hydra.launcher.comment='a\\ntouch /tmp/x': must be one line"),
        (SLURM, {"driver": {"qos": "a\nid"}}, r"hydra.launcher.driver.qos='a\\nid': must be one line"),
        (SLURM, {"driver": {"timeout_min": 2}}, "hydra.launcher.driver.timeout_min=2: must be at least 3"),
        (SLURM, {"max_num_timeout": -1}, "hydra.launcher.max_num_timeout=-1: must be at least 0"),
        (LOCAL, {"gpus_per_trial": 0}, "hydra.launcher.gpus_per_trial=0: must be at least 1"),
        (LOCAL, {"gpus_per_trial": 2, "trials_per_gpu": 2}, "only one of them can be more than 1"),
        (LOCAL, {"timeout_min": 0}, "hydra.launcher.timeout_min=0: must be more than 0, or null"),
        (LOCAL, {"slots": 2}, "hydra.launcher has no slots"),
    ],
)
def test_values_that_make_no_sense_are_one_line(tmp_path: Path, target: str, keys: dict, words: str):
    with pytest.raises(UserError, match=words) as refused:
        make_executor({"_target_": target, **keys}, TASK, None, tmp_path, 1, "study")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("keys", "slots"),
    [
        ({"gpus": [0, 1]}, ["0", "1", "0", "1"]),
        ({"gpus": [0, 1], "trials_per_gpu": 2}, ["0", "0", "1", "1"]),
        ({"gpus": [4, 5, 6, 7], "gpus_per_trial": 2}, ["4,5", "6,7", "4,5", "6,7"]),
        ({"gpus": []}, [None] * 4),
    ],
)
def test_local_trials_share_gpus_by_slot(tmp_path: Path, keys: dict, slots: list):
    executor = make_executor({"_target_": LOCAL, **keys}, TASK, None, tmp_path, 4, "study")
    assert isinstance(executor, LocalExecutor)
    assert [executor._visible(slot) for slot in range(4)] == slots


def test_others_launchers_and_in_process_have_no_executor(tmp_path: Path):
    for launcher in ({"_target_": "somebody.Launcher"}, {"_target_": LOCAL, "in_process": True}):
        assert make_executor(launcher, TASK, None, tmp_path, 1, "study") is None


def test_visible_gpus_come_from_the_environment_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-abc")
    assert visible_gpus() == ["2", "GPU-abc"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert visible_gpus() == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 0\necho 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert visible_gpus() == ["0", "1"]
    tool.write_text("#!/bin/sh\nexit 9\n")
    assert visible_gpus() == []


def test_a_jobs_gpus_are_shared_out_evenly():
    four, two = ["0", "1", "2", "3"], ["0", "1"]
    assert [share(four, rank, 2) for rank in range(2)] == [["0", "1"], ["2", "3"]]
    assert [share(two, rank, 4) for rank in range(4)] == [["0"], ["0"], ["1"], ["1"]]
    assert [share(two, rank, 3) for rank in range(3)] == [["0"], ["0"], ["1"]]


def test_slurms_times():
    assert [in_seconds(text) for text in ("00:01:30", "1-02:00:05", "UNLIMITED")] == [90, 93605, None]


@pytest.mark.parametrize(
    ("job", "status"),
    [
        (JobState("PENDING", "Priority"), Status(Stage.QUEUED, "Priority")),
        (JobState("COMPLETING"), Status(Stage.RUNNING)),
        (JobState("NODE_FAIL"), Status(Stage.GONE, "the node failed", node_fault=True, excused=True)),
        (JobState("PREEMPTED"), Status(Stage.GONE, "preempted by another job", node_fault=True, excused=True)),
        (JobState("CANCELLED"), Status(Stage.GONE, "cancelled (scancel)", node_fault=True, excused=True)),
        (JobState("OUT_OF_MEMORY"), Status(Stage.GONE, "ran out of memory: raise hydra.launcher.mem_gb")),
        (JobState("FAILED", code=137), Status(Stage.GONE, "killed by SIGKILL (out of memory?)", node_fault=True)),
        (JobState("FAILED", signal=13), Status(Stage.GONE, "killed by SIGPIPE", node_fault=True)),
        (JobState("FAILED", signal=11), Status(Stage.GONE, "killed by SIGSEGV")),
        (JobState("FAILED", code=1), Status(Stage.GONE, "failed: the job left with exit code 1")),
        (JobState("FAILED", code=75), Status(Stage.GONE, "the job could not begin its trial", node_fault=True)),
    ],
)
def test_states_in_words(job: JobState, status: Status):
    assert explain(job, 60) == status


def test_the_time_limit_is_named():
    assert "hydra.launcher.timeout_min=60" in (explain(JobState("TIMEOUT"), 60).reason or "")


@pytest.mark.parametrize("name", ["local", "slurm"])
def test_both_launchers_work_under_hydras_own_sweeper(tmp_path: Path, name: str):
    register_schemas()
    overrides = [f"hydra/launcher={name}", "data=streets", "study=s"]
    if name == "slurm":
        overrides += ["hydra.launcher.reservation=r", "hydra.launcher.trials_per_job=2"]
    with initialize_config_dir(str(home() / "conf")):
        config = compose("train", overrides, return_hydra_config=True)
    plugins = Plugins.instance()
    context = HydraContext(callbacks=None, config_loader=None)
    launcher = plugins.instantiate_launcher(hydra_context=context, task_function=print, config=config)
    if name == "slurm":
        assert launcher.params["additional_parameters"] == {"reservation": "r"}
        assert launcher.params["gres"] == "gpu:1" and "trials_per_job" not in launcher.params
        assert launcher.params["submitit_folder"] == "outputs/sweeps/s/submitit/%j"
        assert launcher.params["timeout_min"] == 1440
    plain = OmegaConf.to_container(config.hydra.launcher, resolve=True)
    assert make_executor(plain, TASK, None, tmp_path, 1, "s") is not None


def test_submitits_folder_lies_in_the_sweep_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With the default output_dir, which is relative to where the command is given."""
    monkeypatch.chdir(tmp_path)
    register_schemas()
    with initialize_config_dir(str(home() / "conf")):
        config = compose("train", ["hydra/launcher=slurm", "data=streets", "study=s"], return_hydra_config=True)
    plain = OmegaConf.to_container(config.hydra.launcher, resolve=True)
    sweep = Path(config.hydra.sweep.dir).absolute()
    executor = make_executor(plain, TASK, None, sweep, 1, "s")
    assert isinstance(executor, SlurmExecutor)
    assert executor.files.folder == tmp_path / "outputs/sweeps/s/submitit/%j"
    logs = make_executor({**plain, "submitit_folder": "logs"}, TASK, None, sweep, 1, "s")
    assert isinstance(logs, SlurmExecutor) and logs.files.folder == tmp_path / "logs/%j"


def test_a_dry_run_shows_the_script_and_starts_nothing(tmp_path: Path):
    code, out, err = Sweeping(tmp_path)(
        "x=1,2", "hydra.sweeper.dry_run=true", "hydra/launcher=recyclelora_slurm", "hydra.launcher.partition=gpu"
    )
    assert code == 0, err
    assert {"partition=gpu", "job-name=out-0000"} <= flags(out)
    assert not (tmp_path / "out").exists()


def test_only_slurm_can_run_the_driver(tmp_path: Path):
    code, _, err = Sweeping(tmp_path)("x=1,2", "hydra.sweeper.detach=true")
    assert code == 2 and "add hydra/launcher=slurm" in err and "Traceback" not in err


def test_no_password_stands_in_the_script_of_a_detached_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It runs the whole command all the same."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sbatch").write_text("#!/bin/sh\necho 12\n")
    (tmp_path / "bin/sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    code = f"import sys, pathlib; pathlib.Path({str(tmp_path / 'got')!r}).write_text(sys.argv[1])"
    secret = "hydra.sweeper.storage=postgresql://me:canary@db/x"
    assert submit_driver([sys.executable, "-c", code, secret], tmp_path, SlurmOptions(), "s") == "12"
    (script,) = tmp_path.glob("submitit/driver-*.sh")
    assert "canary" not in script.read_text()
    holding = [file for file in tmp_path.rglob("*") if file.is_file() and "canary" in file.read_text()]
    assert [oct(file.stat().st_mode)[-3:] for file in holding] == ["600"]
    subprocess.run(["bash", str(script)], check=True, timeout=60)
    assert (tmp_path / "got").read_text() == secret
