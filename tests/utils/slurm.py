"""A Slurm of two nodes on this machine, for tests of what runs under one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
NodeName=127.0.0.[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs={cores} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES State=UP
"""


def lacking() -> str:
    """Why there can be no Slurm here, or an empty string."""
    missing = [name for name in DAEMONS if not shutil.which(name)]
    if missing:
        return f"{' '.join(missing)} not installed (Debian: slurm-wlm, munge)"
    return "" if os.geteuid() == 0 else "Slurm's daemons are tested as root"


@contextmanager
def two_nodes(folder: Path, port: int) -> Iterator[dict[str, str]]:
    """The environment in which sbatch and srun find two idle nodes, with a free `port` and the two behind it."""
    (folder / "state").mkdir()
    host = os.uname().nodename.split(".")[0]
    ports = {"port": port, "first": port + 1, "last": port + 2}
    (folder / "slurm.conf").write_text(CONF.format(folder=folder, host=host, cores=os.cpu_count(), **ports))
    (folder / "key").write_bytes(os.urandom(128))
    (folder / "key").chmod(0o600)
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    munge = {"key-file": "key", "socket": "munge.socket", "pid-file": "m.pid", "log-file": "m.log", "seed-file": "seed"}
    commands = [["munged", "--foreground", "--force", *(f"--{name}={folder / file}" for name, file in munge.items())]]
    commands += [["slurmctld", "-D"], ["slurmd", "-D", "-N", "127.0.0.1"], ["slurmd", "-D", "-N", "127.0.0.2"]]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    daemons = []
    try:
        for command in commands:
            daemons.append(subprocess.Popen(command, env=environment, **quiet))
            time.sleep(0.5)
        end = time.monotonic() + 60
        while (shown := _states(environment)).count("idle") < 2:
            assert time.monotonic() < end, shown
            time.sleep(0.5)
        yield environment
    finally:
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in daemons:
            daemon.wait(timeout=30)


def _states(environment: dict[str, str]) -> str:
    command = ["sinfo", "--noheader", "--Node", "--format=%T"]
    return subprocess.run(command, env=environment, capture_output=True, text=True).stdout
