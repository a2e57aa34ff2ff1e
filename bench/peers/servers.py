"""Servers of our own for the peers that need one: on free loopback ports, with their data on the
disk that is measured, ended with the benchmark."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

START_S = 30.0
_LOOPBACK = "127.0.0.1"
_DEBIAN_POSTGRES = Path("/usr/lib/postgresql")
"""Each version below it has its own `bin`, which is in nobody's PATH."""


class NotInstalled(Exception):
    """A peer's server is not there; says how to get it."""


class Servers:
    """Starts what is asked for, in `folder`; `stack` ends it. Raises `NotInstalled`."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder = folder
        self._stack = stack
        self._postgres_port = 0

    def postgres(self, database: str) -> str:
        """The connection string of a new, empty database; all are of one cluster."""
        createdb = _postgres_program("createdb")
        user = _postgres_user()
        if not self._postgres_port:
            self._postgres_port = self._start_postgres(user)
        where = ["-h", _LOOPBACK, "-p", str(self._postgres_port), "-U", user.pw_name]
        subprocess.run([createdb, *where, database], check=True)
        return f"host={_LOOPBACK} port={self._postgres_port} user={user.pw_name} dbname={database}"

    def redis(self) -> int:
        """The port of a Redis that syncs before it answers."""
        port = _free_port()
        command = [_program("redis-server"), "--bind", _LOOPBACK, "--port", str(port)]
        command += ["--dir", str(self._data("redis")), "--save", ""]
        command += ["--appendonly", "yes", "--appendfsync", "always"]
        command += ["--auto-aof-rewrite-percentage", "0"]  # none of it in the middle of a phase
        self._start(command, partial(_answers, port))
        return port

    def beanstalkd(self) -> int:
        """The port of a beanstalkd that syncs before it answers."""
        port = _free_port()
        command = [_program("beanstalkd"), "-l", _LOOPBACK, "-p", str(port)]
        command += ["-b", str(self._data("beanstalkd")), "-f", "0"]
        self._start(command, partial(_answers, port))
        return port

    def _start_postgres(self, user: pwd.struct_passwd) -> int:
        server, port, data = _postgres_program("postgres"), _free_port(), self._data("postgres")
        os.chmod(self._folder, 0o711)  # the server may not be root, so it is somebody else
        os.chown(data, user.pw_uid, user.pw_gid)
        initdb = [_postgres_program("initdb"), "-A", "trust", "-D", str(data)]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, **_identity(user))
        settings = {
            "port": port,
            "listen_addresses": _LOOPBACK,
            "unix_socket_directories": data,
            "shared_buffers": "512MB",
            "max_wal_size": "2GB",
            "max_connections": 200,
        }
        flags = [flag for name, value in settings.items() for flag in ("-c", f"{name}={value}")]
        # It takes connections before it takes questions.
        ready = [_postgres_program("pg_isready"), "-q", "-h", _LOOPBACK, "-p", str(port)]
        self._start(
            [server, "-D", str(data), *flags], lambda: subprocess.call(ready) == 0, user=user
        )
        return port

    def _data(self, name: str) -> Path:
        data = self._folder / name
        data.mkdir()
        return data

    def _start(
        self,
        command: Sequence[str],
        ready: Callable[[], bool],
        user: pwd.struct_passwd | None = None,
    ) -> None:
        path = self._folder / f"{Path(command[0]).name}.log"
        with path.open("wb") as log:
            server = subprocess.Popen(
                command, stdout=log, stderr=log, **(_identity(user) if user else {})
            )
        self._stack.callback(_end, server)
        deadline = time.monotonic() + START_S
        while not ready():
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} does not start: {path.read_text()[-2000:]}")
            time.sleep(0.05)


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        raise NotInstalled(f"no program {name}: apt-get install {name}")
    return found


def _postgres_program(name: str) -> str:
    debian = sorted(_DEBIAN_POSTGRES.glob(f"*/bin/{name}"))
    found = str(debian[-1]) if debian else shutil.which(name)
    if found is None:
        raise NotInstalled(f"no program {name}: apt-get install postgresql")
    return found


def _postgres_user() -> pwd.struct_passwd:
    """PostgreSQL refuses to run as root."""
    if os.getuid():
        return pwd.getpwuid(os.getuid())
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        raise NotInstalled("no user postgres: apt-get install postgresql") from None


def _identity(user: pwd.struct_passwd) -> dict[str, Any]:
    if user.pw_uid == os.getuid():
        return {}
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": "/"}


def _free_port() -> int:
    with socket.create_server((_LOOPBACK, 0)) as listener:
        return int(listener.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        socket.create_connection((_LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True


def _end(server: subprocess.Popen[bytes]) -> None:
    server.send_signal(signal.SIGINT)  # PostgreSQL would wait for its clients at SIGTERM
    try:
        server.wait(timeout=20)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
