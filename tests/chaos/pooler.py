"""A connection pooler in transaction mode in front of a local stack's Postgres, and the gateway that goes through it.

PgBouncer is a program of the system's package `pgbouncer`.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from source.devstack.parts import HOST
from source.devstack.servers import Gateway
from source.devstack.stack import Stack
from source.devstack.state import free_ports

PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
#: it refuses to run as root
ACCOUNT = "nobody"
START_S = 20.0

_CONFIGURATION = """
[databases]
{database} = host={host} port={port} dbname={database}
[pgbouncer]
listen_addr = {host}
listen_port = {own}
auth_type = scram-sha-256
auth_file = {users}
pool_mode = transaction
default_pool_size = 4
max_client_conn = 500
unix_socket_dir =
"""


class Pooler:
    """Running until it is closed. `pool_mode` is transaction: a client has a connection for one transaction only."""

    def __init__(self, folder: Path, uri: str) -> None:
        """`uri`: of the server, with user and password."""
        server = urlsplit(uri)
        self.port = free_ports()["gateway"]
        folder.mkdir()
        folder.parent.chmod(0o711)
        users, settings = folder / "users.txt", folder / "pgbouncer.ini"
        users.write_text(f'"{server.username}" "{server.password}"\n')
        settings.write_text(
            _CONFIGURATION.format(
                database=server.path.strip("/"), host=HOST, port=server.port, own=self.port, users=users
            )
        )
        account = ACCOUNT if os.getuid() == 0 else None
        for path in (folder, users, settings):
            path.chmod(0o700 if path.is_dir() else 0o600)
            if account:
                shutil.chown(path, account)
        assert PROGRAM is not None
        self._log = folder.parent / "pgbouncer.log"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([PROGRAM, str(settings)], user=account, stdout=log, stderr=log)
        self.uri = server._replace(netloc=f"{server.username}:{server.password}@{HOST}:{self.port}").geturl()
        self._wait()

    def close(self) -> None:
        """At once."""
        self._process.kill()
        self._process.wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_S
        while True:
            with closing(socket.socket()) as probe:
                if probe.connect_ex((HOST, self.port)) == 0:
                    return
            assert self._process.poll() is None and time.monotonic() < deadline, self._log.read_text()
            threading.Event().wait(0.05)


def through(pooler: Pooler, stack: Stack) -> Gateway:
    """A gateway at the port of the stack's own, which must not run; its functions reach the database by the pooler."""
    environment = stack.functions_environment() | {"DB_POOLER_URL": pooler.uri}
    ports = stack.state.ports
    return Gateway(stack.folder, ports["gateway"], environment, (pooler.port, ports["s3"]))
