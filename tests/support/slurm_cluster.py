"""A real SLURM of three nodes on this machine, without root's folders: every file and socket in one folder.

The nodes have two GPUs each, which are ``/dev/null`` and ``/dev/zero``. Killing a node kills all that ran on it.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
NODES = ("n1", "n2", "n3")

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=3
SlurmdTimeout=8
MinJobAge={remembered}
MaxArraySize=4
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
Prolog={folder}/prolog.sh
DefMemPerCPU=100
NodeName=n[1-3] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{node_ports}] CPUs=4 RealMemory=4000 Gres=gpu:2
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=OFF
PartitionName=short Nodes=ALL MaxTime=2 State=UP PriorityTier=1 PreemptMode=OFF
PartitionName=low Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=9 PreemptMode=OFF
"""


def missing() -> list[str]:
    """Programs that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None]


def needs_slurm() -> pytest.MarkDecorator:
    """Skip where SLURM is not installed."""
    reason = f"needs Debian's slurmctld, slurmd, slurm-client and munge: no {', '.join(missing())}"
    return pytest.mark.skipif(bool(missing()), reason=reason)


class Cluster:
    """Three nodes, a controller and munge; used with ``with``."""

    def __init__(self, folder: Path, *, remembered: int = 300) -> None:
        self.folder, self.remembered = folder, remembered
        self.path = f"{os.environ['PATH']}:/usr/sbin:/sbin"

    @property
    def configuration(self) -> Path:
        """What ``SLURM_CONF`` names."""
        return self.folder / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of programs that talk to this cluster."""
        return {**os.environ, "SLURM_CONF": str(self.configuration), "PATH": self.path}

    # --- life ---------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Cluster:
        for name in ("state", "log", *(f"spool/{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True)
        first = _free_ports(len(NODES) + 1)
        text = CONFIGURATION.format(
            host=socket.gethostname().split(".")[0], user=_user(), folder=self.folder, controller_port=first,
            node_ports=f"{first + 1}-{first + len(NODES)}", remembered=self.remembered,
        )  # fmt: skip
        self.configuration.write_text(text)
        (self.folder / "gres.conf").write_text(
            "NodeName=n[1-3] Name=gpu File=/dev/null\nNodeName=n[1-3] Name=gpu File=/dev/zero\n"
        )
        prolog = self.folder / "prolog.sh"
        prolog.write_text(f"#!/bin/sh\ntest ! -e {self.folder}/$SLURMD_NODENAME.broken\n")
        prolog.chmod(0o755)
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        self.folder.chmod(0o755)
        try:
            self._call(
                "munged", "--force", f"--key-file={key}", f"--socket={self.folder}/munge.socket",
                f"--pid-file={self.folder}/munged.pid", f"--log-file={self.folder}/log/munged.log",
                f"--seed-file={self.folder}/munged.seed",
            )  # fmt: skip
            self._call("slurmctld", "-f", str(self.configuration))
            for node in NODES:
                self.start_node(node)
            self.until(lambda: self.ask("sinfo", "-h", "-t", "idle", "-p", "main", "-o", "%D").strip() == "3", 30)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["scancel", f"--user={_user()}"], env=self.environment, capture_output=True, timeout=30)
        for node in NODES:
            self.kill_node(node)
        for name in ("slurmctld.pid", "munged.pid"):
            self._end(self.folder / name)

    def start_node(self, node: str) -> None:
        """Start a node's daemon."""
        self._call("slurmd", "-f", str(self.configuration), "-N", node)

    def start_controller(self) -> None:
        """Start the controller again, which remembers its jobs."""
        self._call("slurmctld", "-f", str(self.configuration))

    def break_prolog(self, node: str) -> None:
        """Let nothing start on a node until :meth:`mend_prolog`."""
        (self.folder / f"{node}.broken").touch()

    def mend_prolog(self, node: str) -> None:
        """Take back what :meth:`break_prolog` did; SLURM has drained the node meanwhile."""
        (self.folder / f"{node}.broken").unlink()
        self.ask("scontrol", "update", f"nodename={node}", "state=resume")

    def stop_controller(self) -> None:
        """End the controller; jobs go on."""
        self._end(self.folder / "slurmctld.pid")

    def kill_node(self, node: str) -> None:
        """Kill a node's daemon and everything that runs on it, as a power cut would."""
        self._end(self.folder / f"{node}.pid", signal.SIGKILL)
        for process in sorted(self.processes(node)):  # step daemons first: none lives to tell of its job's end
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def processes(self, node: str) -> set[int]:
        """What runs on a node of this cluster: scripts, tasks, and the step daemons above them."""
        found: set[int] = set()
        for entry in Path("/proc").iterdir():
            try:
                words = (entry / "environ").read_bytes().split(b"\0")
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue
            if {f"SLURM_CONF={self.configuration}".encode(), f"SLURMD_NODENAME={node}".encode()} <= set(words):
                found.add(int(entry.name))
                if Path(f"/proc/{parent}/comm").read_text().startswith("slurmstepd"):
                    found.add(parent)
        return found

    def _end(self, file: Path, number: int = signal.SIGTERM) -> None:
        """End a daemon by its pid file and wait until it is gone."""
        try:
            process = int(file.read_text())
            os.kill(process, number)
        except (OSError, ValueError):
            return
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                    return
            except OSError:
                return
            time.sleep(0.05)
        os.kill(process, signal.SIGKILL)

    # --- talking to it ------------------------------------------------------------------------------------------------

    def ask(self, *command: str) -> str:
        """What a program prints."""
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=True, timeout=60
        ).stdout

    def _call(self, *command: str) -> None:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (command, done.stderr)

    def job(self, number: str) -> dict[str, str]:
        """A job's fields, as ``scontrol`` shows them."""
        words = self.ask("scontrol", "show", "job", "-o", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    @staticmethod
    def until(ready: Callable[[], object], seconds: float = 60) -> None:
        """Wait for something to become true."""
        deadline = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < deadline, "waited too long"
            time.sleep(0.1)


def running_cluster(folder: Path, **options: int) -> Iterator[Cluster]:
    """A cluster that this process's own programs talk to, too."""
    before = {name: os.environ.get(name) for name in ("SLURM_CONF", "PATH")}
    with Cluster(folder, **options) as cluster:
        os.environ |= {"SLURM_CONF": str(cluster.configuration), "PATH": cluster.path}
        try:
            yield cluster
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


def _free_ports(count: int) -> int:
    """The first of some neighbouring ports that nobody listens on."""
    for first in range(21000 + os.getpid() % 5000, 32000, count):
        sockets = [socket.socket() for _ in range(count)]
        try:
            for offset, one in enumerate(sockets):
                one.bind(("127.0.0.1", first + offset))
            return first
        except OSError:
            continue
        finally:
            for one in sockets:
                one.close()
    raise AssertionError("no free ports")
