"""One Slurm node of our own: `sbatch` to a controller and a daemon in a folder."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bench.peers.servers import NotInstalled

START_S = 20.0
CONFIG = """\
ClusterName=bench
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
SlurmctldPort={port}
SlurmdPort={node_port}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0
SelectType=select/cons_tres
ReturnToService=2
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=bench Nodes={host} Default=YES State=UP OverSubscribe=FORCE:4
"""


def start(folder: Path, stack: ExitStack) -> Callable[[str], object]:
    """Hands a command to `sbatch`. Raises `NotInstalled` with the reason where it does not run."""
    for name in ("slurmctld", "slurmd", "sbatch"):
        if shutil.which(name, path=_PATH) is None:
            raise NotInstalled(f"no program {name}: apt-get install slurm-wlm")
    home = folder / "slurm"
    home.mkdir(mode=0o755)
    for name in ("state", "spool"):
        (home / name).mkdir()
    config = home / "slurm.conf"
    ports = [_free_port(), _free_port()]
    config.write_text(
        CONFIG.format(
            host=socket.gethostname(),
            user=getpass.getuser(),
            folder=home,
            port=ports[0],
            node_port=ports[1],
        )
    )
    settings = {**os.environ, "SLURM_CONF": str(config), "PATH": _PATH}
    for command in (["slurmctld", "-D"], ["slurmd", "-D"]):
        _daemon(command, home, settings, stack)
    _until_up(settings, home)

    def submit(command: str) -> None:
        subprocess.run(
            ["sbatch", "-o", "/dev/null", f"--wrap={command}"],
            env=settings,
            check=True,
            stdout=subprocess.DEVNULL,
        )

    return submit


_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def _daemon(command: list[str], home: Path, settings: dict[str, str], stack: ExitStack) -> None:
    with (home / f"{command[0]}.out").open("wb") as out:
        process = subprocess.Popen(command, env=settings, stdout=out, stderr=out)
    stack.callback(_end, process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(timeout=20)


def _until_up(settings: dict[str, str], home: Path) -> None:
    deadline = time.monotonic() + START_S
    state = ""
    while not state.startswith("idle"):
        if time.monotonic() > deadline:
            logs = "; ".join(_log(home, name) for name in ("slurmctld", "slurmd"))
            raise NotInstalled(f"its node is {state or 'unknown'}: {logs}")
        told = subprocess.run(
            ["sinfo", "-h", "-o", "%T"], env=settings, capture_output=True, text=True, check=False
        )
        state = told.stdout.strip()
        time.sleep(0.2)


def _log(home: Path, name: str) -> str:
    path = home / f"{name}.out"
    return " ".join(path.read_text(errors="replace").split())[-300:] if path.exists() else ""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
